"""GLUE in one command: what it starts from, what its options do, what it refuses, how it ends."""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hmtl_plugin.errors import UserError
from tests.commands.running import run_script
from tests.finetuning.glue.runs import CELLS, GRID, RUNS, Trainer, finetune, records, table
from tests.training.runs import ROOT, weights


@pytest.mark.parametrize("change", ["checkpoint", "length", "option", "data"])
def test_what_was_trained_on_something_else_begins_anew(
    copied: Path, glue: Path, tmp_path: Path, trainer: Trainer, change: str
) -> None:
    folder = copied.parent / "glue" / "RTE" / CELLS[0] / "seed1"
    assert folder.is_dir()
    (folder / "marker").touch()
    arguments = ["RTE", "--grid", "lr=1e-3", "batch-size=16", "epochs=2"]
    if change == "checkpoint":
        content = torch.load(copied, weights_only=False)
        content["model"]["encoder.layers.1.fc1.bias"] += 0.1
        torch.save(content, copied)
    elif change == "length":
        arguments += ["--tokens-per-sample", "20"]
    elif change == "option":
        arguments += ["--dropout", "0.2"]
    else:
        shutil.copytree(glue, tmp_path / "glue")
        glue = tmp_path / "glue"
        with (glue / "RTE" / "dev.tsv").open("a") as file:
            file.write("19\tthe birds\ta cat\tentailment\n")
        arguments += ["--overwrite"]
    finetune(copied, glue, *arguments)
    more = {"length": ",tokens-per-sample=20", "option": ",dropout=0.2"}.get(change, "")
    assert trainer.runs == [RUNS[0].replace(",autocast", f"{more},autocast")]
    assert trainer.first_epochs == [1]
    assert (folder / "marker").exists() == bool(more)  # options have folders of their own
    record = records(copied)[-1]
    assert len(records(copied)) == 5
    assert record["hyper"]["options"] == (["--dropout", "0.2"] if change == "option" else [])
    assert (record["checkpoint_sha256"] != records(copied)[0]["checkpoint_sha256"]) == (change == "checkpoint")


def test_a_full_disk(copied: Path, glue: Path, trainer: Trainer, file_limit: Callable[[int], None]) -> None:
    out = copied.parent / "glue"
    before = (out / "RTE" / "model.pt").read_bytes()
    file_limit(500)
    with pytest.raises(UserError, match=r"glue/data/RTE: cannot be written \(File too large\); nothing new was kept"):
        finetune(copied, glue, "RTE", "--overwrite")
    file_limit(30_000)
    with pytest.raises(UserError, match=r"seed3/checkpoint_best.pt: cannot be written \(disk full.*make room there"):
        finetune(copied, glue, "RTE", *GRID, "--seeds", "3")
    assert (out / "RTE" / "model.pt").read_bytes() == before
    assert not [path for path in out.rglob("*") if path.name.endswith((".part", ".tmp"))]


def test_a_submission_is_of_one_checkpoint(copied: Path, glue: Path, trainer: Trainer) -> None:
    def submitted() -> list[str]:
        with zipfile.ZipFile(copied.parent / "glue" / "submission.zip") as archive:
            return archive.namelist()

    finetune(copied, glue, "STS-B", "--grid", "epochs=1")
    assert submitted() == ["RTE.tsv"]  # made by an earlier command
    content = torch.load(copied, weights_only=False)
    content["model"]["encoder.layers.1.fc1.bias"] += 0.1
    torch.save(content, copied)
    finetune(copied, glue, "STS-B", "--grid", "epochs=1")
    assert submitted() == []


def test_layers_that_were_fine_tuned_on_the_task_cannot_begin_anew(copied: Path, glue: Path, trainer: Trainer) -> None:
    tuned = copied.parent / "glue" / "RTE" / "model.pt"
    with pytest.raises(UserError, match=r"^--grid reinit-layers: .*model\.pt was fine-tuned on RTE already"):
        finetune(tuned, glue, "RTE", "--grid", "reinit-layers=0,1")
    assert trainer.runs == []


