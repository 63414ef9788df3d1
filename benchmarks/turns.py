"""Systems take turns, so that a machine that changes its pace changes it for all; commands are timed, with their start
or without it.
"""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TypeVar

from machine import REPOSITORY
from row import Row

from hmtl_plugin.errors import UserError
from hmtl_plugin.parallel import cpu_count

Found = TypeVar("Found")
Seconds = Mapping[str, Sequence[float]]
Command = Sequence[str | Path]


def interleaved(runs: Mapping[str, Callable[[], Found]], repeats: int, uncounted: int = 0) -> dict[str, list[Found]]:
    """What each run gives, ``repeats`` times, all in turn; as many rounds as are ``uncounted`` come before."""
    found: dict[str, list[Found]] = {name: [] for name in runs}
    for number in range(-uncounted, repeats):
        for name, run in runs.items():
            result = run()
            if number >= 0:
                found[name].append(result)
    return found


def seconds_of(work: Callable[[], object], device: str = "cpu") -> float:
    """Wall seconds of a call, and of all that it leaves a GPU (``cuda``) to do."""
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def output(command: Command) -> tuple[str, str]:
    """What a command writes to stdout and stderr, which is shown only when it fails.

    Raises:
        UserError: with the end of what it wrote, if it fails.
    """
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "HMTL_PROGRESS": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY)
    if done.returncode:
        raise UserError(f"{' '.join(map(str, command))[:200]} failed: {done.stderr.strip()[-400:]}")
    return done.stdout, done.stderr


def timed(command: Command) -> float:
    """Wall seconds of a command."""
    return seconds_of(lambda: output(command))


def row_without_start(what: str, seconds: Seconds, size: int, peer_name: str, same: Mapping[str, bool]) -> Row:
    """Bytes a second of commands that take ``size`` bytes, the seconds of their starts left out.

    Args:
        seconds: of ``ours`` and ``peer``, and of ``ours start`` and ``peer start``: these commands on next to nothing.
        same: whether both sides wrote the same, by what that is called.
    """
    return Row(
        f"{what}, start-up left out",
        "bytes/s",
        [size / net for net in without_start(seconds, "ours")],
        peer=[size / net for net in without_start(seconds, "peer")],
        peer_name=peer_name,
        details={
            "MB": size / 1e6,
            "processes": cpu_count(),
            **same,
            "times better with start-up": median(seconds["peer"]) / median(seconds["ours"]),
        },
    )


def without_start(seconds: Seconds, name: str) -> list[float]:
    """Seconds of ``name`` less the median of ``name start``.

    Raises:
        UserError: where nothing is left: the start varies more than the work takes.
    """
    start = median(seconds[f"{name} start"])
    if min(seconds[name]) <= start:
        raise UserError("so little text takes no longer than starting the command: give more of it")
    return [run - start for run in seconds[name]]
