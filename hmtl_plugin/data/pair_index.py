"""The samples of an epoch as arrays, and how a batch of them becomes tokens."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hmtl_plugin.corruption.batch import FlatBatch
from hmtl_plugin.corruption.random import bits, stream_key
from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.data.corpus import Corpus, Int64Array, expand_ranges
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
    """What a sample is, for a corpus of so many items. One row, not a column each: batches take samples at random, and from
    memory that is far larger than the cache a row costs one wait, columns five.

    Fields: ``a_start``, ``a_count`` first sentence of A (item number of the corpus) and how many; ``b_start``, ``b_count`` the same for B, count 0
    where there is none; ``label`` -1 no pair, else what the kind's objective asks for (nsp: 1 B follows A, 0 it does not). Counts fit 16 bits: a segment holds no more
    sentences than its target has tokens.
    """
    item = np.uint32 if items < 1 << 32 else np.int64
    return np.dtype(
        [("a_start", item), ("b_start", item), ("a_count", np.uint16), ("b_count", np.uint16), ("label", np.int8)]
    )


@dataclass
class PairIndex:
    """The samples of an epoch, S in all, in order of document and position; 17 bytes a sample, 25 in a corpus of 2^32 items and more.

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
