"""GLUE in one command, from a pre-training checkpoint and official files to predictions and records; again, stopped."""

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from hmtl_plugin.checkpoints import load_checkpoint
from hmtl_plugin.errors import UserError
from hmtl_plugin.finetuning.experiment import Run, choose
from hmtl_plugin.interop.provenance import find_provenance
from hmtl_plugin.tokenizers.base import Tokenizer
from tests.finetuning.glue.runs import (
    CELLS,
    DOCUMENTED,
    FINISHED,
    GRID,
    RUNS,
    Trainer,
    best_of,
    cell_of,
    finetune,
    records,
    table,
)


def test_what_a_grid_leaves(finished: Path) -> None:
    out = finished.parent / "glue"
    for task, runs in FINISHED.items():
        best = best_of(finished, task)
        assert sorted(f"{path.parent.name}/{path.name}" for path in (out / task).glob("*/seed*")) == sorted(runs)
        assert [str(path.parent.relative_to(out / task)) for path in (out / task).rglob("seed*/model.pt")] == [best]
        assert (out / task / "model.pt").read_bytes() == (out / task / best / "model.pt").read_bytes()
        assert not list((out / task).rglob("checkpoint_*.pt"))
    assert not list(out.rglob("*.part"))


def test_the_leaderboard_s_files(finished: Path, glue: Path) -> None:
    out = finished.parent / "glue"
    logits_RC = np.load(out / "RTE" / best_of(finished, "RTE") / "predictions" / "test.npy")
    words = [["entailment", "not_entailment"][int(row.argmax())] for row in logits_RC]
    assert len(words) == len(table(glue / "RTE" / "test.tsv")) - 1
    assert table(out / "RTE" / "RTE.tsv") == [["index", "prediction"], *([str(i), w] for i, w in enumerate(words))]
    with zipfile.ZipFile(out / "submission.zip") as archive:
        assert archive.namelist() == ["RTE.tsv"]  # STS-B has no test set here
        assert archive.read("RTE.tsv") == (out / "RTE" / "RTE.tsv").read_bytes()


def test_one_record_a_run_in_the_documented_form(finished: Path) -> None:
    for task, runs in FINISHED.items():
        found = records(finished, task)
        assert sorted(f"{cell_of(record)}/seed{record['seed']}" for record in found) == sorted(runs)
        for record in found:
            assert set(record) == set(DOCUMENTED)
            metrics = record["metrics"]
            assert metrics["low"] <= metrics["score"] <= metrics["high"]
            assert metrics["baseline"] >= 0
            epochs = 2 if task == "RTE" else 4
            fixed = {"tokens-per-sample": 64, "autocast": "none", "options": []}
            assert record["hyper"] == {"lr": record["hyper"]["lr"], "batch-size": 16, "epochs": epochs, **fixed}
            told = {name: record[name] for name in DOCUMENTED if name not in ("metrics", "hyper", "seconds")}
            shared = {"schema": 1, "kind": "glue", "variant": "books", "split": "valid", "layer": 2, "pooling": "cls"}
            hierarchy = {"hierarchy": "bigram_shift@1,nsp@1,mlm@2", "transfer": "nsp>mlm:concat"}
            assert told.items() >= (shared | hierarchy | {"checkpoint": str(finished)}).items()
            assert record["run"] == str(finished.parent)
            assert record["seconds"] > 0
            assert record["command"].startswith("scripts/finetune_glue.py ")


