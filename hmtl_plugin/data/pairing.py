"""The pair index of an epoch: which sentences make up each sample, paired as in BERT for whole arrays.

Rules (Devlin et al. 2019, create_pretraining_data). Within a document whole consecutive sentences fill a
*chunk* until it reaches a target number of tokens or the document ends. The target is the budget (sequence
length less ``<s> </s> </s>``) or, with ``short_seq_prob``, a random number in [2, budget]. A chunk of two or
more sentences is split behind a random sentence into A and B.

- ``nsp``: with probability 1/2, and always for a chunk of one sentence, B gives way to a random segment: from
  a random sentence of another document (each other document equally likely) as many sentences as the rest of
  the target takes, or the document has. The sentences that lost their place begin the next chunk.
- ``distance`` (after ERNIE 2.0's, Sun et al. 2019): as ``nsp``, but half of the random segments are of the same
  document, from a random sentence outside of the chunk; another document's, if there is none.
- ``sop``: B follows A; with probability 1/2 they change places. A chunk of one sentence has no B and no
  label.
- ``single``: the whole chunk is A (budget: sequence length less ``<s> </s>``).

In the ``rows`` layout the chunks are the rows of a sentence-pair data set: two sentences each, and the random
B is the second sentence of a random row of another document.

Where this departs from BERT: the target is drawn for each chunk, not once a document (a document may be a
whole corpus), and what a pair is too long by is cut from front and back at a uniformly drawn ratio instead of
by one coin a token, whose binomial would show no more than the middle of a very long sentence.

How it is fast: every draw is a hash of (seed, epoch, first sentence of the chunk), so only the chain "the
next chunk starts where this one ended" is sequential, and only within a document. All documents of a block
walk it in lock step. Documents are walked in parts of `PART` to ``2 * PART - 1`` sentences, where a chunk
ends as at the end of a document, so that a document of a million sentences is an array of parts. The result
depends neither on the size of blocks nor on the number of threads.
"""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hmtl_plugin.corruption.batch import FlatBatch
from hmtl_plugin.corruption.random import UInt64Array, bits, stream_key
from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.data.corpus import Corpus, Int64Array, expand_ranges, gather_sizes
from hmtl_plugin.errors import UserError

KINDS = ("nsp", "sop", "distance", "single")
LAYOUTS = ("segments", "rows")
NO_LABEL = -1
"""Label of a sample that is no pair; the same as `batch.IGNORE`."""


@dataclass(frozen=True)
class PairingConfig:
    """How sentences become samples; the rules are in `hmtl_plugin.data.pairing`.

    Attributes:
        kind: of `KINDS`.
        tokens_per_sample: longest sequence, special tokens included.
        short_seq_prob: share of chunks with a random, shorter target.
        layout: ``segments`` fills chunks with sentences, ``rows`` takes the rows of sentence-pair data.
    """

    kind: str = "nsp"
    tokens_per_sample: int = 128
    short_seq_prob: float = 0.1
    layout: str = "segments"

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.layout not in LAYOUTS:
            raise UserError(
                f"pairing '{self.kind}' of layout '{self.layout}': use one of {', '.join(KINDS)} "
                f"and one of {', '.join(LAYOUTS)}"
            )

    @property
    def budget(self) -> int:
        """Tokens of text that a full sample holds."""
        return self.tokens_per_sample - (2 if self.kind == "single" else 3)


def row_type(items: int) -> np.dtype:
    """What a sample is, for a corpus of so many items. One row, not a column each: batches take samples at random, and
    from memory that is far larger than the cache a row costs one wait, columns five.

    Fields: ``a_start``, ``a_count`` first sentence of A (item number of the corpus) and how many; ``b_start``,
    ``b_count`` the same for B, count 0 where there is none; ``label`` -1 no pair, else what the kind's objective asks
    for (nsp: 1 B follows A, 0 it does not). Counts fit 16 bits: a segment holds no more sentences than its target has
    tokens.
    """
    item = np.uint32 if items < 1 << 32 else np.int64
    return np.dtype(
        [("a_start", item), ("b_start", item), ("a_count", np.uint16), ("b_count", np.uint16), ("label", np.int8)]
    )


