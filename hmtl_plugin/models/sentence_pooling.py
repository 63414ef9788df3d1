"""``--sentence-pooling``: what a head for pairs of sentences reads off the states of its layer, one vector a sample."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmtl_plugin.models.initialisation import linear
from hmtl_plugin.models.sequences import Sequences, rows_at
from hmtl_plugin.optim.marks import mark_layers


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
        mark_layers(self)

    def forward(self, state: Tensor, sequences: Sequences) -> Tensor:
        u, v = sequences.means_of_segments(state, self.mask).unbind(1)
        return F.gelu(self.compare(torch.cat([u, v, u - v, u * v], -1)))


class AlignedPooling(SentencePooling):
    """Each word is compared with what the other segment has of it (Parikh et al. 2016, section 3); the mean over all
    words.

    A word attends to the other segment's words by the cosine of one projection of both, so that like finds like from
    the first update on. In the means of segments a rare word that stands in both is lost among the others. Both
    segments are treated alike: which is the first it learns from the states alone.
    """

    sharpness: ClassVar[float] = 16.0
    """Score of two words whose projections point the same way, before the softmax."""

    def __init__(self, hidden: int, mask: int) -> None:
        super().__init__(hidden, mask)
        self.match = linear(hidden, hidden)
        self.compare = linear(2 * hidden, hidden)
        mark_layers(self)

    def forward(self, state: Tensor, sequences: Sequences) -> Tensor:
        state_BTH = sequences.state_rows(state)
        side_B2T = sequences.words_of_segments(self.mask).to(state_BTH.dtype)
        may_attend_BTT = (side_B2T.flip(1).mT @ side_B2T).bool()  # to words of the other segment
        match_BTH = F.normalize(self.match(state_BTH).float(), dim=-1)
        score_BTT = self.sharpness * (match_BTH @ match_BTH.mT)
        # a row that may attend to nothing gets some mean, which has no weight below
        share_BTT = score_BTT.masked_fill(~may_attend_BTT, -1e4).softmax(-1).to(state_BTH.dtype)
        found_BTH = share_BTT @ state_BTH
        compared_BTH = F.gelu(self.compare(torch.cat([state_BTH - found_BTH, state_BTH * found_BTH], -1)))
        counts_BT = may_attend_BTT.any(2).to(compared_BTH.dtype)
        weight_BT = counts_BT / counts_BT.sum(1, keepdim=True).clamp(min=1)
        return torch.bmm(weight_BT[:, None], compared_BTH).squeeze(1)


SENTENCE_POOLINGS: dict[str, type[SentencePooling]] = {
    "first": FirstPooling,
    "mean": MeanPooling,
    "pair": PairPooling,
    "aligned": AlignedPooling,
}
"""By the names of the option."""
