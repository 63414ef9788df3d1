"""Commands of a stage in processes of their own, which end with the study and leave no orphan that still writes."""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from hmtl_plugin.errors import UserError, logged_error

LOG, PROCESS = "log.txt", "process.json"
_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 20.0


class Stopped(Exception):
    """The study was told to stop while a command ran."""


def run_command(command: Sequence[str], folder: Path, environment: Mapping[str, str], stop: threading.Event) -> None:
    """Run a command, its output appended to ``folder/log.txt``.

    Raises:
        UserError: with its own last error line, if it fails.
        Stopped: if ``stop`` was set; the command and what it started have ended then.
    """
    log = folder / LOG
    start = log.stat().st_size if log.exists() else 0
    with (
        log.open("ab") as output,
        subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env=dict(environment),
            start_new_session=True,
        ) as child,
    ):
        try:
            note = {"group": child.pid, "started": _start_time(child.pid)}
            (folder / PROCESS).write_text(json.dumps(note), encoding="utf-8")
            while True:
                try:
                    child.wait(_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    if stop.is_set():
                        raise Stopped from None
        finally:
            _end(child)
            (folder / PROCESS).unlink(missing_ok=True)
    if child.returncode:
        raise UserError(f"{logged_error(log, start) or f'ended with status {child.returncode}'} (log: {log})")


def end_orphans(folder: Path) -> None:
    """End what a study that was itself killed outright left running in ``folder``."""
    try:
        note = json.loads((folder / PROCESS).read_text(encoding="utf-8"))
        group, started = int(note["group"]), note["started"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if started is not None and started == _start_time(group):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        for _ in range(100):
            if _start_time(group) != started:
                break
            time.sleep(0.05)
    (folder / PROCESS).unlink(missing_ok=True)


def _end(child: "subprocess.Popen[bytes]") -> None:
    """Politely, then not; of one that has ended, what it left running."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_PATIENCE_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _start_time(pid: int) -> str | None:
    """What tells a process from a later one with its number; None where it ended, or where there is no /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
