"""`fairseq-train` in a process of its own: its log in a file, its progress on a bar, its error in one line."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from hmtl_plugin.child_process import run_command, training_command
from hmtl_plugin.parallel import cpu_count

LOG = "train.log"
_UPDATE = re.compile(rb'"(?:train_)?num_updates": "?(\d+)')


def fairseq_train(options: list[str], folder: Path, processes: int, on_update: Callable[[int], None]) -> None:
    """Run ``fairseq-train`` with these options and ``--save-dir folder``; appends to ``folder/train.log``.

    Args:
        processes: more than one are started with torchrun (on GPUs one each).
        on_update: called with the number of the last update now and then.

    Raises:
        UserError: if it fails, with its own line if it has one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / LOG
    environment = dict(os.environ)
    if processes > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cpu_count() // processes)))
    start = log.stat().st_size if log.exists() else 0
    command = training_command(options, folder, processes)
    run_command(command, log, environment, lambda: on_update(_last_update(log, start)), name="fairseq-train")


def _last_update(log: Path, start: int) -> int:
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - 8192))
        found = _UPDATE.findall(file.read())
    return int(found[-1]) if found else 0
