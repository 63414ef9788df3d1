"""Progress bars: on a terminal, or when HMTL_PROGRESS=1; else silence, for logs."""

import os
import sys

from tqdm import tqdm

tqdm.monitor_interval = 0  # no thread of its own: workers are forked beside bars


def progress_bar(description: str, total: int | None, unit: str = "B") -> "tqdm":
    """A bar on stderr; bytes are scaled. Use it as a context manager."""
    forced = os.environ.get("HMTL_PROGRESS")
    shown = forced == "1" or (forced != "0" and sys.stderr.isatty())
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        unit_scale=unit == "B",
        unit_divisor=1000,
        disable=not shown,
        leave=False,
        mininterval=0.2,
    )
