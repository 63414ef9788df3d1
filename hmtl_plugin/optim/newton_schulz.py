"""The nearest matrix with orthogonal rows, approximately, of many matrices of one shape at once."""

import torch
from torch import Tensor

from hmtl_plugin.precision import computes_in_bf16

STEPS = 5
A, B, C = 3.4445, -4.7750, 2.0315  # of K. Jordan's Muon: steepest at 0; singular values end between about 0.7 and 1.2
_LEAST_NORM = 1e-7
_WIDE = 2
"""Columns over rows from which `_several_steps` is cheaper: 44 instead of 50 products of (R, R) matrices at 2, 60
instead of 90 at 4, the shape of feed-forward layers."""
_LEAST_ROWS = 64
"""Smaller matrices take no time, and rounding tells more in them: they go step by step, to the bit as torch's."""
_WIDE_STEPS = (3, 2)
"""Of five at once rounding errors grow to more than the result, where singular values differ a hundredfold; so taken,
the result is as near to that of exact arithmetic as step by step (tests)."""


def working_type(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes in it, else fp32.

    Milliseconds of all steps, one thread of an AMD EPYC with AVX512-BF16, batches of 16 x 128 x 128, 8 x 128 x 512 and
    16 x 512 x 512: bfloat16 5.8, 9.8, 351; fp32 12.4, 19.7, 693. torch's loop over matrices (bfloat16): 10.5, 10.5,
    303.
    """
    return torch.bfloat16 if computes_in_bf16(device.type) else torch.float32


def orthogonalise(x_NRC: Tensor) -> Tensor:
    """Newton-Schulz steps on N matrices (R, C) with R <= C, in their own precision; the rows of the result are near
    orthonormal.

    Each step maps every singular value s to A s + B s^3 + C s^5 (K. Jordan et al., "Muon: an optimizer for hidden
    layers in neural networks", 2024), as `torch.optim.Muon` does for one matrix at a time. A matrix of zeros stays one.
    """
    x_NRC = x_NRC / torch.linalg.vector_norm(x_NRC, dim=(1, 2), keepdim=True).clamp_(min=_LEAST_NORM)
    if x_NRC.shape[2] >= _WIDE * x_NRC.shape[1] and x_NRC.shape[1] >= _LEAST_ROWS:
        for steps in _WIDE_STEPS:
            x_NRC = _several_steps(x_NRC, steps)
        return x_NRC
    for _ in range(STEPS):
        gram_NRR = x_NRC @ x_NRC.mT
        update_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=B, alpha=C)
        x_NRC = torch.baddbmm(x_NRC, update_NRR, x_NRC, beta=A)
    return x_NRC


def _several_steps(x_NRC: Tensor, steps: int) -> Tensor:
    """Newton-Schulz steps on the Gram matrix alone: each step is a polynomial in it, and they all commute.

    With G = X X', a step is X <- P X, P = A I + B G + C G G, and then G <- P G P; so the product Q of all P is found on
    (R, R) matrices, and X <- Q X once.
    """
    gram_NRR = x_NRC @ x_NRC.mT
    product_NRR = torch.empty(0)
    for step in range(steps):
        change_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=B, alpha=C)  # P - A I
        if step == 0:
            product_NRR = change_NRR.clone()
            product_NRR.diagonal(dim1=1, dim2=2).add_(A)
        else:
            product_NRR = torch.baddbmm(product_NRR, change_NRR, product_NRR, beta=A)
        if step < steps - 1:
            half_NRR = torch.baddbmm(gram_NRR, change_NRR, gram_NRR, beta=A)  # P G
            gram_NRR = torch.baddbmm(half_NRR, half_NRR, change_NRR, beta=A)
    return product_NRR @ x_NRC
