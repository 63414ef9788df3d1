"""Prediction files are what the leaderboard takes."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.glue.submission import answers, write_predictions, zip_submission
from hmtl_plugin.glue.tasks import TASKS, TEST, find_task

# as https://gluebenchmark.com asks for them
LABELS = {
    "CoLA": ["0", "1"],
    "SST-2": ["0", "1"],
    "MRPC": ["0", "1"],
    "QQP": ["0", "1"],
    "MNLI": ["contradiction", "neutral", "entailment"],
    "QNLI": ["entailment", "not_entailment"],
    "RTE": ["entailment", "not_entailment"],
    "WNLI": ["0", "1"],
}
FILES = {
    "CoLA": {"test": "CoLA.tsv"},
    "SST-2": {"test": "SST-2.tsv"},
    "MRPC": {"test": "MRPC.tsv"},
    "STS-B": {"test": "STS-B.tsv"},
    "QQP": {"test": "QQP.tsv"},
    "MNLI": {"test": "MNLI-m.tsv", "test_mm": "MNLI-mm.tsv", "ax": "AX.tsv"},
    "QNLI": {"test": "QNLI.tsv"},
    "RTE": {"test": "RTE.tsv"},
    "WNLI": {"test": "WNLI.tsv"},
}


def manifest(split: str, broken: int = 0, unlabelled: int = 0) -> dict[str, Any]:
    return {"splits": {split: {"file": "test.tsv", "broken_rows": broken, "unlabelled_rows": unlabelled}}}


def rows_of(path: Path) -> list[list[str]]:
    content = path.read_text(encoding="utf-8")
    assert content.endswith("\n")
    return [line.split("\t") for line in content[:-1].split("\n")]


@pytest.mark.parametrize(("name", "split"), [(name, split) for name in LABELS for split in FILES[name]])
def test_a_row_for_every_row_in_the_leaderboard_s_words(tmp_path: Path, name: str, split: str) -> None:
    task = find_task(name)
    chosen = np.arange(7) % len(LABELS[name])
    logits_RC = np.random.default_rng(0).uniform(-1, 1, (7, task.outputs)).astype(np.float32)
    logits_RC[np.arange(7), chosen] += 3
    path = write_predictions(task, manifest(split), split, logits_RC, tmp_path)
    assert path == tmp_path / FILES[name][split]
    wanted = [[str(row), LABELS[name][number]] for row, number in enumerate(chosen)]
    assert rows_of(path) == [["index", "prediction"], *wanted]
    assert [path.name] == [file.name for file in tmp_path.iterdir()]


def test_scores_stay_on_the_scale(tmp_path: Path) -> None:
    logits_RC = np.array([[-1.0], [0.0], [2.71828], [5.0004], [1e9]], dtype=np.float32)
    path = write_predictions(find_task("STS-B"), manifest(TEST), TEST, logits_RC, tmp_path)
    assert [text for _, text in rows_of(path)[1:]] == ["0.000", "0.000", "2.718", "5.000", "5.000"]
    assert answers(find_task("STS-B"), logits_RC).tolist() == logits_RC[:, 0].tolist()  # metrics see them unclipped


@pytest.mark.parametrize("left_out", [{"broken": 1}, {"unlabelled": 2}])
def test_a_test_set_with_rows_left_out_is_refused(tmp_path: Path, left_out: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"test\.tsv of QQP has rows .* left out.*fetch the file again") as error:
        write_predictions(find_task("QQP"), manifest(TEST, **left_out), TEST, np.zeros((3, 2), np.float32), tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_the_zip_holds_the_files_there_are_and_names_the_rest(tmp_path: Path) -> None:
    everything = {name for files in FILES.values() for name in files.values()}
    folders = {}
    for task in TASKS.values():
        folders[task.name] = tmp_path / task.name
        folders[task.name].mkdir()
    for name in ("RTE.tsv", "AX.tsv"):
        (tmp_path / ("MNLI" if name == "AX.tsv" else "RTE") / name).write_text(f"of {name}\n")
    (tmp_path / "RTE" / "model.pt").write_text("no part of it")
    missing = zip_submission(folders, tmp_path / "submission.zip")
    assert sorted(missing) == sorted(everything - {"RTE.tsv", "AX.tsv"})
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        assert {name: archive.read(name).decode() for name in archive.namelist()} == {
            "RTE.tsv": "of RTE.tsv\n",
            "AX.tsv": "of AX.tsv\n",
        }
    for task_name, files in FILES.items():
        for name in files.values():
            (tmp_path / task_name / name).write_text("")
    assert zip_submission(folders, tmp_path / "submission.zip") == []
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        assert set(archive.namelist()) == everything
    assert sorted(zip_submission({}, tmp_path / "submission.zip")) == sorted(everything)
    assert not list(tmp_path.glob("*.part"))
