"""Words of a flat batch: runs of pieces between word starts."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hmtl_plugin.corruption.batch import FlatBatch


@dataclass
class Words:
    """W words (or single pieces) that tile the N tokens of a batch.

    Attributes:
        start_N: bool, the token is the first of its word.
        start_W, length_W: first token and number of tokens.
        sample_W: row of the sample the word belongs to.
        boundary_W: bool, the word is one of ``<s> </s>``, never a word of the text.
        sentence_start_W: bool, first word of its sentence.
    """

    start_N: npt.NDArray[np.bool_]
    start_W: npt.NDArray[np.int64]
    length_W: npt.NDArray[np.int64]
    sample_W: npt.NDArray[np.int64]
    boundary_W: npt.NDArray[np.bool_]
    sentence_start_W: npt.NDArray[np.bool_]

    @cached_property
    def word_N(self) -> npt.NDArray[np.int64]:
        """(N,) the word of each token."""
        return np.cumsum(self.start_N) - 1

    def every(self, flags_N: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """(W,) whether all tokens of the word are flagged."""
        result_W = flags_N.take(self.start_W)
        result_W[self.word_N.take(np.flatnonzero(~flags_N))] = False
        return result_W

    def spread(self, values_W: npt.NDArray) -> npt.NDArray:
        """(N,) each word's value at each of its tokens."""
        return values_W.take(self.word_N)


def find_words(batch: FlatBatch, pieces: bool = False) -> Words:
    """The words of a batch; with ``pieces`` every token is a word of its own.

    ``<unk>`` inside a word stays part of it. A segment cut in the middle of a word begins with what is left of it.
    """
    vocabulary, tokens = batch.vocabulary, batch.tokens_N
    boundary_N = (tokens == vocabulary.bos) | (tokens == vocabulary.eos)
    if pieces:
        start_N = np.ones(len(tokens), dtype=bool)
    else:
        start_N = vocabulary.word_start_V.take(tokens) | batch.sentence_start_N | boundary_N
        start_N[1:] |= boundary_N[:-1]
    start_W = np.flatnonzero(start_N)
    return Words(
        start_N=start_N,
        start_W=start_W,
        length_W=np.append(start_W[1:], len(tokens)) - start_W,
        sample_W=batch.sample_N.take(start_W),
        boundary_W=boundary_N.take(start_W),
        sentence_start_W=batch.sentence_start_N.take(start_W),
    )
