"""A batch on its way from the corpus to the trainer: flat, without padding, corrupted in place by the objectives."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hmtl_plugin.corruption.vocabulary import Vocabulary

IGNORE = -1
"""Value of a target where there is none."""


@dataclass
class FlatBatch:
    """B samples ``<s> A </s> [B </s>]`` laid end to end, N tokens in all.

    Attributes:
        tokens_N: int64 token ids; objectives corrupt them in place (or replace the array, keeping lengths of samples).
        offsets: (B + 1,) int64, sample b is ``tokens_N[offsets[b]:offsets[b + 1]]``.
        index_B: int64, each sample's index in the epoch (the key of its random draws).
        sentence_start_N: bool, the first token of each sentence.
        vocabulary: what is known of each token id.
        targets: target name -> int64 array of length N (token targets) or B (sentence targets), `IGNORE` where none.
        moved_N: bool, tokens that a word-order objective has moved; masks stay away from them.
        label_group_N: tokens with the same number share a label of the word-order objective (pieces of one word).
    """

    tokens_N: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    index_B: npt.NDArray[np.int64]
    sentence_start_N: npt.NDArray[np.bool_]
    vocabulary: Vocabulary
    targets: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    moved_N: npt.NDArray[np.bool_] | None = None
    label_group_N: npt.NDArray[np.int64] | None = None

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

    def count_per_sample(self, flags_N: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """(B,) how many of each sample's tokens are flagged; every sample has at least one token."""
        return np.add.reduceat(flags_N, self.offsets[:-1], dtype=np.int64)

    def hide(self, hidden_N: npt.NDArray[np.bool_]) -> None:
        """Drop the token targets where the token itself can no longer be seen (masked or replaced).

        A visible piece of a word with a masked piece would betray that the word has not moved, since masks stay away
        from moved words: hiding one token of a label group drops the targets of the whole group.
        """
        if self.label_group_N is not None:
            group_hidden = np.zeros(self.label_group_N[-1] + 1, dtype=bool)
            group_hidden[self.label_group_N.take(np.flatnonzero(hidden_N))] = True
            hidden_N = group_hidden.take(self.label_group_N)
        hidden = np.flatnonzero(hidden_N)
        for target in self.targets.values():
            if len(target) == len(self.tokens_N):
                target[hidden] = IGNORE
