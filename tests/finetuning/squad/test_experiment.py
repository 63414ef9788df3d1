"""SQuAD in one command, from a pre-training checkpoint and official files to predictions and records."""

import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from hmtl_plugin.checkpoints import load_checkpoint
from hmtl_plugin.errors import UserError
from hmtl_plugin.finetuning.squad import FILES
from hmtl_plugin.squad.files import read_squad
from hmtl_plugin.squad.scoring import evaluate
from tests.commands.running import run_script
from tests.finetuning.squad.runs import named_words
from tests.finetuning.squad.texts import entry, write
from tests.training.runs import PLUGIN, ROOT, run, train

GRID = "lr=3e-3,batch-size=16,epochs=1"
CELL = f"{GRID},tokens-per-sample=40,doc-stride=13,autocast=none"
METRICS = {
    "1.1": {"exact", "f1", "random_exact", "random_f1"},
    "2.0": {"half_f1", "half_exact", "half_always_f1", "half_never_f1", "best_f1", "best_exact", "threshold"},
}


def train_here(options: list[str], folder: Path, processes: int, on_update: Callable[[int], None]) -> None:
    """Stands in for `fairseq_train`: the same in this process, without seconds of imports."""
    try:
        train([*options, "--user-dir", PLUGIN, "--cpu", "--save-dir", str(folder)])
    except SystemExit as error:
        raise UserError(str(error.code).removeprefix("error: ")) from None


def finetune(start: Path, train_file: Path, dev_file: Path, *options: str) -> None:
    """The script in this process; ``options`` come last."""
    run_script(
        "finetune_squad",
        *(start.parent, "--train", train_file, "--dev", dev_file, "--tokens-per-sample", "40", "--doc-stride", "13"),
        *("--workers", "1", "--autocast", "none", "--grid", *GRID.split(","), *options),
    )


class Finished(NamedTuple):
    """What the script left; ``out`` beside the checkpoint."""

    version: str
    start: Path
    files: tuple[Path, Path]

    @property
    def out(self) -> Path:
        return self.start.parent / ("squad2" if self.version == "2.0" else "squad")

    def read(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.out / name).read_text(encoding="utf-8"))
        return content

    def record(self) -> dict[str, Any]:
        lines = (self.start.parent / "results.jsonl").read_text().splitlines()
        assert len(lines) == 1
        return dict(json.loads(lines[0]))

    def again(self, *options: str) -> None:
        finetune(self.start, *self.files, *options, *(["--version-2"] if self.version == "2.0" else []))


@pytest.fixture(scope="module", params=["1.1", "2.0"])
def finished(pretrained: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One run of one epoch. Not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "books").mkdir()
    start = Path(shutil.copy(pretrained, folder / "books"))
    second = request.param == "2.0"
    files = named_words(folder / "train.json", 0, 60, second), named_words(folder / "dev.json", 1, 20, second)
    found = Finished(request.param, start, files)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hmtl_plugin.finetuning.experiment.fairseq_train", train_here)
        found.again()
    return found


def test_official_files_hold_every_question(finished: Finished) -> None:
    file = read_squad(finished.files[1])
    predicted, nbest, odds = (finished.read(name) for name in FILES)
    threshold = load_checkpoint(finished.out / "model.pt").finetuning["no_answer_threshold"]
    assert threshold == (finished.record()["metrics"]["threshold"] if finished.version == "2.0" else math.inf)
    assert list(predicted) == list(nbest) == list(odds) == [question.id for question in file.questions]
    for question in file.questions:
        answers, margin = nbest[question.id], odds[question.id]
        assert sum(answer["probability"] for answer in answers) == pytest.approx(1)
        scores = np.array([answer["start_logit"] + answer["end_logit"] for answer in answers])
        assert (np.diff(scores) <= 0).all()
        shares = np.exp(scores - scores.max())
        assert [answer["probability"] for answer in answers] == pytest.approx((shares / shares.sum()).tolist())
        texts = [answer["text"] for answer in answers]
        assert len(set(texts)) == len(texts) <= 21
        assert all(text in file.contexts[question.context] for text in texts)
        assert ("" in texts) == (finished.version == "2.0")
        spoken = [text for text in texts if text]
        assert predicted[question.id] == (spoken[0] if margin <= threshold else "")
        if finished.version == "2.0":
            best = next(score for score, text in zip(scores, texts, strict=True) if text)
            assert margin == pytest.approx(scores[texts.index("")] - best, abs=1e-4)
    if finished.version == "2.0":
        assert 0 < list(predicted.values()).count("") < len(predicted)  # else nothing is told apart


def test_the_record(finished: Finished) -> None:
    record = finished.record()
    task = f"SQuAD {finished.version}"
    assert record.items() >= {
        "kind": "squad", "task": task, "variant": "books", "split": "valid", "layer": 2, "pooling": None, "seed": 1,
        "hierarchy": "bigram_shift@1,nsp@1,mlm@2", "checkpoint": str(finished.start),
    }.items()  # fmt: skip
    trained = {"lr": 3e-3, "batch-size": 16, "epochs": 1, "autocast": "none", "options": []}
    windows = {"tokens-per-sample", "doc-stride", "max-question-tokens", "max-answer-tokens"}
    assert {name: value for name, value in record["hyper"].items() if name not in windows} == trained
    assert windows < set(record["hyper"])
    metrics = record["metrics"]
    assert set(metrics) == {"score", "low", "high", "baseline", *METRICS[finished.version]}
    assert metrics["low"] <= metrics["score"] <= metrics["high"]
    scores = evaluate(finished.read("predictions.json"), read_squad(finished.files[1]).questions)
    if finished.version == "1.1":
        assert (metrics["exact"], metrics["f1"]) == pytest.approx((scores["exact"], scores["f1"]))
    else:
        assert metrics["best_f1"] == pytest.approx(scores["f1"])