@pytest.mark.parametrize("task", ["RTE", "STS-B"])
def test_predictions_and_metrics_are_the_model_s(finished: Path, glue: Path, tokenizer: Tokenizer, task: str) -> None:
    """Each row alone, from its text, and metrics from their definitions."""
    folder = finished.parent / "glue" / task
    rows = table(glue / task / "dev.tsv")[1:]
    model = load_checkpoint(folder / "model.pt").model
    with torch.inference_mode():
        logits = [
            model(torch.tensor([[0, *tokenizer.encode(a), 2, *tokenizer.encode(b), 2]]), task_head=True)[0][0].tolist()
            for _, a, b, _ in rows
        ]
    best = best_of(finished, task)
    logits_RC = np.load(folder / best / "predictions" / "valid.npy")
    assert np.abs(logits_RC - np.array(logits)).max() < 1e-4
    for record in records(finished, task):
        run_folder = folder / cell_of(record) / f"seed{record['seed']}"
        logits_RC = np.load(run_folder / "predictions" / "valid.npy")
        if task == "RTE":
            right = [["entailment", "not_entailment"][int(c)] == row[3] for c, row in zip(logits_RC.argmax(1), rows)]
            wanted = {"accuracy": 100 * sum(right) / len(rows)}
            train_labels = [row[3] for row in table(glue / task / "train.tsv")[1:]]
            most = max(set(train_labels), key=train_labels.count)
            assert record["metrics"]["baseline"] == pytest.approx(
                100 * [row[3] for row in rows].count(most) / len(rows)
            )
        else:
            true = [float(row[3]) for row in rows]
            wanted = {
                "pearson": 100 * stats.pearsonr(logits_RC[:, 0], true).statistic,
                "spearman": 100 * stats.spearmanr(logits_RC[:, 0], true).statistic,
            }
        wanted["score"] = sum(wanted.values()) / len(wanted)
        found = record["metrics"]
        assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-4)
        log = [json.loads(line) for line in (run_folder / "train.log").read_text().splitlines()]
        scores = [line["valid_score"] for line in log if "valid_score" in line]
        assert len(scores) == record["hyper"]["epochs"]
        assert task == "RTE" or max(scores) > scores[-1] + 0.01  # the best is not the last
        # in batches of another size predictions round otherwise, which a correlation of nearly equal ones magnifies
    assert found["score"] == pytest.approx(max(scores), abs=1e-2)


def test_a_cell_is_chosen_by_its_median_and_a_run_by_its_score(tmp_path: Path) -> None:
    runs = []
    for lr, scores in (("1", (50.0, 60.0, 99.0)), ("2", (61.0, 63.0, 62.0)), ("3", (62.0, 0.0, 62.0))):
        for seed, score in enumerate(scores):
            runs.append(Run(tmp_path / lr / str(seed), {"lr": lr}, seed, {"lr": lr, "seed": seed}))
            runs[-1].begin()
            runs[-1].end({"score": score})
    assert choose(runs) is runs[4]


def _score(folder: Path) -> float:
    return float(json.loads((folder / "outcome.json").read_text())["metrics"]["score"])


