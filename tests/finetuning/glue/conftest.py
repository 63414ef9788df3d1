"""Shared by the tests of this folder."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.finetuning.conftest import WORDS
from tests.finetuning.glue.runs import GRID, STS_CELL, Trainer, finetune


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    trainer = Trainer()
    monkeypatch.setattr("hmtl_plugin.finetuning.experiment.fairseq_train", trainer)
    return trainer


@pytest.fixture(scope="session")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RTE: is there a bird in both? STS-B: how many words do they share? MNLI with all its sets. Test labels are
    hidden.
    """
    folder, random = tmp_path_factory.mktemp("glue"), np.random.default_rng(0)

    def rows(count: int, label: Any) -> list[str]:
        pairs = [[random.choice(WORDS, random.integers(1, 9)).tolist() for _ in range(2)] for _ in range(count)]
        return [f"{i}\t{' '.join(a)}\t{' '.join(b)}\t{label(a, b)}".rstrip("\t") for i, (a, b) in enumerate(pairs)]

    def write(task: str, name: str, header: str, lines: list[str]) -> None:
        (folder / task).mkdir(exist_ok=True)
        columns = ["index", "sentence1", "sentence2", *([header] if header else [])]
        (folder / task / f"{name}.tsv").write_text("\n".join(["\t".join(columns), *lines]) + "\n")

    labels = {
        "RTE": ("label", lambda a, b: "entailment" if "birds" in a + b else "not_entailment"),
        "STS-B": ("score", lambda a, b: f"{min(5, len(set(a) & set(b)) + 0.5):.2f}"),
        "MNLI": ("gold_label", lambda a, b: ("neutral", "entailment", "contradiction")[len(a) % 3]),
    }
    sizes = {"train": 48, "dev": 19, "dev_matched": 11, "dev_mismatched": 13}
    for task, (header, label) in labels.items():
        for name in ("train", "dev") if task != "MNLI" else ("train", "dev_matched", "dev_mismatched"):
            write(task, name, header, rows(sizes[name], label))
    for task, name, count in (("RTE", "test", 7), ("MNLI", "test_matched", 5), ("MNLI", "diagnostic", 6)):
        write(task, name, "", rows(count, lambda a, b: ""))
    return folder


@pytest.fixture(scope="session")
def finished(pretrained: Path, glue: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and beside it what two cells with two seeds on RTE leave, and one run on STS-B. Not to be changed."""
    start = tmp_path_factory.mktemp("finished") / "books" / "checkpoint_last.pt"
    start.parent.mkdir()
    shutil.copy(pretrained, start)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hmtl_plugin.finetuning.experiment.fairseq_train", Trainer())
        finetune(start, glue, "RTE", *GRID, "--seeds", "1,2")
        finetune(start, glue, "STS-B", "--grid", *STS_CELL.split(",")[:3], "--seeds", "1")
    return start


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    shutil.copytree(finished.parent, tmp_path / "books")
    return tmp_path / "books" / finished.name


@pytest.fixture
def start(pretrained: Path, tmp_path: Path) -> Path:
    """A checkpoint in an empty folder."""
    (tmp_path / "books").mkdir()
    return Path(shutil.copy(pretrained, tmp_path / "books"))
