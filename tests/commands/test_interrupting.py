"""Ctrl-C in the seconds in which a script imports what it needs: one word, no traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hmtl_plugin.commands.run import COMMANDS
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "python_prose"])  # which needs no torch
def test_ctrl_c_while_a_script_is_imported(name: str, tmp_path: Path) -> None:
    """Python tells which module it imports: the interrupt comes in the middle of torch."""
    command = [sys.executable, "-v", REPOSITORY / "scripts" / f"{name}.py", "--help"]
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HMTL_WAITING": "as it is"}
    with (tmp_path / "log").open("w+b") as log, subprocess.Popen(command, stderr=log, env=environ) as process:
        end = time.monotonic() + 60
        while b"import 'torch._C'" not in (tmp_path / "log").read_bytes() and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (130, -signal.SIGINT)
        said = [line for line in (tmp_path / "log").read_text(errors="replace").splitlines() if _is_said(line)]
    assert said[-1].endswith("interrupted") and not any("Traceback" in line for line in said)


def _is_said(line: str) -> bool:
    """By the command, not by ``python -v``, which ends with what it cleans up; the word may end a line of that."""
    return line.endswith("interrupted") or line.startswith(("Traceback", "error", "KeyboardInterrupt"))
