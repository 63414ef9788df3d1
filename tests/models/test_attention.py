"""Which kernel attends: what cannot be run here is at least asked for as it must be."""

import pytest
import torch
from torch.nn import functional as F

from hmtl_plugin.models import encoder as attention
from hmtl_plugin.models.encoder import SelfAttention
from hmtl_plugin.models.sequences import Sequences


def _qkv(width: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(4, 3, 2, width, dtype=dtype)


@pytest.mark.parametrize(
    ("width", "dtype", "takes"),
    [
        (64, torch.bfloat16, True),
        (8, torch.float16, True),
        (256, torch.bfloat16, True),
        (64, torch.float32, False),
        (25, torch.bfloat16, False),
        (264, torch.bfloat16, False),
    ],
)
def test_what_flash_attention_takes(width: int, dtype: torch.dtype, takes: bool) -> None:
    assert attention._kernel_takes(_qkv(width, dtype)) == takes


@pytest.mark.parametrize(("width", "kernel"), [(16, True), (12, False)])
def test_packed_heads_of_any_width(width: int, kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU heads that the kernel does not take go by rows, and give the same."""
    torch.manual_seed(0)
    heads, hidden = 2, 2 * width
    layer = SelfAttention(hidden, heads, 0.0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    layer = layer.to(torch.bfloat16)
    tokens_N, starts = torch.arange(5, 12), torch.tensor([0, 3, 7], dtype=torch.int32)
    sequences = Sequences.packed(tokens_N, starts, 4)
    assert sequences.packing is not None and not sequences.packing.has_kernel  # this is a CPU
    x_NH = torch.randn(7, hidden, dtype=torch.bfloat16)
    by_rows = layer.context(x_NH, sequences.mask(), sequences.packing)
    called: list[object] = []
    monkeypatch.setattr(attention, "_attend_packed", lambda *_: called.append(1) or by_rows)
    packing = sequences.packing._replace(has_kernel=True)
    assert torch.equal(layer.context(x_NH, sequences.mask(), packing), by_rows)
    assert bool(called) == kernel


def test_no_cudnn() -> None:
    seen: list[bool] = []
    plain = F.scaled_dot_product_attention

    def attend(*inputs: torch.Tensor, **options: object) -> torch.Tensor:
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())
        return plain(*inputs, **options)

    q, k, v = torch.randn(3, 2, 2, 5, 8).unbind(0)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention.F, "scaled_dot_product_attention", attend)
        found = attention._attend_without_cudnn(q, k, v, None, 0.0)
    assert seen == [False]
    assert torch.backends.cuda.cudnn_sdp_enabled() == before
    torch.testing.assert_close(found, F.scaled_dot_product_attention(q, k, v))


def test_leaving_cudnn_out_does_not_break_compiled_graphs() -> None:
    q, k, v = torch.randn(3, 2, 2, 5, 8).unbind(0)
    compiled = torch.compile(attention._attend_without_cudnn, fullgraph=True, backend="eager", dynamic=True)
    torch.testing.assert_close(compiled(q, k, v, None, 0.0), F.scaled_dot_product_attention(q, k, v))
