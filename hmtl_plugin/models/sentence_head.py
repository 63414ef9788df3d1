"""The head for sentences and pairs of them: pooling, BERT's dense and tanh, a linear layer."""

import torch
from torch import Tensor, nn

from hmtl_plugin.models.initialisation import linear
from hmtl_plugin.models.pooling import POOLINGS, canonical, pool
from hmtl_plugin.models.sentence_pooling import SENTENCE_POOLINGS, SentencePooling
from hmtl_plugin.models.sequences import Sequences
from hmtl_plugin.optim.marks import mark_matrix
from hmtl_plugin.special_tokens import PAD


def head_poolings() -> dict[str, type[SentencePooling] | None]:
    """By the names of ``--head-pooling``, the class of those for pairs. A name that is in both tables means what `pool`
    does: ``mean`` is over the whole text, so that it serves single sentences too and older checkpoints give the answers
    they gave.
    """
    return {name: SENTENCE_POOLINGS[name] if needs_pairs(name) else None for name in (*POOLINGS, *SENTENCE_POOLINGS)}


def needs_pairs(pooling: str) -> bool:
    """Whether a pooling is made for two sentences, so that half of what it gives says nothing of a single one."""
    return pooling in SENTENCE_POOLINGS and canonical(pooling) not in POOLINGS


class SentenceHead(nn.Module):
    """Classes or one number for a sequence, read off a layer's hidden states.

    Args:
        outputs: classes, or 1 for regression.
        pooling: one of `head_poolings`.
        dropout: before each of the two layers, as in BERT's fine-tuning.
        mask: id of ``<mask>``, which poolings for pairs leave out.

    Attributes:
        pooling: its name, ``cls`` for ``first``.
    """

    def __init__(self, hidden: int, outputs: int, pooling: str, dropout: float, mask: int = PAD) -> None:
        super().__init__()
        self.pooling = canonical(pooling)
        self.dense = linear(hidden, hidden)
        mark_matrix(self.dense.weight)
        self.dropout = nn.Dropout(dropout)
        self.out = linear(hidden, outputs)
        # After the layers, whose weights then are the same for all poolings of one seed. Drawn anew, like these, where
        # pre-training had a pooling of the kind too: heads of one grid must differ in nothing but what it names.
        self.pair_pooling = SENTENCE_POOLINGS[self.pooling](hidden, mask) if needs_pairs(pooling) else None

    def forward(self, hidden_BTH: Tensor, tokens_BT: Tensor) -> Tensor:
        """Logits (B, outputs), under autocast in fp32 as well: bfloat16's eight bits would make scores tie."""
        with torch.autocast(hidden_BTH.device.type, enabled=False):
            x_BH = self.dropout(self._pooled(hidden_BTH.to(self.out.weight.dtype), tokens_BT))
            logits: Tensor = self.out(self.dropout(torch.tanh(self.dense(x_BH))))
        return logits

    def _pooled(self, hidden_BTH: Tensor, tokens_BT: Tensor) -> Tensor:
        """(B, H)."""
        if self.pair_pooling is None:
            return pool(hidden_BTH, tokens_BT, self.pooling)
        x_BH: Tensor = self.pair_pooling(hidden_BTH, Sequences(tokens_BT))
        return x_BH
