"""The head for spans: BERT's linear layer to a start and an end score of every token."""

import torch
from torch import Tensor, nn

from hmtl_plugin.models.initialisation import linear


class SpanHead(nn.Module):
    """Scores of each token to be an answer's first and last; those of ``<s>`` stand for no answer."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.out = linear(hidden, 2)

    def forward(self, hidden_BTH: Tensor, tokens_BT: Tensor) -> Tensor:
        """Logits (B, T, 2) in fp32, also under autocast: bfloat16's eight bits would make spans tie."""
        with torch.autocast(hidden_BTH.device.type, enabled=False):
            logits: Tensor = self.out(self.dropout(hidden_BTH).to(self.out.weight.dtype))
        return logits
