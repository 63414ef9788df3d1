"""`fairseq_train` watches a process: its progress, its error in one line, its end. A shell script stands in for Python."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hmtl_plugin.child_process import PLUGIN
from hmtl_plugin.errors import UserError
from hmtl_plugin.files.run_lock import alone_in
from hmtl_plugin.finetuning.training import fairseq_train
from tests.training.runs import ROOT


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """``child(script)`` is what runs instead of Python."""

    def write(script: str) -> None:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return write


def fails(folder: Path, processes: int = 1) -> str:
    with pytest.raises(UserError) as error:
        fairseq_train([], folder, processes, lambda update: None)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(f" (log: {folder}/train.log)")
    return str(error.value).removesuffix(f" (log: {folder}/train.log)")


def test_the_command_and_its_log(child: Callable[[str], None], tmp_path: Path) -> None:
    child('echo "$@"; echo noise >&2')
    folder = tmp_path / "deep" / "run"
    fairseq_train(["data", "--lr", "1"], folder, 1, lambda update: None)
    fairseq_train(["data"], folder, 2, lambda update: None)
    first, _, second, _ = (folder / "train.log").read_text().splitlines()
    shared = f"--user-dir {PLUGIN} --save-dir {folder} --log-format json"
    assert first == f"-m fairseq_cli.train data --lr 1 {shared}"
    assert (
        second
        == f"-P {PLUGIN / 'fairseq_hooks' / 'torchrun.py'} --standalone --nproc_per_node 2 -m fairseq_cli.train data {shared}"
    )


def test_progress_is_that_of_this_run(child: Callable[[str], None], tmp_path: Path) -> None:
    child('echo \'{"train_num_updates": "99"}\'')
    fairseq_train([], tmp_path, 1, lambda update: None)
    child(
        """sleep 0.5
        echo '| INFO | {"epoch": 1, "num_updates": "20", "lr": "3"}'; sleep 0.5
        echo '| INFO | {"epoch": 1, "num_updates": "40"}'; echo '{"valid_score": "3", "valid_num_updates": "1000"}'; sleep 0.5
        """
    )
    seen: list[int] = []
    fairseq_train([], tmp_path, 1, seen.append)
    assert list(dict.fromkeys(seen)) == [0, 20, 40]


def test_an_error_is_one_line(child: Callable[[str], None], tmp_path: Path) -> None:
    child("echo 'Traceback'; echo 'error: --head-layer 9: use 1 to 2'; echo '  noise'; exit 1")
    assert fails(tmp_path) == "--head-layer 9: use 1 to 2"
    child("exit 7")
    assert fails(tmp_path) == "fairseq-train ended with status 7"  # not the error of the run before
    child(
        "printf 'Traceback (most recent call last):\\n  File\\ntorch.OutOfMemoryError: CUDA out of memory\\n'; exit 1"
    )
    assert fails(tmp_path) == "torch.OutOfMemoryError: CUDA out of memory"
    child("kill -9 $$")
    assert fails(tmp_path) == "fairseq-train ended with status -9"


def test_an_option_that_fairseq_does_not_know_is_named(child: Callable[[str], None], tmp_path: Path) -> None:
    child("echo 'usage: train.py'; echo 'train.py: error: unrecognized arguments: --nonsense'; exit 2")
    assert "unrecognized arguments: --nonsense" in fails(tmp_path)


def test_a_process_ends_with_who_started_it(child: Callable[[str], None], tmp_path: Path) -> None:
    child(f"trap 'echo ended >{tmp_path}/ended; exit 0' TERM; echo started; while :; do sleep 0.05; done")

    def interrupt(update: int) -> None:
        if (tmp_path / "train.log").read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fairseq_train([], tmp_path, 1, interrupt)
    assert (tmp_path / "ended").read_text() == "ended\n"


HOLD = """
import sys, time
from pathlib import Path
from hmtl_plugin.files.run_lock import alone_in, hold_save_dir
folder = Path(sys.argv[2])
if sys.argv[1] == "command":
    context = alone_in(folder)
    context.__enter__()
else:
    hold_save_dir(folder)
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("holder", ["command", "orphan"])
def test_another_command_does_not_take_a_cell_that_is_trained(tmp_path: Path, holder: str) -> None:
    """Its own options would make it remove what is there; of a killed command the training lives on and counts too."""
    folder = tmp_path / "lr=1e-4" / "seed1"
    folder.mkdir(parents=True)
    (folder / "checkpoint_last.pt").write_text("an hour of work")
    holding = subprocess.Popen(
        [sys.executable, "-c", HOLD, holder, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holding.stdout is not None and holding.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=rf"seed1: process {holding.pid} on .* is training into this folder already"),
            alone_in(folder),
        ):
            pytest.fail("two at once")
        assert (folder / "checkpoint_last.pt").exists()
    finally:
        holding.kill()
        holding.wait()
    with alone_in(folder):  # the kernel gives the lock of the killed process back
        pass
