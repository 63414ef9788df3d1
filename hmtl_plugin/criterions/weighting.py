"""How the objectives' losses become one number to optimise.

Every weighting maps summed losses to a summed loss, so that the result stays additive over micro-batches and ranks. A
gradient-conflict method would be one more class here.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.shape import whole

Weighting = Callable[[Mapping[str, Tensor], Mapping[str, float], int, Tensor], Tensor]
"""(objective -> scaled loss sum, objective -> weight, tokens N, log-variances (K,)) -> scalar to minimise, of order N.
"""


def fixed(sums: Mapping[str, Tensor], weights: Mapping[str, float], tokens: int, log_variances_K: Tensor) -> Tensor:
    """Sum of w_k * r_k * S_k. The log-variances stay in the graph with no effect, as every parameter must."""
    return torch.stack([weights[name] * value for name, value in sums.items()]).sum() + 0.0 * log_variances_K.sum()


def uncertainty(
    sums: Mapping[str, Tensor], weights: Mapping[str, float], tokens: int, log_variances_K: Tensor
) -> Tensor:
    """Homoscedastic uncertainty (Kendall, Gal, Cipolla 2018, for classification), weighted: the sum of
    w_k (exp(-s_k) L_k + s_k / 2).

    The weight stands before the whole term: before the loss alone, s_k would learn it away. N * s_k / 2 instead of
    s_k / 2 keeps the sum additive.
    """
    terms = [
        weights[name] * (torch.exp(-log_variance) * value + 0.5 * tokens * log_variance)
        for name, value, log_variance in zip(sums, sums.values(), log_variances_K, strict=True)
    ]
    return torch.stack(terms).sum()


WEIGHTINGS: dict[str, Weighting] = {"fixed": fixed, "uncertainty": uncertainty}


def parse_warmup(text: str, objectives: tuple[str, ...]) -> dict[str, int]:
    """Read ``--weight-warmup 'bigram_shift:2000,nsp:500'``: objective -> updates until its weight is whole.

    Raises:
        UserError: for an item that cannot be read or an objective that is not placed.
    """
    warmup: dict[str, int] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, updates = item.partition(":")
        if name not in objectives:
            raise UserError(f"--weight-warmup: '{item}' names no placed objective: use one of {', '.join(objectives)}")
        if not (number := whole(updates)):
            raise UserError(f"--weight-warmup: cannot read '{item}': write objective:updates, as in '{name}:2000'")
        warmup[name] = number
    return warmup


def warmed_up(weights: Mapping[str, float], warmup: Mapping[str, int], update: int) -> dict[str, float]:
    """Weights at an update (0 is the first): linear from 1/updates to the whole weight."""
    return {
        name: weight * min(1.0, (update + 1) / warmup[name]) if name in warmup else weight
        for name, weight in weights.items()
    }