def test_choices_about_the_encoder_reach_the_trainer(start: Path, glue: Path, trainer: Trainer) -> None:
    before = weights(start.parent)

    def changed(*grid: str) -> set[str]:
        """Parts of the encoder in which the fine-tuned model differs from the pre-trained one."""
        finetune(start, glue, "RTE", "--grid", "epochs=1", *grid)
        after = weights(start.parent / "glue" / "RTE", "model.pt")
        keys = [key for key in after if key.startswith("encoder.") and not torch.equal(after[key], before[key])]
        return {"embeddings" if "embeddings" in key else key.split(".")[2] for key in keys}

    assert changed("lr=1e-2") == {"embeddings", "0", "1"}
    assert changed("lr=1e-2", "freeze-up-to=0") == {"0", "1"}
    assert changed("lr=1e-2", "freeze-up-to=1") == {"1"}
    assert changed("lr=1e-2", "freeze-up-to=-1") == set()
    assert changed("lr=1e-2", "head-layer=1") == {"embeddings", "0"}
    assert changed("lr=1e-30", "reinit-layers=1") == {"1"}
    assert changed("lr=1e-2", "layer-decay=1e-30") == set()


def test_mnli_with_its_sets_and_what_starts_from_it(
    start: Path, glue: Path, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ["--grid", "lr=1e-30", "epochs=1"]
    with pytest.raises(UserError, match=r"--from-mnli: no .*/glue/MNLI/model\.pt: fine-tune on MNLI first"):
        finetune(start, glue, "RTE", *grid, "--from-mnli")
    finetune(start, glue, "MNLI", "--grid", "lr=1e-2", "epochs=1")
    out = start.parent / "glue"
    sizes = {name: len(table(out / "MNLI" / f"{name}.tsv")) - 1 for name in ("MNLI-m", "AX")}
    assert sizes == {"MNLI-m": 5, "AX": 6}
    assert not (out / "MNLI" / "MNLI-mm.tsv").exists()  # no such test set here
    (record,) = records(start, "MNLI")
    assert set(record["metrics"]) == {"accuracy", "accuracy_mm", "score", "low", "high", "baseline"}
    logits_RC = np.load(next(out.rglob("predictions/valid_mm.npy")))
    rows = table(glue / "MNLI" / "dev_mismatched.tsv")[1:]
    right = [("contradiction", "neutral", "entailment")[int(c)] == r[3] for c, r in zip(logits_RC.argmax(1), rows)]
    assert record["metrics"]["accuracy_mm"] == pytest.approx(100 * np.mean(right))
    finetune(start, glue, "RTE", *grid, "--from-mnli")
    after, before = weights(out / "RTE-from-MNLI", "model.pt"), weights(out / "MNLI", "model.pt")
    assert all(torch.equal(after[key], before[key]) for key in after if key.startswith("encoder."))
    (record,) = records(start)
    assert record["variant"] == "books via MNLI"
    assert record["hierarchy"] == "bigram_shift@1,nsp@1,mlm@2"
    assert "books via MNLI" in capsys.readouterr().out
    content = torch.load(start, weights_only=False)  # trained anew since
    content["model"]["encoder.layers.1.fc1.bias"] += 0.1
    torch.save(content, start)
    with pytest.raises(UserError, match=r"--from-mnli: .* was fine-tuned from another checkpoint"):
        finetune(start, glue, "RTE", *grid, "--from-mnli")


def test_the_table_does_not_depend_on_how_the_folder_is_written(
    copied: Path, glue: Path, trainer: Trainer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copied.parent)
    finetune(Path("checkpoint_last.pt"), glue, "RTE", *GRID, "--seeds", "1,2")
    assert trainer.runs == []
    assert "no GLUE results yet" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RTE", "no-task"], "'no-task' is no GLUE task: choose from CoLA, SST-2"),
        (["RTE", "--grid", "rate=1"], "--grid rate=1: 'rate' is no option of a grid"),
        (["RTE", "--grid", "lr=high"], "--grid lr=high: 'high' is no value of lr"),
        (["RTE", "--seeds", "1,1"], "--seeds 1,1: write different whole numbers"),
        (["RTE", "--processes", "0"], "--processes 0: give 1 or more"),
        (["RTE", "--batch-size", "8"], "--batch-size: the learning rate's schedule is made for the grid's: give --grid batch-size=N"),
        (["RTE", "--max-epoch=2"], "give --grid epochs=N"),
        (["RTE", "--update-freq", "1,2"], "--update-freq 1,2: give one whole number"),
        (["RTE", "--workers", "-1"], "--workers -1"),
        (["RTE", "--tokens-per-sample", "65"], "--tokens-per-sample 65 is more than the 64 positions of"),
        (["RTE", "--grid", "batch-size=15", "--processes", "2"], "batch-size=15 does not divide among --processes 2"),
        (["CoLA"], "holds no train.tsv of CoLA; fetch it with"),
        (["RTE", "CoLA", "--grid", "head-pooling=cls,pair"], "--head-pooling pair: is for pairs of sentences, CoLA"),
        (["RTE", "SST-2", "--head-pooling=pair"], "SST-2 has single ones: use mean, cls, max"),
        (["SST-2", "RTE", "--head-pooling", "pair"], "SST-2 has single ones: use mean, cls, max"),
        (["RTE", "--glue-dir", "no-folder"], "--glue-dir no-folder: no such folder"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(
    start: Path, glue: Path, trainer: Trainer, arguments: list[str], message: str
) -> None:
    command = [start.parent, "--workers", "1", "--glue-dir", glue, *arguments]
    with pytest.raises(UserError) as error:
        run_script("finetune_glue", *command)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert trainer.runs == []


def test_a_checkpoint_or_a_row_that_will_not_do(
    start: Path, glue: Path, tmp_path: Path, trainer: Trainer, pretrained: Path
) -> None:
    other = tmp_path / "other.pt"
    content = torch.load(pretrained, weights_only=False)
    content["cfg"]["model"]["_name"] = "roberta"
    torch.save(content, other)
    with pytest.raises(UserError, match=r"other\.pt: holds a model 'roberta', not hmtl_bert"):
        run_script("finetune_glue", other, "RTE", "--glue-dir", glue)
    torch.save({"weights": 1}, other)
    with pytest.raises(UserError, match=r"other\.pt: not a checkpoint of fairseq-train"):
        run_script("finetune_glue", other, "RTE", "--glue-dir", glue)
    shutil.copytree(glue / "RTE", tmp_path / "RTE")
    with (tmp_path / "RTE" / "dev.tsv").open("a") as file:
        file.write("19\ta cat\tentailment\n")
    with pytest.raises(UserError, match=r"RTE/dev\.tsv: line 21 has 3 columns instead of 4"):
        finetune(start, tmp_path, "RTE")
    assert trainer.runs == []


def is_training(folder: Path) -> bool:
    """Whether some process holds the folder's lock."""
    with (folder / ".lock").open("r+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@pytest.mark.slow
def test_a_termination_signal_ends_the_training_and_the_same_command_goes_on(
    start: Path, glue: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the script and the trainings in processes of their own."""
    arguments = ["RTE", "--grid", "lr=1e-3", "batch-size=48", "epochs=30"]
    script = [sys.executable, str(ROOT / "scripts" / "finetune_glue.py"), str(start.parent), *arguments]
    script += ["--glue-dir", str(glue), "--workers", "1", "--autocast", "none"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(script, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    folder = start.parent / "glue" / "RTE" / "lr=1e-3,batch-size=48,epochs=30,autocast=none" / "seed1"
    while not (folder / "checkpoint_last.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    assert is_training(folder)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert said == ""
    assert not is_training(folder)
    assert "metrics" not in json.loads((folder / "outcome.json").read_text())
    cut = (folder / "train.log").stat().st_size
    finetune(start, glue, *arguments)
    epochs = [int(number) for number in re.findall(rb'"epoch": (\d+)', (folder / "train.log").read_bytes()[cut:])]
    assert 1 < min(epochs) <= max(epochs) == 30
    assert (start.parent / "glue" / "RTE" / "model.pt").exists()
    assert len(records(start)) == 1
    assert f"glue/RTE: best run {folder.relative_to(folder.parents[1])}\n" in capsys.readouterr().out


def test_a_training_that_cannot_start_is_one_line(start: Path, glue: Path) -> None:
    """Its process says why in the log that the line names."""
    with pytest.raises(UserError) as error:
        finetune(start, glue, "RTE", "--lr-scheduler", "nonsense")
    log = next((start.parent / "glue").rglob("train.log"))
    assert str(error.value).endswith(f" (log: {log})")
    assert "\n" not in str(error.value)
    assert "nonsense" in log.read_text()
