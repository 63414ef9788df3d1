"""Data sets whose samples are numbers and whose batches are made whole in the collater."""

from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np
import numpy.typing as npt
from fairseq.data import FairseqDataset

from hmtl_plugin.data.corpus import Int64Array

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
        """fairseq's batches, and what they leave out: up to ``required_batch_size_multiple - 1`` last samples, the longest."""
        batches = list(super().batch_by_size(indices, max_tokens, max_sentences, required_batch_size_multiple))
        covered = sum(map(len, batches))
        if covered < len(indices):
            batches += super().batch_by_size(indices[covered:], max_tokens, max_sentences, 1)
        return batches


class ByLengthDataset(NumberedDataset):
    """A data set whose batches hold samples of like length, so that they need little padding.

    Args:
        seed: in training each epoch blurs the lengths anew, else the same samples would always meet; None keeps samples of one
            length in their order (validation).
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
