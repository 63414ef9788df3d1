"""Arrays that we wrote with ``np.save``, read again."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hmtl_plugin.errors import UserError


def load_array(path: Path, again: str, mode: Literal["r", "c"] = "r") -> npt.NDArray[Any]:
    """The array in a file, memory-mapped.

    Args:
        again: how to make the file anew, for the message.
        mode: "c" if it is to look writable; changes never reach the file.

    Raises:
        UserError: if it is missing or damaged.
    """
    try:
        return np.load(path, mmap_mode=mode, allow_pickle=False)
    except Exception:  # of a damaged header numpy raises whatever its parser stumbles over
        raise UserError(f"{path}: missing or damaged; {again}") from None