def test_the_same_command_again_trains_nothing(
    copied: Path, glue: Path, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    store, model = copied.parent / "results.jsonl", copied.parent / "glue" / "RTE" / "model.pt"
    before = store.read_bytes(), model.read_bytes()
    finetune(copied, glue, "RTE", *GRID, "--seeds", "1,2")
    assert trainer.runs == []
    assert (store.read_bytes(), model.read_bytes()) == before
    said = capsys.readouterr().out
    assert f"{copied.parent}/glue/RTE: best run {best_of(copied, 'RTE')}\n" in said
    assert re.search(r"submission\.zip: lacks CoLA\.tsv, SST-2\.tsv, MRPC\.tsv, STS-B\.tsv, .*WNLI\.tsv\n", said)


def test_another_option_has_folders_of_its_own(copied: Path, glue: Path, trainer: Trainer) -> None:
    """A command with another option took away what the first had trained."""
    folder, cell = copied.parent / "glue" / "RTE", CELLS[0].removesuffix(",autocast=none")
    before = _score(folder / CELLS[0] / "seed1")
    for option in (["--clip-norm", "2"], ["--clip-norm=2"]):
        finetune(copied, glue, "RTE", "--grid", *cell.split(",")[:3], *option)
        assert trainer.runs == [f"{cell},clip-norm=2,autocast=none/seed1"]
    odd = ["--adam-betas", "(0.8, 0.9)"]
    finetune(copied, glue, "RTE", "--grid", *cell.split(",")[:3], *odd, "--tokens-per-sample", "60")
    assert re.fullmatch(rf"{cell},options=[0-9a-f]{{10}}/seed1", trainer.runs[1]) and len(trainer.runs) == 2
    assert _score(folder / CELLS[0] / "seed1") == before
    origin = find_provenance(load_checkpoint(folder / "model.pt"))
    assert origin.cell == {"lr": "1e-3", "batch-size": "16", "epochs": "2"} and origin.seed == 1
    assert origin.metrics["score"] == _score(folder / trainer.runs[1])


def test_runs_of_a_version_that_named_no_options_are_found(copied: Path, glue: Path, trainer: Trainer) -> None:
    folder = copied.parent / "glue" / "RTE"
    for cell in CELLS:
        (folder / cell).rename(folder / cell.removesuffix(",autocast=none"))
    finetune(copied, glue, "RTE", *GRID, "--seeds", "1,2")
    assert trainer.runs == []


def test_another_seed_is_trained_alone(copied: Path, glue: Path, trainer: Trainer) -> None:
    finetune(copied, glue, "RTE", *GRID, "--seeds", "3,1,2")
    assert trainer.runs == [f"{cell}/seed3" for cell in CELLS]
    assert len(records(copied)) == 6


def test_a_command_for_less_finds_its_runs(
    copied: Path, glue: Path, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that lost its weights to a better one is trained again, to the same predictions; that it takes the better
    one's place is said.
    """
    best = best_of(copied, "RTE")
    cell, seed = next(name for name in RUNS if name != best_of(copied, "RTE")).split("/seed")
    folder = copied.parent / "glue" / "RTE"
    before = np.load(folder / cell / f"seed{seed}" / "predictions" / "valid.npy")
    lr = cell.split(",")[0]
    finetune(copied, glue, "RTE", "--grid", lr, "batch-size=16", "epochs=2", "--seeds", seed)
    assert trainer.runs == [f"{cell}/seed{seed}"]
    score = {f"{each}/seed{run}": _score(folder / each / f"seed{run}") for each in CELLS for run in (1, 2)}
    said = f"RTE: {cell}/seed{seed} ({score[f'{cell}/seed{seed}']:.1f}) replaces {best} ({score[best]:.1f})"
    assert (said in capsys.readouterr().err) == (score[best] > score[f"{cell}/seed{seed}"])
    finetune(copied, glue, "RTE", *GRID, "--seeds", "1,2")
    assert " replaces " not in capsys.readouterr().err and best_of(copied, "RTE") == best
    finetune(copied, glue, "RTE", "--grid", lr, "batch-size=16", "epochs=2", "--seeds", seed)
    assert np.array_equal(np.load(folder / cell / f"seed{seed}" / "predictions" / "valid.npy"), before)
    assert (folder / "model.pt").read_bytes() == (folder / cell / f"seed{seed}" / "model.pt").read_bytes()


def test_a_run_that_is_trained_again_is_recorded_once(copied: Path, glue: Path, trainer: Trainer) -> None:
    cell, seed = next(name for name in RUNS if name != best_of(copied, "RTE")).split("/seed")
    finetune(copied, glue, "RTE", "--grid", cell.split(",")[0], "batch-size=16", "epochs=2", "--seeds", seed)
    assert len(trainer.runs) == 1
    assert len(records(copied)) == 4


def test_weights_of_every_run_are_kept_on_request(start: Path, glue: Path, trainer: Trainer) -> None:
    finetune(start, glue, "RTE", "--grid", "lr=1e-3", "epochs=1", "--seeds", "1,2", "--keep-models")
    assert len(list((start.parent / "glue" / "RTE").rglob("seed*/model.pt"))) == 2
    finetune(start, glue, "RTE", "--grid", "lr=1e-3", "epochs=1", "--seeds", "1,2")
    assert len(trainer.runs) == 2
    assert len(list((start.parent / "glue" / "RTE").rglob("seed*/model.pt"))) == 1


def test_a_run_that_was_stopped_goes_on(start: Path, finished: Path, glue: Path, trainer: Trainer) -> None:
    """And ends where the one that never was stopped did."""
    trainer.stop_after = 1
    command = ["RTE", "--grid", "lr=1e-2", "batch-size=16", "epochs=2", "--seeds", "2"]
    with pytest.raises(KeyboardInterrupt):
        finetune(start, glue, *command)
    name = f"glue/RTE/{CELLS[1]}/seed2"
    assert (start.parent / name / "checkpoint_last.pt").exists()
    assert records(start) == []
    trainer.stop_after = 0
    finetune(start, glue, *command)
    assert trainer.first_epochs == [1, 2]
    assert len(records(start)) == 1
    for split in ("valid", "test"):
        found, wanted = (np.load(s.parent / name / "predictions" / f"{split}.npy") for s in (start, finished))
        assert np.array_equal(found, wanted)


def test_a_run_that_fails_leaves_finished_ones(start: Path, glue: Path, trainer: Trainer) -> None:
    grid = ["--grid", "lr=1e-3", "epochs=1"]
    with pytest.raises(UserError, match=r"^--head-layer 9: use 1 to 2, or -1 to -2 from the top$"):
        finetune(start, glue, "RTE", *grid, "head-layer=1,9")
    assert len(records(start)) == 1
    assert records(start)[0]["layer"] == 1
    finetune(start, glue, "RTE", *grid, "head-layer=1")
    assert len(trainer.runs) == 2  # one of each
    assert len(records(start)) == 1
