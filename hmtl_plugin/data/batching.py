"""Data sets whose samples are numbers and whose batches are made whole in the collater."""

from abc import ABC, abstractmethod
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from fairseq.data import FairseqDataset

from hmtl_plugin.data.corpus import Int64Array
from hmtl_plugin.errors import UserError

_BLUR = 0.1  # of a length


class NumberedDataset(FairseqDataset, ABC):
    """Sample i is the number i, of ``sizes[i]`` tokens; every epoch makes other batches, and they leave nothing out."""

    @cached_property
    @abstractmethod
    def sizes(self) -> npt.NDArray[np.integer]:
        """(samples,) tokens of each, special tokens included."""

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        """False: an epoch has its own sizes or order."""
        return False

    def __getitem__(self, index: int) -> int:
        return int(index)

    def size(self, index: int) -> int:
        """Tokens of a sample, special tokens included."""
        return int(self.sizes[index])

    def num_tokens(self, index: int) -> int:
        """As `size`."""
        return int(self.sizes[index])

    def num_tokens_vec(self, indices: npt.NDArray[np.integer]) -> Int64Array:
        """Tokens of each of the given samples."""
        return self.sizes[indices].astype(np.int64)

    def batch_by_size(
        self,
        indices: Int64Array,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[Int64Array]:
        """fairseq's batches, and what they leave out: up to ``required_batch_size_multiple - 1`` last samples, the
        longest.
        """
        batches = list(super().batch_by_size(indices, max_tokens, max_sentences, required_batch_size_multiple))
        covered = sum(map(len, batches))
        if covered < len(indices):
            batches += super().batch_by_size(indices[covered:], max_tokens, max_sentences, 1)
        return batches


def pack(sizes_S: npt.NDArray[np.integer], max_tokens: int | None, max_sentences: int | None) -> list[slice]:
    """Runs of samples, each of at most so many tokens (padding does not count) and samples, that cover all of them.

    A run holds the samples whose first token falls into one stretch of ``max_tokens`` less the longest sample's:
    nothing is sequential, and all runs but the last are full to within one sample.

    Raises:
        UserError: if a sample alone is longer than ``max_tokens``.
    """
    longest = int(sizes_S.max(initial=1))
    if max_tokens is not None and longest > max_tokens:
        raise UserError(
            f"--max-tokens {max_tokens} cannot hold a sample of {longest} tokens: raise it to {longest} or more"
        )
    number_S = np.arange(len(sizes_S))
    changes = np.zeros(len(sizes_S), dtype=bool)
    if max_tokens is not None:
        begin_S = np.cumsum(sizes_S, dtype=np.int64) - sizes_S
        changes[1:] |= np.diff(begin_S // (max_tokens - longest + 1)) > 0
    if max_sentences is not None:
        changes[1:] |= np.diff(number_S // max_sentences) > 0
    bounds = [0, *np.flatnonzero(changes).tolist(), len(sizes_S)]
    return [slice(begin, end) for begin, end in pairwise(bounds) if end > begin]


class ByLengthDataset(NumberedDataset):
    """A data set whose batches hold samples of like length, so that they need little padding.

    Args:
        seed: in training each epoch blurs the lengths anew, else the same samples would always meet; None keeps samples
            of one length in their order (validation).
    """

    def __init__(self, seed: int | None) -> None:
        super().__init__()
        self.seed, self.epoch = seed, 1

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's batches."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sizes)

    def ordered_indices(self) -> Int64Array:
        """All samples by length."""
        if self.seed is None:
            return np.argsort(self.sizes, kind="stable")
        blur = np.random.default_rng((self.seed, self.epoch)).uniform(1 - _BLUR, 1 + _BLUR, len(self))
        return np.argsort(self.sizes * blur)
