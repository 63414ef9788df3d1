"""Commands end with who started them, leave nothing that runs on, and say why they failed. Shell scripts stand in."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hmtl_plugin import child_process
from hmtl_plugin.child_process import end_orphans, run_command
from hmtl_plugin.errors import UserError
from tests.conftest import REPOSITORY
from tests.study.studies import write

LOG, NOTE = "log.txt", "process.json"
SLEEPERS = "(echo $BASHPID > grandchild; exec sleep 60) & echo $$ > child; {then}"


class Stopped(Exception):
    """Who started a command was told to stop."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "_POLL_SECONDS", 0.02)


def bash(folder: Path, script: str, stop: threading.Event | None = None, **environment: str) -> None:
    """Run a script in a folder, all of it ended by `Stopped` when ``stop`` is set."""

    def watch() -> None:
        if stop is not None and stop.is_set():
            raise Stopped

    command = ["bash", "-c", f"cd {folder}; {script}"]
    run_command(command, folder / LOG, {**os.environ, **environment}, watch, note=folder / NOTE)


def eventually(condition: Callable[[], bool]) -> bool:
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.01)
    return False


def pid_in(path: Path) -> int:
    assert eventually(lambda: path.exists() and path.read_text().strip().isdigit())
    return int(path.read_text())


def runs(pid: int) -> bool:
    """Whether it runs: one that ended but was not waited for does not."""
    return child_process._start_time(pid) is not None


def test_output_is_appended_and_the_environment_is_the_given_one(tmp_path: Path) -> None:
    for number in ("1", "2"):
        bash(tmp_path, "echo out $NUMBER; echo err >&2; cat", NUMBER=number)  # no input: cat ends
    assert (tmp_path / LOG).read_text() == "out 1\nerr\nout 2\nerr\n"
    assert not (tmp_path / NOTE).exists()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'error: --lr x: give a number'; echo after; exit 1", "--lr x: give a number"),
        ("echo 'evaluate.py: error: no such option'; exit 2", "no such option"),
        ("echo 'Traceback'; echo '  line'; echo 'ValueError: what'; exit 1", "ValueError: what"),
        ("echo noise; exit 3", "ended with status 3"),
        ("kill -9 $$", "ended with status -9"),
    ],
)
def test_a_failure_says_why_and_where(tmp_path: Path, script: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        bash(tmp_path, script)
    assert str(caught.value) == f"{message} (log: {tmp_path / LOG})"
    assert not (tmp_path / NOTE).exists()


def test_the_error_is_that_of_this_try(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="first"):
        bash(tmp_path, "echo 'error: first'; exit 1")
    bash(tmp_path, "echo fine")
    with pytest.raises(UserError, match=r"^ended with status 1"):
        bash(tmp_path, "exit 1")


def test_stopping_ends_the_command_and_what_it_started(tmp_path: Path) -> None:
    stop = threading.Event()

    def when_both_run() -> None:
        pid_in(tmp_path / "child"), pid_in(tmp_path / "grandchild")
        stop.set()

    waiter = threading.Thread(target=when_both_run)
    waiter.start()
    with pytest.raises(Stopped):
        bash(tmp_path, SLEEPERS.format(then="wait"), stop)
    waiter.join()
    assert not runs(pid_in(tmp_path / "child")) and not (tmp_path / NOTE).exists()
    assert eventually(lambda: not runs(pid_in(tmp_path / "grandchild")))


def test_one_that_does_not_listen_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_process, "_PATIENCE_SECONDS", 0.1)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        bash(tmp_path, "trap '' TERM; " + SLEEPERS.format(then="wait; sleep 60"), stop)
    assert not (tmp_path / "child").exists() or not runs(pid_in(tmp_path / "child"))


def test_one_that_listens_is_given_time(tmp_path: Path) -> None:
    stop = threading.Event()
    script = "trap 'sleep 0.3; echo saved > saved; exit' TERM; echo $$ > child; while true; do sleep 0.02; done"

    def when_it_runs() -> None:
        pid_in(tmp_path / "child")
        stop.set()

    threading.Thread(target=when_it_runs).start()
    with pytest.raises(Stopped):
        bash(tmp_path, script, stop)
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize("status", [0, 1])
def test_what_an_ended_command_left_running_is_ended(tmp_path: Path, status: int) -> None:
    """A main process that breaks down leaves workers, which would write into the folder of the next try."""
    script = SLEEPERS.format(then=f"while [ ! -s grandchild ]; do sleep 0.01; done; exit {status}")
    if status:
        with pytest.raises(UserError):
            bash(tmp_path, script)
    else:
        bash(tmp_path, script)
    assert eventually(lambda: not runs(pid_in(tmp_path / "grandchild")))


STUDY = """
import os, sys
sys.path.insert(0, "package")
from pathlib import Path
from hmtl_plugin.child_process import run_command
note = Path.cwd() / "process.json"
run_command(["bash", "-c", sys.argv[1]], Path.cwd() / "log.txt", os.environ, lambda: None, note=note)
"""


def test_orphans_of_a_killed_study_are_ended(tmp_path: Path) -> None:
    package = tmp_path / "package" / "hmtl_plugin"  # the true one loads fairseq, which takes seconds
    write(package / "__init__.py", "")
    for name in ("child_process.py", "errors.py"):
        (package / name).symlink_to(REPOSITORY / "hmtl_plugin" / name)
    study = subprocess.Popen([sys.executable, "-c", STUDY, SLEEPERS.format(then="wait")], cwd=tmp_path)
    child, grandchild = pid_in(tmp_path / "child"), pid_in(tmp_path / "grandchild")
    assert eventually(lambda: (tmp_path / NOTE).exists())
    study.send_signal(signal.SIGKILL)
    study.wait()
    assert runs(child) and runs(grandchild)
    end_orphans(tmp_path / NOTE)
    assert not runs(child) and eventually(lambda: not runs(grandchild))
    assert not (tmp_path / NOTE).exists()
    end_orphans(tmp_path / NOTE)  # nothing is left to do


def test_a_process_that_got_the_number_later_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        try:
            started = child_process._start_time(stranger.pid)
            assert started is not None
            for noted in (str(int(started) - 1), None):
                (tmp_path / NOTE).write_text(json.dumps({"group": stranger.pid, "started": noted}))
                end_orphans(tmp_path / NOTE)
                assert runs(stranger.pid) and not (tmp_path / NOTE).exists()
        finally:
            stranger.kill()


@pytest.mark.parametrize("note", ["", "{", "[]", '{"group": "x", "started": 1}', '{"group": 1}'])
def test_half_a_note_is_survived(tmp_path: Path, note: str) -> None:
    (tmp_path / NOTE).write_text(note)
    end_orphans(tmp_path / NOTE)
    end_orphans(tmp_path / "none" / NOTE)
