"""What CPUs compute faster by other means than torch's: dropout, and attention.

torch draws dropout number by number: 12 ns an element, a tenth of a step. Here a mask costs 1.3 ns an element: numpy's
SFC64, seeded by one draw from torch's global generator, gives 64 random bits at a time and every 16 of them decide one
element. So the mask remains a function of torch's generator state: runs resume exactly, and activation checkpointing
recomputes the same mask. Other devices use `F.dropout`.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_LEVELS = 1 << 16


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero elements with probability ``p`` (on CPU to the nearest 1/65536), scale the rest up."""
    if not training or p == 0.0:
        return x
    if not _is_ours(x, p):
        return F.dropout(x, p, training)
    keep, scale = cpu_keep_mask(x, p)
    return x * keep.mul_(scale)


def add_dropout(residual: Tensor, x: Tensor, p: float, training: bool) -> Tensor:
    """``residual + dropout(x)``; on CPU in one pass over memory when the types agree."""
    if not training or not _is_ours(x, p):
        return residual + F.dropout(x, p, training)
    keep, scale = cpu_keep_mask(x, p)
    if residual.dtype == x.dtype:
        return torch.addcmul(residual, x, keep, value=scale)
    return residual + x * keep.mul_(scale)


def _is_ours(x: Tensor, p: float) -> bool:
    """Whether the mask is drawn here; compiled code draws its own."""
    return x.device.type == "cpu" and 0.0 < p < 1.0 and not torch.compiler.is_compiling()


def cpu_keep_mask(like: Tensor, p: float) -> tuple[Tensor, float]:
    """A mask of 0 and 1 in the shape and type of ``like``, and the scale 1/(share kept)."""
    dropped = max(1, round(p * _LEVELS))
    seed = int(torch.empty((), dtype=torch.int64).random_().item())
    count = like.numel()
    words = np.random.Generator(np.random.SFC64(seed)).integers(0, 2**64, size=(count + 3) // 4, dtype=np.uint64)
    bits = torch.from_numpy(words.view(np.int16))[:count].view(like.shape)
    keep = torch.empty(like.shape, dtype=like.dtype)
    torch.ge(bits, dropped - _LEVELS // 2, out=keep)
    return keep, _LEVELS / (_LEVELS - dropped)


def attend_on_cpu(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float) -> Tensor:
    """(B, A, T, D) of softmax attention with dropout ``p``, in the type of the values; queries and keys may be in fp32."""
    if v.dtype == torch.bfloat16 and not p:
        return _attend_in_fp32(q, k, v, mask)
    q, k = q.to(v.dtype), k.to(v.dtype)
    if p:
        return _attend_with_dropout(q, k, v, mask, p)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _attend_with_dropout(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float) -> Tensor:
    """What SDPA computes, with our dropout: on CPU it has no fused kernel with dropout."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return dropout(torch.softmax(scores, dim=-1), p, training=True) @ v


def _attend_in_fp32(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """SDPA in fp32 of values in bfloat16: on CPU 2.5 to 4 times as fast as its own bfloat16 kernel up to 128 tokens, as
    fast at 512, and nearer to the exact values.
    """
    with torch.autocast("cpu", enabled=False):
        context_BATD = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
    return context_BATD.to(v.dtype)
