"""Multi-head self-attention over rows or packed sequences."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from hmtl_plugin.models.dropout import dropout
from hmtl_plugin.models.initialisation import linear
from hmtl_plugin.models.positions import rotated
from hmtl_plugin.models.sequences import Packing

_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class SelfAttention(nn.Module):
    """Softmax attention within each sequence; queries, keys and values come from one fused matrix (3H, H)."""

    def __init__(self, hidden: int, heads: int, p: float) -> None:
        super().__init__()
        self.heads, self.p = heads, p
        self.qkv = linear(hidden, 3 * hidden)
        self.out = linear(hidden, hidden)

    def context(
        self, x: Tensor, mask: Tensor | None, packing: Packing | None = None, rotation: Tensor | None = None
    ) -> Tensor:
        """Attended values in the shape of ``x``, (B, T, H) or packed (N, H), before the output projection `out`.

        ``mask`` (B, 1, 1, T) is of the rows; packed sequences have one too, for devices without a kernel that does without.
        ``rotation`` (T, D/2, 2), if any, turns queries and keys, see `positions`.
        """
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        p = self.p if self.training else 0.0
        if packing is None:
            return _attend(qkv, mask, p, rotation)
        if packing.has_kernel and _kernel_takes(qkv):
            return _attend_packed(qkv, packing, p, rotation)
        return packing.unpad(_attend(packing.pad(qkv), mask, p, rotation))


def _split(qkv: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, turned in fp32 if there is a rotation, and values of (..., T, 3, A, D), as views where they can be."""
    if rotation is None:
        q, k, v = qkv.unbind(-3)
    else:
        turned, values = qkv.split((2, 1), -3)  # whose gradient is one copy; of slices it is sums of zeros
        (q, k), v = rotated(turned, rotation).unbind(-3), values.squeeze(-3)
    return q, k, v


def _attend(qkv_BT3AD: Tensor, mask: Tensor | None, p: float, rotation: Tensor | None) -> Tensor:
    """(B, T, H) of rows."""
    q, k, v = (x.transpose(1, 2) for x in _split(qkv_BT3AD, rotation))  # three of (B, A, T, D)
    on_cpu = v.device.type == "cpu"
    if v.dtype == torch.bfloat16 and on_cpu and not p:
        context_BATD = _attend_in_fp32(q, k, v, mask)
        return context_BATD.transpose(1, 2).flatten(2)
    q, k = q.to(v.dtype), k.to(v.dtype)
    if p and on_cpu:
        context_BATD = _attend_with_cpu_dropout(q, k, v, mask, p)
    elif on_cpu:
        context_BATD = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    else:
        context_BATD = _attend_without_cudnn(q, k, v, mask, p)
    return context_BATD.transpose(1, 2).flatten(2)


def _kernel_takes(qkv_N3AD: Tensor) -> bool:
    """Half precision, and heads as wide as FlashAttention has them; SDPA pads others, its operator does not."""
    width = qkv_N3AD.shape[-1]
    return qkv_N3AD.dtype in (torch.bfloat16, torch.float16) and width % 8 == 0 and width <= 256


def _attend_packed(qkv_N3AD: Tensor, packing: Packing, p: float, rotation: Tensor | None = None) -> Tensor:
    """(N, H) of sequences that lie end to end, without any work on padding.

    `torch.nn.attention.varlen` is this operator without dropout, which BERT has.
    """
    q, k, v = _split(qkv_N3AD, None if rotation is None else rotation[packing.position_N])
    q, k = q.to(v.dtype), k.to(v.dtype)
    context_NAD = torch.ops.aten._flash_attention_forward(
        *(q, k, v, packing.starts, packing.starts, packing.longest, packing.longest, p), False, False
    )[0]
    return context_NAD.flatten(1)


def _attend_without_cudnn(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float) -> Tensor:
    """SDPA by torch's own kernels. cuDNN, which torch prefers on Hopper and Blackwell, plans anew for each shape, up to a second; our
    batches have hundreds of shapes. With masks it has also given NaN gradients (pytorch/pytorch#196678).
    """
    with sdpa_kernel(_BACKENDS):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)


def _attend_with_cpu_dropout(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float) -> Tensor:
    """What SDPA computes, with our dropout: on CPU it has no fused kernel with dropout."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return dropout(torch.softmax(scores, dim=-1), p, training=True) @ v


def _attend_in_fp32(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """SDPA in fp32 of values in bfloat16: on CPU 2.5 to 4 times as fast as its own bfloat16 kernel up to 128 tokens, as fast at
    512, and nearer to the exact values.
    """
    with torch.autocast("cpu", enabled=False):
        context_BATD = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
    return context_BATD.to(v.dtype)
