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
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hmtl_plugin.corruption.random import UInt64Array, bits, stream_key
from hmtl_plugin.data.corpus import Int64Array, expand_ranges, gather_sizes
from hmtl_plugin.data.pair_index import NO_LABEL, PairIndex, PairingConfig, row_type
from hmtl_plugin.errors import UserError

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
