"""A run that is interrupted and resumed gives the weights of the run that never was."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.runs import (
    ROOT,
    arguments,
    assert_same_weights,
    fairseq_command,
    run,
    train,
    weights,
)

WHOLE = ("--max-update", "26")  # an epoch has fewer updates, see `test_the_runs_cross_an_epoch`


def test_the_runs_cross_an_epoch(whole: Path) -> None:
    state = torch.load(whole / "checkpoint_last.pt", weights_only=True)
    assert state["extra_state"]["train_iterator"]["epoch"] >= 3


@pytest.mark.parametrize("stop", [3, 15])
def test_resume_is_exact(data: Path, whole: Path, tmp_path: Path, stop: int) -> None:
    """Stopped in the first epoch and in the second; the second leg also loads its data with two workers."""
    train(arguments(data, tmp_path, "--max-update", str(stop)))
    train(arguments(data, tmp_path, *WHOLE, "--num-workers", "2"))
    assert_same_weights(weights(tmp_path), weights(whole))


def test_workers_change_nothing(data: Path, whole: Path, tmp_path: Path) -> None:
    """Frozen random state in worker processes is the classic silent failure: epochs two and three would repeat the
    first.
    """
    train(arguments(data, tmp_path, *WHOLE, "--num-workers", "1"))
    assert_same_weights(weights(tmp_path), weights(whole))


def test_other_seeds_differ(data: Path, whole: Path, tmp_path: Path) -> None:
    train(arguments(data, tmp_path, *WHOLE, "--seed", "4"))
    one, other = weights(tmp_path), weights(whole)
    assert any(not torch.equal(one[key], other[key]) for key in one)


KILLED_WHILE_WRITING = """
import os, shutil, signal, sys
calls = 0
def copyfile(source, target, **kwargs):
    # half of the second checkpoint_last, then the power goes
    global calls
    calls += 1
    content = open(source, "rb").read()
    if calls < int(os.environ["KILL_AT"]):
        open(target, "wb").write(content)
        return target
    with open(target, "wb") as file:
        file.write(content[: len(content) // 2])
        file.flush()
        os.fsync(file.fileno())
    os.kill(os.getpid(), signal.SIGKILL)
shutil.copyfile = copyfile
from fairseq_cli.train import cli_main
cli_main()
"""


def test_kill_while_a_checkpoint_is_copied(data: Path, whole: Path, tmp_path: Path) -> None:
    """Half a file must never stand under a checkpoint's name; the resumed run ends where the whole one did."""
    args = arguments(data, tmp_path, *WHOLE, "--save-interval-updates", "5")
    killed = run([sys.executable, "-c", KILLED_WHILE_WRITING, *args], KILL_AT="4")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert list(tmp_path.glob("*.part")), "the kill was meant to hit a copy half-way"
    train(args)
    assert not list(tmp_path.glob("*.part"))
    assert_same_weights(weights(tmp_path), weights(whole))


def test_a_full_disk_ends_in_one_line(
    data: Path, whole: Path, tmp_path: Path, file_limit: Callable[[int], None]
) -> None:
    """fairseq tries three times, each behind what the last had written; checkpoints that are there stay whole."""
    args = arguments(data, tmp_path, *WHOLE, "--save-interval-updates", "5")
    train(arguments(data, tmp_path, "--max-update", "5", "--save-interval-updates", "5"))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.pt")}
    file_limit(100_000)
    with pytest.raises(SystemExit, match=r"^error: .*/checkpoint\w*.pt: cannot be written \(disk full.*make room"):
        train(args)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.pt*")} == before
    file_limit(-1)
    train(args)
    assert_same_weights(weights(tmp_path), weights(whole))


def test_a_save_dir_that_cannot_be_made_is_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"^error: .*/file/run: Not a directory: give a path that can be"):
        train(arguments(data, tmp_path / "file" / "run", "--max-update", "2"))


def test_a_truncated_checkpoint_is_refused_in_one_line(data: Path, whole: Path, tmp_path: Path) -> None:
    broken = tmp_path / "checkpoint_last.pt"
    content = (whole / "checkpoint_last.pt").read_bytes()
    broken.write_bytes(content[: len(content) // 3])
    with pytest.raises(SystemExit) as caught:
        train(arguments(data, tmp_path, *WHOLE))
    message = str(caught.value.code)
    assert message.startswith("error: ") and "checkpoint_last.pt: truncated" in message and "\n" not in message


def test_unsafe_checkpoints_are_refused(data: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'owned'}",)

    torch.save({"model": Evil()}, tmp_path / "checkpoint_last.pt")
    with pytest.raises(SystemExit) as caught:
        train(arguments(data, tmp_path, "--max-update", "2"))
    assert "could run code" in str(caught.value.code)
    assert not (tmp_path / "owned").exists()


def test_a_finished_run_stays_as_it_is(data: Path, whole: Path, tmp_path: Path) -> None:
    """fairseq alone would train one update more."""
    args = arguments(data, tmp_path, "--max-update", "3")
    train(args)
    before = (tmp_path / "checkpoint_last.pt").read_bytes()
    train(args)
    assert (tmp_path / "checkpoint_last.pt").read_bytes() == before


@pytest.mark.slow
def test_sigkill_at_any_moment(data: Path, whole: Path, tmp_path: Path) -> None:
    """Killed again and again after a random while; every life saves every 2 updates."""
    args = arguments(data, tmp_path, *WHOLE, "--save-interval-updates", "2", "--keep-interval-updates", "1")
    import subprocess
    import time

    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for pause in (4.0, 5.5, 6.5, 7.0):
        process = subprocess.Popen(fairseq_command(args), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(pause)
        process.kill()
        process.wait()
    train(args)
    assert_same_weights(weights(tmp_path), weights(whole))
