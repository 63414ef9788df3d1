"""`fairseq-train` in a process of its own: its log in a file, its progress on a bar, its error in one line."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from hmtl_plugin.errors import UserError, logged_error
from hmtl_plugin.parallel import cpu_count

PLUGIN = Path(__file__).resolve().parents[1]
LOG = "train.log"
_POLL_SECONDS = 0.3
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
    launcher = ["-P", str(PLUGIN / "fairseq_hooks" / "torchrun.py"), "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "fairseq_cli.train", *options]
    command += ["--user-dir", str(PLUGIN), "--save-dir", str(folder), "--log-format", "json"]
    environment = dict(os.environ)
    if processes > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cpu_count() // processes)))
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output, subprocess.Popen(command, stdout=output, stderr=output, env=environment) as child:
        try:
            while True:
                try:
                    child.wait(_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    on_update(_last_update(log, start))
        except BaseException:
            child.terminate()
            raise
    if child.returncode:
        raise UserError(
            f"{logged_error(log, start) or f'fairseq-train ended with status {child.returncode}'} (log: {log})"
        )


def _last_update(log: Path, start: int) -> int:
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - 8192))
        found = _UPDATE.findall(file.read())
    return int(found[-1]) if found else 0
