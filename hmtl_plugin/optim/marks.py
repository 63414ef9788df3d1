"""Marks on parameters, by which a model tells the optimizer how each of them is to learn.

They stand in the attribute ``optim_overrides``, the only one that fairseq copies onto the fp32 parameters of
half-precision training.
"""

from typing import Any

from torch import Tensor, nn

LR_SCALE = "lr_scale"
"""Learning rate of the parameter over the full one; 1 without the mark."""
MATRIX = "matrix"
"""The weight is a hidden layer's matrix, for optimizers that treat these apart: of how many blocks of rows it is made.
"""


def mark(parameter: Tensor, **marks: Any) -> None:
    """Set marks; those that it has otherwise stay."""
    # a new dictionary each time: fairseq shares one between a parameter and its fp32 copy
    parameter.optim_overrides = {**_marks(parameter), **marks}  # type: ignore[attr-defined]


def mark_matrix(weight: Tensor, blocks: int = 1) -> None:
    """Mark a hidden layer's matrix (R, C); ``blocks``: of how many matrices (R / blocks, C), one below the other, it is
    made.

    Raises:
        ValueError: if the weight is no matrix or does not divide.
    """
    if weight.ndim != 2 or blocks < 1 or weight.shape[0] % blocks:
        raise ValueError(f"a weight of shape {tuple(weight.shape)} is not {blocks} matrices, one below the other")
    mark(weight, **{MATRIX: blocks})


def mark_layers(layers: nn.Module) -> None:
    """Mark the weights of all `nn.Linear` of a module, each of which is a hidden layer.

    The fused weight of queries, keys and values (``qkv``) is three matrices; any other is as many as the attribute
    ``blocks`` of its module says, one without.
    """
    for name, part in layers.named_modules():
        if isinstance(part, nn.Linear):
            default = 3 if name.rpartition(".")[2] == "qkv" else 1
            mark_matrix(part.weight, int(getattr(part, "blocks", default)))


def lr_scale(parameter: Tensor) -> float:
    """Learning rate over the full one."""
    return float(_marks(parameter).get(LR_SCALE, 1.0))


def matrix_blocks(parameter: Tensor) -> int:
    """Of how many matrices a layer's weight is made; 0 for what is none."""
    return int(_marks(parameter).get(MATRIX, 0))


def _marks(parameter: Tensor) -> dict[str, Any]:
    return dict(getattr(parameter, "optim_overrides", {}))
