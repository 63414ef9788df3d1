"""Commands in processes of their own: the output in a log, a failure in one line, and none left that still writes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hmtl_plugin.errors import UserError, logged_error

PLUGIN = Path(__file__).resolve().parent
_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 20.0


def training_command(options: Sequence[str], folder: Path, processes: int = 1) -> list[str]:
    """`fairseq-train` with these options, this plugin and ``--save-dir folder``, which logs JSON.

    Args:
        processes: more than one are started with torchrun (on GPUs one each).
    """
    torchrun = ["-P", str(PLUGIN / "fairseq_hooks" / "torchrun.py"), "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(torchrun if processes > 1 else []), "-m", "fairseq_cli.train", *options]
    return [*command, "--user-dir", str(PLUGIN), "--save-dir", str(folder), "--log-format", "json"]


def run_command(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    watch: Callable[[], None],
    *,
    note: Path | None = None,
    name: str = "",
) -> None:
    """Run a command, its output appended to ``log``.

    Args:
        watch: called now and then while it runs; what it raises, as any interruption here, ends the command.
        note: the command leads a group of processes, all of which end with it, noted in this file for `end_orphans`.
            Without, it stays in the group of this process, which Ctrl-C reaches as a whole, and alone is ended.
        name: of the command, for a failure that it does not explain.

    Raises:
        UserError: with its own last error line, if it fails.
    """
    start = log.stat().st_size if log.exists() else 0
    with (
        log.open("ab") as output,
        subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env=dict(environment),
            start_new_session=note is not None,
        ) as child,
    ):
        try:
            if note is not None:
                group = {"group": child.pid, "started": _start_time(child.pid)}
                note.write_text(json.dumps(group), encoding="utf-8")
            while True:
                try:
                    child.wait(_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    watch()
        finally:
            if note is None:
                child.terminate()  # nothing, if it has ended
            else:
                _end_group(child)
                note.unlink(missing_ok=True)
    if child.returncode:
        reason = logged_error(log, start) or f"{name} ended with status {child.returncode}".lstrip()
        raise UserError(f"{reason} (log: {log})")


def end_orphans(note: Path) -> None:
    """End the group noted by a process that was itself killed outright, if any of it runs."""
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
        group, started = int(found["group"]), found["started"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if started is not None and started == _start_time(group):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        for _ in range(100):
            if _start_time(group) != started:
                break
            time.sleep(0.05)
    note.unlink(missing_ok=True)


def _end_group(child: "subprocess.Popen[bytes]") -> None:
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