def test_what_is_left(finished: Finished) -> None:
    folder = finished.out / CELL / "seed1"
    assert {path.name for path in folder.iterdir()} - {".lock"} == {*FILES, "model.pt", "outcome.json"}
    for name in (*FILES, "model.pt"):
        assert (finished.out / name).read_bytes() == (folder / name).read_bytes()
    assert {path.name for path in finished.out.iterdir()} == {*FILES, "model.pt", "published.json", "data", CELL}


def test_the_same_command_again_trains_nothing(
    finished: Finished, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hmtl_plugin.finetuning.experiment.fairseq_train", None)
    files = [finished.start.parent / "results.jsonl", *(finished.out / name for name in (*FILES, "model.pt"))]
    before = [path.read_bytes() for path in files]
    finished.again()
    assert [path.read_bytes() for path in files] == before
    said = capsys.readouterr().out
    assert f"{finished.out}: best run {CELL}/seed1\n" in said
    assert f"SQuAD {finished.version}" in said and f"{finished.record()['metrics']['score']:.1f}" in said


@pytest.mark.parametrize("options", ["--doc-stride 14", "--max-answer-tokens 5", "--max-question-tokens 9"])
def test_other_windows_are_other_runs(finished: Finished, monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    def fairseq_train(given: list[str], *rest: Any) -> None:
        assert options in " ".join(given)
        raise KeyboardInterrupt

    monkeypatch.setattr("hmtl_plugin.finetuning.experiment.fairseq_train", fairseq_train)
    monkeypatch.setattr("hmtl_plugin.finetuning.experiment.Run.begin", lambda run: None)
    with pytest.raises(KeyboardInterrupt):
        finished.again(*options.split())


@pytest.fixture
def start(pretrained: Path, tmp_path: Path) -> Path:
    (tmp_path / "books").mkdir()
    return Path(shutil.copy(pretrained, tmp_path / "books"))


def refused(start: Path, train_file: Path, dev_file: Path, *options: str) -> str:
    with pytest.raises(UserError) as error:
        finetune(start, train_file, dev_file, *options)
    assert "\n" not in str(error.value)
    assert not (start.parent / "results.jsonl").exists()
    return str(error.value)


def test_files_that_cannot_be_used(start: Path, tmp_path: Path) -> None:
    good = named_words(tmp_path / "good.json", 0, 4)
    twice = write(tmp_path / "twice.json", [[("a cat", [entry(7, [("cat", 2)])] * 2)]])
    elsewhere = write(tmp_path / "elsewhere.json", [[("a cat", [entry(7, [("cat", 1)])])]])
    hidden = write(tmp_path / "hidden.json", [[("a cat", [entry(7, [])])]])
    (tmp_path / "empty.json").write_text("")
    for files, message in (
        ((twice, good), f"{twice}: question id q7 occurs twice"),
        ((good, twice), f"{twice}: question id q7 occurs twice"),
        ((elsewhere, good), f'{elsewhere}: question q7: the answer "cat" is not at its answer_start 1'),
        ((good, tmp_path / "empty.json"), f"{tmp_path / 'empty.json'}: is empty"),
        ((good, hidden), f"{hidden}: its questions have no answers"),
        ((good, tmp_path / "none.json"), f"{tmp_path / 'none.json'}: cannot be read"),
    ):
        assert refused(start, *files).startswith(message)
        assert not (start.parent / "squad").exists()


def test_options_that_cannot_work(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hmtl_plugin.finetuning.experiment.fairseq_train", train_here)
    first, second = named_words(tmp_path / "1.json", 0, 4), named_words(tmp_path / "2.json", 0, 4, impossible=True)
    assert "as in SQuAD 2.0: add --version-2" in refused(start, first, second)
    assert not (start.parent / "squad").exists()
    for options, message in (
        ("--tokens-per-sample 65", f"--tokens-per-sample 65 is more than the 64 positions of {start}: give"),
        ("--doc-stride 39", "--doc-stride 39 leaves gaps between windows"),
        ("--max-question-tokens 0", "--max-question-tokens 0: use 1 or more"),
        ("--max-answer-tokens 0", "--max-answer-tokens 0: use 1 or more"),
        ("--grid head-pooling=cls", "'head-pooling' is no option of a grid"),
    ):
        assert message in refused(start, first, first, *options.split())


def test_an_error_is_one_line_and_status_1(start: Path, tmp_path: Path) -> None:
    good = named_words(tmp_path / "good.json", 0, 4)
    (tmp_path / "empty.json").write_text("")
    command = [sys.executable, str(ROOT / "scripts" / "finetune_squad.py"), str(start)]
    result = run([*command, "--train", str(tmp_path / "empty.json"), "--dev", str(good), "--tokens-per-sample", "40"])
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {tmp_path / 'empty.json'}: is empty")
    assert result.stderr.count("\n") == 1


def test_sequences_longer_than_those_of_pre_training(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hmtl_plugin.finetuning.experiment.fairseq_train", train_here)
    path = named_words(tmp_path / "1.json", 0, 10, longest=90)
    finetune(start, path, path, "--tokens-per-sample", "80", "--resize-positions")
    model = load_checkpoint(start.parent / "squad" / "model.pt").model
    assert model.max_positions() == 80
