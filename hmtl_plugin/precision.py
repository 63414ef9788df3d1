"""In what precision forward passes run: ``--autocast none|bf16|auto``. Weights and optimizer stay fp32."""

import torch

AUTOCAST = ("none", "bf16", "auto")


def autocast(choice: str, device: str) -> torch.autocast:
    """Context of a forward pass; ``auto`` is bfloat16 where the device (``cpu``, ``cuda``) computes in it."""
    enabled = choice == "bf16" or (choice == "auto" and computes_in_bf16(device))
    return torch.autocast(device, dtype=torch.bfloat16, enabled=enabled)


def computes_in_bf16(device: str) -> bool:
    """Whether bfloat16 products are instructions of the device; emulated they take up to 50 times as long as fp32."""
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
