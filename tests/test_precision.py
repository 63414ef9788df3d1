"""What `--autocast` switches on."""

from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from hmtl_plugin import precision


@pytest.mark.parametrize(
    ("choice", "native", "enabled"),
    [("none", True, False), ("bf16", False, True), ("auto", True, True), ("auto", False, False)],
)
def test_products_are_bf16_only_where_asked(
    monkeypatch: pytest.MonkeyPatch, choice: str, native: bool, enabled: bool
) -> None:
    monkeypatch.setattr(precision, "computes_in_bf16", lambda device: native)
    weight = torch.ones(4, 4, requires_grad=True)
    with precision.autocast(choice, "cpu"):
        assert F.linear(weight, weight).dtype == (torch.bfloat16 if enabled else torch.float32)
    assert weight.dtype == torch.float32


def test_no_gpu_computes_in_bf16_where_there_is_none() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert not precision.computes_in_bf16("cuda")
    assert isinstance(precision.computes_in_bf16("cpu"), bool)


@pytest.mark.parametrize("product", ["linear", "matmul", "attention"])
def test_emulated_products_are_those_of_torch(product: str) -> None:
    """Values and gradients, up to one unit in the last place where sums are taken in another order."""
    generator = torch.Generator().manual_seed(0)
    x, w, v = (torch.randn(4, 32, 32, generator=generator, requires_grad=True) for _ in range(3))

    def run(context: AbstractContextManager[Any]) -> list[torch.Tensor]:
        with context:
            y = {
                "linear": lambda: F.gelu(F.linear(x, w[0], v[0, 0])),
                "matmul": lambda: x @ w,
                "attention": lambda: F.scaled_dot_product_attention(x, w, v),
            }[product]()
        assert y.dtype == torch.bfloat16
        inputs = (x, w, v) if product != "matmul" else (x, w)
        return [y, *torch.autograd.grad(y.float().square().sum(), inputs)]

    expected, found = run(torch.autocast("cpu", torch.bfloat16)), run(precision._emulated_bf16())
    for one, other in zip(expected, found, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one.float(), other.float(), rtol=2**-7, atol=2**-7 * one.float().abs().max().item())
    assert (expected[0] == found[0]).float().mean() > (0.9 if product == "attention" else 0.99)


def test_emulation_ends_with_its_context() -> None:
    with precision._emulated_bf16():
        pass
    assert F.linear(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32
