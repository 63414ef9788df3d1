"""The evaluation's own view: the same for all models, whatever their training options; older records are read."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder

from hmtl_plugin.checkpoints import LoadedCheckpoint, load_checkpoint
from hmtl_plugin.counting import training_text
from hmtl_plugin.errors import UserError
from hmtl_plugin.evaluation.held_out import FIXED, TRAINING, Estimate, evaluate
from tests.commands.running import run_script
from tests.training.runs import arguments, error_of, make_data, train

OTHER_OPTIONS = {
    "mask_prob": 0.4,
    "mask_scheme": "ngram",
    "tokens_per_sample": 24,
    "short_seq_prob": 0.9,
    "bigram_rate": 0.5,
    "bigram_unit": "piece",
    "bigram_any_word": True,
    "valid_seed": 9,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), documents=120)


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two trainings that differ in every option of the samples."""
    folder = tmp_path_factory.mktemp("runs")
    other = [f"--{name.replace('_', '-')}" + ("" if v is True else f"={v}") for name, v in OTHER_OPTIONS.items()]
    for name, extra in (("one", []), ("other", [*other, "--bigram-granularity", "both", "--pack"])):
        train(arguments(data, folder / name, "--max-update", "2", "--disable-validation", *extra))
    return [folder / "one", folder / "other"]


def known(estimates: list[Estimate]) -> dict[str, tuple[object, ...]]:
    """What does not depend on the model."""
    return {e.target: (e.metric, e.baseline, e.samples, e.counts, e.sizes) for e in estimates}


def test_the_view_is_the_same_for_two_trainings(data: Path, runs: list[Path]) -> None:
    fixed, training = (
        [known(evaluate(load_checkpoint(run), data, samples=300, view=view)) for run in runs]
        for view in (FIXED, TRAINING)
    )
    for name in ("mlm", "nsp"):
        assert fixed[0][name] == fixed[1][name]
        assert training[0][name] != training[1][name] != fixed[1][name]
    assert set(fixed[1]) - set(fixed[0]) == {"bigram_shift_sentence"}, "heads and targets are the checkpoint's"


def test_the_view_does_not_depend_on_training_options(data: Path, runs: list[Path]) -> None:
    """To the last digit, with the same weights."""

    def values(**options: object) -> list[Estimate]:
        checkpoint = load_checkpoint(runs[0])
        checkpoint.config["task"] |= options
        return evaluate(checkpoint, data, samples=300)

    assert values() == values(**OTHER_OPTIONS, pairing="single", pack=True, seed=8)


