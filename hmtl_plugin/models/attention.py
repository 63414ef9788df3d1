"""Multi-head self-attention on `scaled_dot_product_attention`."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmtl_plugin.models.dropout import dropout
from hmtl_plugin.models.initialisation import linear


def attention_mask(keep_BT: Tensor) -> Tensor:
    """Boolean mask (B, 1, 1, T), True where a key may be attended; no value is read back from the device.

    A row that is all padding attends everywhere, for a softmax over nothing would be NaN.
    """
    nothing_B1 = ~keep_BT.any(1, keepdim=True)
    return (keep_BT | nothing_B1)[:, None, None]


class SelfAttention(nn.Module):
    """Softmax attention over one sequence; queries, keys and values come from one fused matrix (3H, H)."""

    def __init__(self, hidden: int, heads: int, p: float) -> None:
        super().__init__()
        self.heads, self.p = heads, p
        self.qkv = linear(hidden, 3 * hidden)
        self.out = linear(hidden, hidden)

    def context(self, x_BTH: Tensor, mask: Tensor | None) -> Tensor:
        """Attended values (B, T, H), before the output projection `out`."""
        batch, length, _ = x_BTH.shape
        # (B, T, 3, A, D) -> three of (B, A, T, D), as views
        q, k, v = self.qkv(x_BTH).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        p = self.p if self.training else 0.0
        on_cpu = x_BTH.device.type == "cpu"
        if p and on_cpu:
            context_BATD = _attend_with_cpu_dropout(q, k, v, mask, p)
        elif q.dtype == torch.bfloat16 and on_cpu:
            context_BATD = _attend_in_fp32(q, k, v, mask)
        else:
            context_BATD = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
        return context_BATD.transpose(1, 2).flatten(2)


def _attend_with_cpu_dropout(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float) -> Tensor:
    """What SDPA computes, with our dropout: on CPU it has no fused kernel with dropout."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return dropout(torch.softmax(scores, dim=-1), p, training=True) @ v


def _attend_in_fp32(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """SDPA in fp32 of what is bfloat16: on CPU 2.5 to 4 times as fast as its own bfloat16 kernel up to 128 tokens, as fast at
    512, and nearer to the exact values.
    """
    with torch.autocast("cpu", enabled=False):
        context_BATD = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
    return context_BATD.to(q.dtype)
