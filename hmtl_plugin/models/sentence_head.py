"""The head for sentences and pairs of them: pooling, BERT's dense and tanh, a linear layer."""

import torch
from torch import Tensor, nn

from hmtl_plugin.models.initialisation import linear
from hmtl_plugin.models.pooling import pool


class SentenceHead(nn.Module):
    """Classes or one number for a sequence, read off a layer's hidden states.

    Args:
        outputs: classes, or 1 for regression.
        pooling: one of `POOLINGS`.
        dropout: before each of the two layers, as in BERT's fine-tuning.
    """

    def __init__(self, hidden: int, outputs: int, pooling: str, dropout: float) -> None:
        super().__init__()
        self.pooling = pooling
        self.dense = linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = linear(hidden, outputs)

    def forward(self, hidden_BTH: Tensor, tokens_BT: Tensor) -> Tensor:
        """Logits (B, outputs), under autocast in fp32 as well: bfloat16's eight bits would make scores tie."""
        with torch.autocast(hidden_BTH.device.type, enabled=False):
            x_BH = self.dropout(pool(hidden_BTH.to(self.out.weight.dtype), tokens_BT, self.pooling))
            logits: Tensor = self.out(self.dropout(torch.tanh(self.dense(x_BH))))
        return logits