def test_counts_are_made_once_for_all_runs(data: Path, runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    for name in ("BigramCounts", "PairCounts"):
        original = getattr(training_text, name)
        monkeypatch.setattr(
            training_text, name, lambda *a, name=name, original=original: made.append(name) or original(*a)
        )
    training_text._last_text.clear()
    for options in ({}, OTHER_OPTIONS):
        checkpoint = load_checkpoint(runs[0])
        checkpoint.config["task"] |= options
        evaluate(checkpoint, data, samples=20)
    assert sorted(made) == ["BigramCounts", "PairCounts"]


def test_a_model_too_short_for_the_view(data: Path, tmp_path: Path) -> None:
    short = ["--max-update", "1", "--max-positions", "40", "--disable-validation"]
    train(arguments(data, tmp_path / "run", *short))
    checkpoint = load_checkpoint(tmp_path / "run")
    with pytest.raises(UserError, match=r"holds 40 positions.* give --view training") as caught:
        evaluate(checkpoint, data, samples=20)
    assert "\n" not in str(caught.value)
    assert {e.target for e in evaluate(checkpoint, data, samples=20, view=TRAINING)} == {"mlm", "nsp", "bigram_shift"}


def test_sentence_order_has_its_own_pairs_and_no_counts(data: Path, tmp_path: Path) -> None:
    sop = ["--hierarchy", "sop@1,mlm@2", "--transfer", "", "--max-update", "1", "--disable-validation"]
    train(arguments(data, tmp_path / "run", *sop))
    checkpoint: LoadedCheckpoint = load_checkpoint(tmp_path / "run")
    found = {e.target: e for e in evaluate(checkpoint, data, samples=50)}
    assert found["sop"].counts is None and found["sop"].sizes is None and found["sop"].beats_counts is None
    assert found["mlm"].counts is not None


@pytest.mark.parametrize(
    ("metric", "interval", "counts", "beats"),
    [
        ("loss", (4.0, 4.2), 4.3, True),
        ("loss", (4.0, 4.2), 4.1, False),
        ("bits", (1.0, 1.2), 0.9, False),
        ("accuracy", (80.0, 82.0), 79.2, True),
        ("accuracy", (70.0, 82.0), 79.2, False),
        ("auc", (0.5, 0.6), None, None),
    ],
)
def test_counts_are_beaten_by_a_whole_interval(
    metric: str, interval: tuple[float, float], counts: float | None, beats: bool | None
) -> None:
    estimate = Estimate("any", metric, sum(interval) / 2, *interval, 50.0, 10, counts)
    assert estimate.beats_counts is beats


def test_records_of_before(data: Path, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that knows no view is of training; its counts were called bigrams. It never answers for the fixed view."""
    store = tmp_path / "results.jsonl"
    command = ["evaluate", runs[0], "--data", data, "--samples", "20", "--results", store]
    run_script(*command, "--view", "training")
    shown = capsys.readouterr().out
    assert "beats counts" in shown and "(majority; sizes " in shown
    lines = [json.loads(line) for line in store.read_text().splitlines()]
    for line in lines:
        assert line["hyper"].pop("view") == TRAINING
        assert line["metrics"].pop("sizes", 0.0) is None or line["task"] == "nsp"
        counts = line["metrics"].pop("counts")
        line["metrics"] |= {"bigrams": None if line["task"] == "nsp" else counts, "value": 0.123}
    store.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run_script(*command, "--view", "training")
    old = capsys.readouterr().out
    assert old.count("0.123") == 2 and len(store.read_text().splitlines()) == len(lines), "was measured again"
    row = next(line for line in old.splitlines() if " mlm " in line)
    assert row.split()[-3] == next(line for line in shown.splitlines() if " mlm " in line).split()[-3]
    run_script(*command)
    assert "0.123" not in capsys.readouterr().out
    views = [json.loads(line)["hyper"].get("view") for line in store.read_text().splitlines()[len(lines) :]]
    assert views and set(views) == {FIXED}


def one_sentence_documents(folder: Path, split: str, documents: int = 300) -> None:
    rng = np.random.default_rng(0)
    builder = MMapIndexedDatasetBuilder(str(folder / f"{split}.bin"), dtype=np.uint16)
    for _ in range(documents):
        builder.add_item(torch.tensor([*rng.integers(4, 52, 9).tolist(), 2]))
        builder.add_item(torch.tensor([2]))
    builder.finalize(str(folder / f"{split}.idx"))


def test_an_objective_without_targets_in_held_out_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The others have their values, and the log says why there is no row."""
    data = make_data(tmp_path / "data", documents=40)
    one_sentence_documents(data, "valid")
    sop = ["--hierarchy", "sop@2,mlm@2", "--transfer", "", "--max-update", "1"]
    train(arguments(data, tmp_path / "run", *sop))
    run_script("evaluate", tmp_path / "run", "--data", data, "--samples", "50")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert next(row[1] for row in rows if row[:1] == [str(tmp_path / "run")]) == "mlm"
    assert not any("sop" in row for row in rows)
    assert "no row sop: none of the samples of 'valid' holds such a target" in caplog.text


def test_without_any_target_there_is_no_best_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No loss is not a loss of 0, which none that has targets would ever be below."""
    data = make_data(tmp_path / "data", documents=40)
    one_sentence_documents(data, "valid")
    sop = ["--hierarchy", "sop@2", "--transfer", "", "--max-update", "4", "--validate-interval-updates", "2"]
    lines = train(arguments(data, tmp_path / "run", *sop))
    assert any(math.isnan(line["valid_loss"]) for line in lines if "valid_loss" in line)
    assert [path.name for path in (tmp_path / "run").glob("*.pt")] == ["checkpoint_last.pt"]
    assert f"{data}/valid: every document is one sentence: sop has no target there" in caplog.text
    one_sentence_documents(data, "train")
    message = error_of(arguments(data, tmp_path / "other", *sop))
    assert f"{data}/train: every document is one sentence, of which sop learns nothing" in message
