"""What benchmarks of commands share: systems take turns, and what starting a command takes can be left out."""

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from machine import REPOSITORY

from hmtl_plugin.errors import UserError

Seconds = dict[str, list[float]]


def interleaved(runs: Mapping[str, Callable[[], float]], repeats: int) -> Seconds:
    """What each run gives, ``repeats`` times: all in turn, so that a machine that changes its pace changes it for all."""
    found: Seconds = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            found[name].append(run())
    return found


def output(command: Sequence[str | Path]) -> tuple[str, str]:
    """What a command writes to stdout and stderr, which is shown only when it fails.

    Raises:
        UserError: with the end of what it wrote, if it fails.
    """
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "HMTL_PROGRESS": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY)
    if done.returncode:
        raise UserError(f"{' '.join(map(str, command))[:200]} failed: {done.stderr.strip()[-400:]}")
    return done.stdout, done.stderr


def timed(command: Sequence[str | Path]) -> float:
    """Wall seconds of a command."""
    started = time.perf_counter()
    output(command)
    return time.perf_counter() - started


def without_start(seconds: Seconds, name: str) -> list[float]:
    """Seconds of ``name`` less the median of ``name start``.

    Raises:
        UserError: where nothing is left: the start varies more than the work takes.
    """
    start = statistics.median(seconds[f"{name} start"])
    if min(seconds[name]) <= start:
        raise UserError("so little text takes no longer than starting the command: give more of it")
    return [run - start for run in seconds[name]]
