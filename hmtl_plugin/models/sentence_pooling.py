"""``--sentence-pooling``: what a head for pairs of sentences reads off the states of its layer, one vector a sample."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmtl_plugin.models.initialisation import linear
from hmtl_plugin.models.sequences import Sequences, rows_at


class SentencePooling(nn.Module, ABC):
    """One way.

    Attributes:
        reads_all: whether it needs the states of all tokens; else those of ``<s>`` are enough.
    """

    reads_all: ClassVar[bool] = True

    def __init__(self, hidden: int, mask: int) -> None:
        """``mask``: id of ``<mask>``, which is no word."""
        super().__init__()
        self.mask = mask

    @abstractmethod
    def forward(self, state: Tensor, sequences: Sequences) -> Tensor:
        """(B, H) of the states of all tokens, (B, T, H) or packed (N, H)."""


class FirstPooling(SentencePooling):
    """The state of ``<s>``, as in BERT."""

    reads_all = False

    def forward(self, state: Tensor, sequences: Sequences) -> Tensor:
        return rows_at(state, sequences.first())


class MeanPooling(SentencePooling):
    """The mean of both segments' means."""

    def forward(self, state: Tensor, sequences: Sequences) -> Tensor:
        return sequences.means_of_segments(state, self.mask).mean(1)


class PairPooling(SentencePooling):
    """The means u and v of the segments, compared: a layer over u, v, u - v and u * v (after Conneau et al. 2017)."""

    def __init__(self, hidden: int, mask: int) -> None:
        super().__init__(hidden, mask)
        self.compare = linear(4 * hidden, hidden)

    def forward(self, state: Tensor, sequences: Sequences) -> Tensor:
        u, v = sequences.means_of_segments(state, self.mask).unbind(1)
        return F.gelu(self.compare(torch.cat([u, v, u - v, u * v], -1)))


SENTENCE_POOLINGS: dict[str, type[SentencePooling]] = {"first": FirstPooling, "mean": MeanPooling, "pair": PairPooling}
"""By the names of the option."""
