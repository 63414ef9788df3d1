"""Training on a CPU keeps the memory that a step has freed for the next one.

glibc hands large blocks back to the kernel as soon as they are freed, and the kernel clears and maps each page of the
next one anew. A step frees and takes its logits, its activations and the gradient of the embedding every time; what
that costs with a vocabulary of 30,522 is in docs/benchmarks.md ("memory kept", `benchmarks/train_step.py`). Values do
not change, nor does the peak of the memory, as the next step wants it again.
"""

import ctypes
import os
from collections.abc import Mapping

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_VARIABLES = {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}
KEEP = 2**31 - 1
"""As thresholds (bytes): the largest that `mallopt` takes."""


def keep_freed_memory(environ: Mapping[str, str] = os.environ) -> bool:
    """Keep it from now on, in this process; whether that was possible.

    It is not where the C library is another one than glibc, nor done where the user has set its thresholds.
    """
    tunables = environ.get("GLIBC_TUNABLES", "")
    if _VARIABLES & set(environ) or "_threshold" in tunables:
        return False
    return set_thresholds(mapped=KEEP, trimmed=KEEP)


def set_thresholds(mapped: int, trimmed: int) -> bool:
    """Blocks of ``mapped`` bytes and more come from the kernel one by one; ``trimmed`` free bytes go back to it."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, mapped) and mallopt(_M_TRIM_THRESHOLD, trimmed))
