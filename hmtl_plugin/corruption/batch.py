"""A batch on its way from the corpus to the trainer: flat, without padding, corrupted in place by the objectives."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hmtl_plugin.corruption.vocabulary import Vocabulary

IGNORE = -1
"""Value of a target where there is none; of one that is a number (float), NaN."""


@dataclass
class FlatBatch:
    """B samples ``<s> A </s> [B </s>]`` laid end to end, N tokens in all.

    Attributes:
        tokens_N: int64 token ids; objectives corrupt them in place (or replace the array, keeping lengths of samples).
        offsets: (B + 1,) int64, sample b is ``tokens_N[offsets[b]:offsets[b + 1]]``.
        index_B: int64, each sample's index in the epoch (the key of its random draws).
        sentence_start_N: bool, the first token of each sentence.
        vocabulary: what is known of each token id.
        targets: target name -> array of length N (token targets) or B (sentence targets): int64 classes, `IGNORE` where
            there is none, or float numbers, NaN where there is none.
        reserved: objective -> (N,) bool, the tokens that it is going to predict; others leave them where they are.
        text: the ids of the whole split, ends of sentences among them: one at a random place is a draw by frequency.
    """

    tokens_N: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    index_B: npt.NDArray[np.int64]
    sentence_start_N: npt.NDArray[np.bool_]
    vocabulary: Vocabulary
    targets: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    reserved: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    text: npt.NDArray[np.integer] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    @cached_property
    def lengths_B(self) -> npt.NDArray[np.int64]:
        """Tokens of each sample."""
        return np.diff(self.offsets)

    @cached_property
    def sample_N(self) -> npt.NDArray[np.int64]:
        """Row of each token's sample."""
        return np.repeat(np.arange(len(self.lengths_B)), self.lengths_B)

    @cached_property
    def position_N(self) -> npt.NDArray[np.int64]:
        """Position of each token in its sample."""
        return np.arange(len(self.tokens_N)) - np.repeat(self.offsets[:-1], self.lengths_B)