@dataclass
class PairIndex:
    """The samples of an epoch, S in all, in order of document and position; 17 bytes a sample, 25 in a corpus of 2^32
    items and more.

    Attributes:
        rows: (S,) of `row_type`.
        sizes: (S,) int32, tokens of each sample after truncation, special tokens included.
        config: how it was built.
        cut_key: key of the draws that divide a truncation between front and back.
    """

    rows: npt.NDArray[np.void]
    sizes: npt.NDArray[np.int32]
    config: PairingConfig
    cut_key: np.uint64

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray], config: PairingConfig, seed: int, epoch: int) -> "PairIndex":
        """From what `arrays` gave."""
        return cls(**arrays, config=config, cut_key=stream_key(seed, epoch, "pairing.cut"))

    @property
    def arrays(self) -> dict[str, npt.NDArray]:
        """What it is made of, by name."""
        return {"rows": self.rows, "sizes": self.sizes}

    def __len__(self) -> int:
        return len(self.sizes)

    def batch(self, corpus: Corpus, index_B: Int64Array, vocabulary: Vocabulary) -> FlatBatch:
        """The samples ``index_B`` as ``<s> A </s> [B </s>]``, uncorrupted, with the label of the pairs as a target.

        Two segments a sample, A and B: their sentences are laid out with room for the special tokens around them, all
        tokens are read in one gather, and the special ones written over what was read in their places.
        """
        batch = len(index_B)
        starts, counts = np.empty((batch, 2), np.int64), np.empty((batch, 2), np.int64)
        rows = self.rows.take(index_B)
        starts[:, 0], starts[:, 1] = rows["a_start"], rows["b_start"]
        counts[:, 0], counts[:, 1] = rows["a_count"], rows["b_count"]
        items = expand_ranges(starts.ravel(), counts.ravel())
        lengths, sources = corpus.lengths(items), corpus.token_start(items)
        segment = np.repeat(np.arange(2 * batch), counts.ravel())
        ends = np.append(0, np.cumsum(lengths))
        last_item = np.cumsum(counts.ravel())
        segment_begin = ends[last_item - counts.ravel()]
        total = (ends[last_item] - segment_begin).reshape(batch, 2)
        keep, skip = self._truncation(total, counts[:, 1] > 0, starts[:, 0])
        if (keep < total).any():
            place = ends[:-1] - segment_begin[segment]  # of each sentence in its segment
            low = skip.ravel()[segment]
            high = low + keep.ravel()[segment]
            cut_begin, cut_end = (np.minimum(np.maximum(at - place, 0), lengths) for at in (low, high))
            sources, lengths = sources + cut_begin, cut_end - cut_begin
        targets = {} if self.config.kind == "single" else {self.config.kind: rows["label"].astype(np.int64)}
        return self._lay_out(corpus, index_B, vocabulary, counts, keep, sources, lengths, targets)

    def _truncation(
        self, total: Int64Array, paired: npt.NDArray[np.bool_], a_start: Int64Array
    ) -> tuple[Int64Array, Int64Array]:
        """What of each segment stays, and how much of what goes is cut from its front; (B, 2) each.

        BERT takes one token after the other from the longer segment, from B if both are as long. So A keeps
        all that B leaves, but no less than the larger half, and B the rest.
        """
        room = self.config.tokens_per_sample - 2 - paired
        keep = np.empty_like(total)
        share = np.where(paired, (room + 1) // 2, room)
        keep[:, 0] = np.minimum(total[:, 0], np.maximum(room - total[:, 1], share))
        keep[:, 1] = np.minimum(total[:, 1], room - keep[:, 0])
        draw = bits(self.cut_key, a_start)
        low = np.uint64(0xFFFFFFFF)
        ratio = np.stack([draw & low, draw >> np.uint64(32)], axis=1)
        skip = (ratio * (total - keep + 1).astype(np.uint64)) >> np.uint64(32)
        return keep, skip.astype(np.int64)

    def _lay_out(
        self,
        corpus: Corpus,
        index_B: Int64Array,
        vocabulary: Vocabulary,
        counts: Int64Array,
        keep: Int64Array,
        sources: Int64Array,
        lengths: Int64Array,
        targets: dict[str, Int64Array],
    ) -> FlatBatch:
        """Gather the sentences' tokens ``sources[i]:sources[i] + lengths[i]`` and put the special tokens
        around segments.
        """
        paired = counts[:, 1] > 0
        sizes = keep.sum(axis=1) + 2 + paired
        offsets = np.append(0, np.cumsum(sizes))
        # a segment's first sentence makes room for <s>, its last one for </s>
        before, after = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
        last = np.cumsum(counts.ravel())
        before[last[0::2] - counts[:, 0]] = 1
        after[last[0::2] - 1] = 1
        after[last[1::2][paired] - 1] = 1
        corpus.tokens.take(sources, mode="clip")  # touches every sentence first, so that cache misses overlap
        read = expand_ranges(sources - before, lengths + before + after)
        tokens = corpus.tokens.take(read).astype(np.int64)
        corpus.check_ids(tokens, vocabulary.size)  # of a damaged file: the embeddings would end in a bare IndexError
        tokens[offsets[:-1]] = vocabulary.bos
        tokens[offsets[:-1] + 1 + keep[:, 0]] = vocabulary.eos
        tokens[offsets[1:] - 1] = vocabulary.eos
        begin = np.cumsum(lengths + before + after) - lengths - after
        sentence_start = np.zeros(len(tokens), dtype=bool)
        sentence_start[begin[lengths > 0]] = True
        index_B = np.asarray(index_B, np.int64)
        return FlatBatch(tokens, offsets, index_B, sentence_start, vocabulary, targets, text=corpus.tokens)


__all__ = ["PairIndex", "PairingConfig", "build_pairs"]


class _Samples(NamedTuple):
    """Of a block: `PairIndex.rows` and `PairIndex.sizes`."""

    rows: npt.NDArray[np.void]
    sizes: npt.NDArray[np.int32]


PART = 256
"""Sentences after which the chain of chunks is cut; even, so that rows stay whole."""
BLOCK = 1 << 19
"""Sentences a thread handles at a time: enough to hide the cost of calls, few enough for the cache."""
_MAX_LENGTH = 1 << 16
RANDOM = ("nsp", "distance")
"""Kinds whose second segment may be of another document."""


def build_pairs(
    corpus_sizes: npt.NDArray[np.int32],
    documents: tuple[Int64Array, Int64Array],
    config: PairingConfig,
    seed: int,
    epoch: int,
    threads: int | None = None,
    block: int = BLOCK,
) -> PairIndex:
    """Pair the sentences of a corpus for one epoch.

    Args:
        corpus_sizes: (items,) int32, tokens of each item with its ``</s>``; need not be aligned
            (`Corpus.sizes`).
        documents: (start, end) items of each document (`Corpus.documents`).
        seed, epoch: with the position in the corpus they determine every draw.
        threads: at most so many blocks at a time; by default as many as there are cores, up to four.

    Raises:
        UserError: ``nsp`` on a single document, rows that are not pairs, or a sequence length that cannot
            hold a pair.
    """
    _check(documents, config)
    builder = _Builder(corpus_sizes, documents, config, seed, epoch)
    first, last = int(documents[0][0]), int(documents[1][-1])
    spans = [(begin, begin + block) for begin in range(first, last, block)]
    threads = threads or min(4, len(os.sched_getaffinity(0)))
    # room for the most samples there can be: pages of it that are never written take no memory
    rows = np.empty(last - first, row_type(len(corpus_sizes)))
    opaque = rows.view(f"V{rows.itemsize}")  # numpy would copy field by field, in 36 times the time
    lengths = np.empty(last - first, np.int32)
    filled = 0
    with ThreadPoolExecutor(threads) as pool:
        for piece in pool.map(builder.block, spans) if threads > 1 else map(builder.block, spans):
            begin, filled = filled, filled + len(piece.sizes)
            opaque[begin:filled], lengths[begin:filled] = piece.rows.view(opaque.dtype), piece.sizes
    return PairIndex.of({"rows": rows[:filled], "sizes": lengths[:filled]}, config, seed, epoch)


def _check(documents: tuple[Int64Array, Int64Array], config: PairingConfig) -> None:
    start, end = documents
    if not 5 <= config.tokens_per_sample < _MAX_LENGTH:
        raise UserError(
            f"--tokens-per-sample {config.tokens_per_sample} cannot hold pairs of sentences; "
            f"give 5 to {_MAX_LENGTH - 1}"
        )
    if config.kind in RANDOM and len(start) < 2:
        raise UserError(
            f"{config.kind} needs at least two documents to draw random segments from, this corpus has one; "
            "separate the documents by blank lines, or give --pairing sop or --pairing single"
        )
    if config.layout == "rows":
        odd = np.flatnonzero((end - start) & 1)
        if len(odd):
            raise UserError(
                f"layout 'rows' alternates first and second sentences, but the document at item "
                f"{start[odd[0]]} has an odd number of them; prepare the data again or use layout 'segments'"
            )


# The 64 bits of a chunk's hash: 0-15 is it short, 16-39 its short target, 40-62 where to split, 63 the coin.


def _targets(draw: Int64Array, config: PairingConfig) -> Int64Array:
    """Tokens at which each chunk is full."""
    threshold = round(config.short_seq_prob * (1 << 16))
    budget = config.budget
    shorter = (((draw >> 16) & 0xFFFFFF) * (budget - 1)) >> 24  # in [0, budget - 2]
    shorter -= budget - 2
    shorter *= (draw & 0xFFFF) < threshold
    shorter += budget
    return shorter


def _split(draw: Int64Array, count: Int64Array) -> Int64Array:
    """Sentences of A, in [1, count - 1], or 1 of 1."""
    return ((((draw >> 40) & 0x7FFFFF) * (count - 1)) >> 23) + 1


def _coin(draw: Int64Array) -> npt.NDArray[np.bool_]:
    return draw < 0


def _scale(draw: UInt64Array, high: npt.ArrayLike) -> Int64Array:
    """32-bit draws to integers in [0, high)."""
    return ((draw * np.asarray(high).astype(np.uint64)) >> np.uint64(32)).view(np.int64)


class _Builder:
    """Pairs one block after the other; holds only what all of them share, so that threads need no lock."""

    def __init__(
        self,
        sizes: npt.NDArray[np.int32],
        documents: tuple[Int64Array, Int64Array],
        config: PairingConfig,
        seed: int,
        epoch: int,
    ) -> None:
        self.sizes, self.config = sizes, config
        self.start, self.end = documents
        self.chunk_key = stream_key(seed, epoch, "pairing.chunk")
        self.random_key = stream_key(seed, epoch, "pairing.random")
        self.near_key = stream_key(seed, epoch, "pairing.near")
        self.row_type = row_type(len(sizes))

    def block(self, span: tuple[int, int]) -> _Samples:
        """The samples whose part begins in ``span``."""
        document, part_start, part_end = self._parts(*span)
        if len(part_start) == 0:
            return self._samples(*[np.zeros(0, np.int64)] * 6)
        base, limit = int(part_start[0]), int(part_end[-1])
        lengths = np.subtract(self.sizes[base:limit], 1)
        total = int(lengths.sum(dtype=np.int64))
        narrow = total + self.config.tokens_per_sample < 1 << 31
        before: npt.NDArray[np.integer] = np.zeros(
            len(lengths) + 1, dtype=np.int32 if narrow else np.int64
        )  # tokens before each sentence
        np.cumsum(lengths, out=before[1:])
        walk = self._rows if self.config.layout == "rows" else self._chain
        chunk, count, split = walk(before, part_start - base, part_end - base, base)
        if self.config.kind == "single":
            size = np.minimum(before.take(chunk + count) - before.take(chunk), self.config.budget) + 2
            zero = np.zeros(len(chunk), np.int64)
            return self._samples(chunk + base, count, zero, zero, zero + NO_LABEL, size)
        split_at = before.take(chunk + split)
        a_length, b_length = split_at - before.take(chunk), before.take(chunk + count) - split_at
        if self.config.kind == "sop":
            return self._swap(chunk + base, count, split, a_length, b_length)
        owner = np.repeat(document, np.diff(part_start, append=limit)).take(chunk)
        return self._random_segments(chunk + base, count, split, a_length, b_length, owner)

    def _parts(self, low: int, high: int) -> tuple[Int64Array, Int64Array, Int64Array]:
        """Document, first and last sentence (exclusive) of every part that begins in [low, high)."""
        first = int(np.searchsorted(self.end, low, side="right"))
        last = int(np.searchsorted(self.start, high, side="left"))
        start, end = self.start[first:last], self.end[first:last]
        parts = np.maximum((end - start) // PART, 1)  # the last part takes the rest
        begin = np.minimum(np.maximum(low - start + PART - 1, 0) // PART, parts)
        stop = np.minimum((high - start + PART - 1) // PART, parts)
        counts = np.maximum(stop - begin, 0)
        number = expand_ranges(begin, counts)
        row = np.repeat(np.arange(len(start)), counts)
        part_start = start[row] + number * PART
        part_end = np.where(number == parts[row] - 1, end[row], part_start + PART)
        return row + first, part_start, part_end

    def _rows(
        self, before: np.ndarray, start: Int64Array, end: Int64Array, base: int
    ) -> tuple[Int64Array, Int64Array, Int64Array]:
        """Chunks of the ``rows`` layout; returns as `_chain`."""
        pairs = (end - start) >> 1
        chunk = np.repeat(start, pairs) + 2 * expand_ranges(np.zeros_like(pairs), pairs)
        return chunk, np.full(len(chunk), 2), np.ones(len(chunk), np.int64)

    def _chain(
        self, before: np.ndarray, start: Int64Array, end: Int64Array, base: int
    ) -> tuple[Int64Array, Int64Array, Int64Array]:
        """Walk all parts of a block in lock step.

        Args:
            before: tokens before each sentence of the block.
            start, end: of each part, counted from the block's first sentence ``base``.

        Returns:
            First sentence, sentences and sentences of A of each chunk, in order of position.
        """
        code = np.zeros(len(before), dtype=np.int64)  # at a chunk's first sentence: its sentences << 32 | those of A
        puts_back = self.config.kind in RANDOM
        while len(start):
            draw = self._draw(start + base)
            full = before.take(start) + _targets(draw, self.config)
            stop = np.searchsorted(before, full.astype(before.dtype), side="left")
            np.minimum(stop, end, out=stop)
            count = stop - start
            split = _split(draw, count)
            code[start] = (count << 32) | split
            if puts_back:
                stop -= (count - split) * _coin(draw)
            alive = np.flatnonzero(stop < end)
            start, end = stop.take(alive), end.take(alive)
        chunk = np.flatnonzero(code != 0)
        code = code.take(chunk)
        return chunk, code >> 32, code & 0xFFFFFFFF

    def _draw(self, sentence: Int64Array) -> Int64Array:
        return bits(self.chunk_key, sentence).view(np.int64)

    def _swap(
        self,
        chunk: Int64Array,
        count: Int64Array,
        split: Int64Array,
        a_length: np.ndarray,
        b_length: np.ndarray,
    ) -> _Samples:
        """Samples of ``sop``."""
        paired = count > 1
        swapped = _coin(self._draw(chunk)) & paired
        middle, rest = chunk + split, count - split
        a_start, b_start = np.where(swapped, middle, chunk), np.where(swapped, chunk, middle) * paired
        a_count, b_count = np.where(swapped, rest, split), np.where(swapped, split, rest)
        size = np.minimum(a_length + b_length, self.config.budget + ~paired) + 2 + paired
        return self._samples(a_start, a_count, b_start, b_count, np.where(paired, ~swapped, NO_LABEL), size)

    def _random_segments(
        self,
        chunk: Int64Array,
        count: Int64Array,
        split: Int64Array,
        a_length: np.ndarray,
        b_length: np.ndarray,
        owner: Int64Array,
    ) -> _Samples:
        """Samples of ``nsp`` and ``distance``; ``owner`` is each chunk's document."""
        draw = self._draw(chunk)
        negative = _coin(draw) | (count == 1)
        b_start, b_count = chunk + split, count - split
        near = np.zeros(len(chunk), dtype=bool)
        label: np.ndarray = ~negative
        if self.config.kind == "distance":
            outside = self.end.take(owner) - self.start.take(owner) - count
            near = negative & (outside > 0) & (bits(self.near_key, chunk) & np.uint64(1)).astype(bool)
            label = np.where(negative, near.astype(np.int8), np.int8(2))
            at = np.flatnonzero(near)
            wanted = _targets(draw.take(at), self.config) - a_length.take(at)
            found = self._elsewhere(chunk.take(at), count.take(at), owner.take(at), wanted)
            b_start[at], b_count[at], b_length[at] = found
        at = np.flatnonzero(negative & ~near)
        wanted = _targets(draw.take(at), self.config) - a_length.take(at)
        b_start[at], b_count[at], b_length[at] = self._other_documents(chunk.take(at), owner.take(at), wanted)
        size = np.minimum(a_length + b_length, self.config.budget) + 3
        return self._samples(chunk, split, b_start, b_count, label, size)

    def _elsewhere(
        self, chunk: Int64Array, count: Int64Array, owner: Int64Array, wanted: Int64Array
    ) -> tuple[Int64Array, Int64Array, Int64Array]:
        """First sentence, sentences and tokens of a random segment of the same document, before or after the chunk."""
        low: UInt64Array = bits(self.random_key, chunk) & np.uint64(0xFFFFFFFF)
        start, end = self.start.take(owner), self.end.take(owner)
        if self.config.layout == "rows":
            row, rows = (chunk - start) >> 1, (end - start) >> 1
            other = _scale(low, rows - 1)
            other += other >= row
            first = start + 2 * other + 1
            return first, np.ones(len(first), np.int64), gather_sizes(self.sizes, first) - np.int64(1)
        first = start + _scale(low, end - start - count)
        after = first >= chunk
        first += after * count
        return first, *self._fill(first, np.where(after, end, chunk), wanted)

    def _other_documents(
        self, chunk: Int64Array, owner: Int64Array, wanted: Int64Array
    ) -> tuple[Int64Array, Int64Array, Int64Array]:
        """First sentence, sentences and tokens of a random segment of another document for each chunk."""
        draw: UInt64Array = bits(self.random_key, chunk)
        document = _scale(draw >> np.uint64(32), len(self.start) - 1)
        document += document >= owner
        first, last = self.start.take(document), self.end.take(document)
        low = draw & np.uint64(0xFFFFFFFF)
        if self.config.layout == "rows":
            first += 2 * _scale(low, (last - first) >> 1) + 1
            return first, np.ones(len(first), np.int64), gather_sizes(self.sizes, first) - np.int64(1)
        first += _scale(low, last - first)
        return first, *self._fill(first, last, wanted)

    def _fill(self, first: Int64Array, last: Int64Array, wanted: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Sentences, at least one, from ``first`` on until ``wanted`` tokens are there or ``last`` is
        reached, and their tokens.
        """
        tokens = gather_sizes(self.sizes, first).astype(np.int64)
        tokens -= 1
        counts = np.ones(len(first), dtype=np.int64)
        open_ = np.flatnonzero((tokens < wanted) & (first + 1 < last))
        sentence, last = first.take(open_), last.take(open_)
        missing = (wanted - tokens).take(open_)
        step = 1
        while len(open_):
            step += 1
            sentence += 1
            size = gather_sizes(self.sizes, sentence)
            missing -= size
            missing += 1
            counts[open_] = step
            tokens[open_] = wanted.take(open_) - missing
            alive = np.flatnonzero((missing > 0) & (sentence + 1 < last))
            open_, sentence, last, missing = (x.take(alive) for x in (open_, sentence, last, missing))
        return counts, tokens

    def _samples(
        self,
        a_start: np.ndarray,
        a_count: np.ndarray,
        b_start: np.ndarray,
        b_count: np.ndarray,
        label: np.ndarray,
        size: np.ndarray,
    ) -> _Samples:
        rows = np.empty(len(size), self.row_type)
        rows["a_start"], rows["a_count"] = a_start, a_count
        rows["b_start"], rows["b_count"] = b_start, b_count
        rows["label"] = label
        return _Samples(rows, size.astype(np.int32))
