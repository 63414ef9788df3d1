"""One vector for a sequence from the states of its tokens."""

import torch
from torch import Tensor

from hmtl_plugin.special_tokens import BOS, EOS, PAD

POOLINGS = ("mean", "cls", "max")


def pool(hidden_BTH: Tensor, tokens_BT: Tensor, how: str) -> Tensor:
    """(B, H): ``cls``, the state of ``<s>``, or ``mean`` or ``max`` over the text's tokens, specials left out."""
    if how == "cls":
        return hidden_BTH[:, 0]
    outside_BT1 = torch.stack([tokens_BT == special for special in (BOS, PAD, EOS)]).any(0)[..., None]
    if how == "max":
        pooled_BH = hidden_BTH.masked_fill(outside_BT1, float("-inf")).amax(1)
        return torch.where(torch.isinf(pooled_BH), hidden_BTH[:, 0], pooled_BH)  # an empty text has <s> only
    inside_BT1 = (~outside_BT1).to(hidden_BTH.dtype)
    return (hidden_BTH * inside_BT1).sum(1) / inside_BT1.sum(1).clamp(min=1)
