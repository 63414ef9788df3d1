"""In what precision forward passes run: ``--autocast none|bf16|auto``. Weights and optimizer stay fp32."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from hmtl_plugin.errors import UserError

AUTOCAST = ("none", "bf16", "auto")
_emulated: list[bool] = []  # one for each `_emulated_bf16` that is open
_PRODUCTS = (F.linear, F.scaled_dot_product_attention, torch.bmm, torch.matmul, Tensor.matmul, Tensor.__matmul__)


def autocast(choice: str, device: str) -> AbstractContextManager[Any]:
    """Context of a forward pass; ``auto`` is bfloat16 where the device (``cpu``, ``cuda``) computes in it."""
    native = computes_in_bf16(device)
    if choice == "bf16" and device == "cpu" and not native:
        return _emulated_bf16()
    return torch.autocast(device, dtype=torch.bfloat16, enabled=choice == "bf16" or (choice == "auto" and native))


def check_device(device: str | torch.device, named: str = "--device") -> None:
    """Raise `UserError` if there is no such device here; ``named``: what the user gave it as."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"{named} {device}: {str(error).splitlines()[0].rstrip('.')}: use cpu, or another one"
        ) from None


def resolved(choice: str, device: str) -> str:
    """``none`` or ``bf16``: what ``auto`` means on this device."""
    if choice != "auto":
        return choice
    return "bf16" if computes_in_bf16(device) else "none"


def computes_in_bf16(device: str) -> bool:
    """Whether bfloat16 products are instructions of the device."""
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextmanager
def _emulated_bf16() -> Iterator[None]:
    """bfloat16 autocast for a CPU without its instructions, where torch's own products take 50 times as long as fp32.

    A bfloat16 product with fp32 accumulation is an fp32 product of rounded operands whose result is rounded.
    """
    _emulated.append(True)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16), _RoundedProducts():
            yield
    finally:
        _emulated.pop()


def recomputing() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Contexts of a checkpointed forward pass and of its repetition in the backward pass, where the emulation has ended
    (torch's autocast is restored by torch).
    """
    return nullcontext(), _RoundedProducts() if _emulated else nullcontext()


class _RoundedProducts(TorchFunctionMode):
    """Computes the encoder's and heads' products in fp32 on operands rounded to bfloat16, and rounds what comes out."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in _PRODUCTS or not torch.is_autocast_enabled("cpu"):  # heads leave autocast for their scores
            return func(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            rounded = [_rounded(value) for value in args]
            return func(*rounded, **{key: _rounded(value) for key, value in (kwargs or {}).items()}).bfloat16()


def _rounded(value: Any) -> Any:
    is_float = isinstance(value, Tensor) and value.is_floating_point()
    return value.bfloat16().float() if is_float else value
