"""One vector for a sequence from the states of its tokens, without weights: for embeddings, probes and heads."""

import torch
from torch import Tensor

from hmtl_plugin.errors import UserError
from hmtl_plugin.special_tokens import BOS, EOS, PAD

POOLINGS = ("mean", "cls", "max")
_OTHER_NAMES = {"first": "cls"}  # that of --sentence-pooling


def canonical(name: str) -> str:
    """The name that checkpoints and results know a pooling by: ``cls`` for ``first``, any other as it is."""
    return _OTHER_NAMES.get(name, name)


def find_pooling(name: str) -> str:
    """The entry of `POOLINGS` that ``name`` means; `UserError` if there is none."""
    if canonical(name) not in POOLINGS:
        raise UserError(f"pooling '{name}': use one of {', '.join(POOLINGS)}")
    return canonical(name)


def pool(hidden_BTH: Tensor, tokens_BT: Tensor, how: str) -> Tensor:
    """(B, H): ``cls``, the state of ``<s>``, or ``mean`` or ``max`` over the text's tokens, specials left out."""
    if how not in POOLINGS:
        raise ValueError(f"no pooling of {', '.join(POOLINGS)}: {how}")
    if how == "cls":
        return hidden_BTH[:, 0]
    outside_BT1 = torch.stack([tokens_BT == special for special in (BOS, PAD, EOS)]).any(0)[..., None]
    if how == "max":
        pooled_BH = hidden_BTH.masked_fill(outside_BT1, float("-inf")).amax(1)
        return torch.where(torch.isinf(pooled_BH), hidden_BTH[:, 0], pooled_BH)  # an empty text has <s> only
    inside_BT1 = (~outside_BT1).to(hidden_BTH.dtype)
    return (hidden_BTH * inside_BT1).sum(1) / inside_BT1.sum(1).clamp(min=1)
