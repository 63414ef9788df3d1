"""The benchmarks of preparation, fine-tuning and probing measure what they say, and the targets are of rows that exist."""

import sys
import time
from argparse import Namespace
from pathlib import Path

import glue_prepare
import pytest
import turns
from record import Record, Recorder, Row
from targets import read_targets

from hmtl_plugin.errors import UserError
from hmtl_plugin.study.toy import write_toy_data
from tests.benchmarks.test_training import record_of


@pytest.fixture(scope="module")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up tasks."""
    return write_toy_data(tmp_path_factory.mktemp("data") / "toy")


def _has_all_targets(benchmark: str, rows: list[str]) -> None:
    for target in (target for target in read_targets() if target.benchmark == benchmark):
        assert any(target.concerns(benchmark, "cpu", what) for what in rows), target


def test_systems_take_turns() -> None:
    order: list[str] = []

    def run(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = turns.interleaved({"a": lambda: run("a"), "b": lambda: run("b")}, 2)
    assert order == ["a", "b", "a", "b"]
    assert found == {"a": [1.0, 3.0], "b": [2.0, 4.0]}


def test_start_is_left_out() -> None:
    seconds = {"ours": [5.0, 7.0], "ours start": [2.0, 1.0, 30.0]}
    assert turns.without_start(seconds, "ours") == [3.0, 5.0]
    with pytest.raises(UserError, match="give more"):
        turns.without_start({"ours": [5.0, 1.9], "ours start": [2.0]}, "ours")


def test_commands_are_timed_and_their_failure_is_told() -> None:
    began = time.perf_counter()
    seconds = turns.timed([sys.executable, "-c", "import time; time.sleep(0.2)"])
    assert 0.2 <= seconds <= time.perf_counter() - began
    with pytest.raises(UserError, match="failed: no such luck"):
        turns.timed([sys.executable, "-c", "raise SystemExit('no such luck')"])


def test_glue_row() -> None:
    seconds = {"ours": [4.0], "ours start": [2.0], "peer": [60.0], "peer start": [20.0]}
    row = glue_prepare.row(seconds, 10_000_000)
    assert row.value == 5e6
    assert row.ratio == pytest.approx(20)
    assert row.details["times better with start-up"] == 15
    _has_all_targets("glue_prepare", [row.what])


def test_both_ways_of_preparing_glue_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glue_prepare, "Sample", lambda *_, **__: Namespace(bytes=1))
    monkeypatch.setattr(glue_prepare, "make_checkpoint", lambda *_: (tmp_path, tmp_path, tmp_path))
    for name in ("prepare", "peer"):
        monkeypatch.setattr(glue_prepare, name, lambda *_: 1.0)
    monkeypatch.setattr(glue_prepare, "differences", lambda _: ["QQP/label/train"])
    recorder = Recorder("glue_prepare", None)
    with pytest.raises(UserError, match="do not write the same: QQP/label/train"):
        glue_prepare.measure(recorder, tmp_path, tmp_path, 1, 1)
    assert not recorder.rows


@pytest.mark.slow
def test_squad_features(tmp_path: Path, toy_data: Path) -> None:
    pytest.importorskip("transformers")
    file = str(toy_data / "squad" / "dev-v1.1.json")
    options = "--vocab-size 400 --max-tokens 64 --stride 24 --repeats 1".split()
    rows = record_of(tmp_path, "squad_features", file, *options)["rows"]
    _has_all_targets("squad_features", [row["what"] for row in rows])
    assert all(row["ratio"] > 0 and row["details"]["of them with an answer"] > 0 for row in rows)


@pytest.mark.slow
def test_finetuning(tmp_path: Path, toy_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    import finetune

    monkeypatch.setattr(finetune, "PIECES", 400)
    record = tmp_path / "record.json"
    command = ["finetune.py", "--glue-dir", str(toy_data / "glue"), "--size", "tiny", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", [*command, "--json", str(record)])
    finetune.main()
    read = Record.read(record)
    assert read.finished
    assert [row.what for row in read.rows] == ["one epoch of RTE with validation, tiny, batch 32, fp32"]
    assert read.rows[0].value > 0.1 and read.rows[0].ratio  # seconds of training, as each logs them
    _has_all_targets("finetune", [row.what for row in read.rows])


@pytest.mark.slow
def test_probing(tmp_path: Path, toy_data: Path) -> None:
    file = toy_data / "probing" / "bigram_shift.txt"
    options = "--size tiny --precisions none --vocab-size 400".split()
    rows = record_of(tmp_path, "probing", str(file), *options)["rows"]
    _has_all_targets("probing", [row["what"] for row in rows])
    by_name = {row["what"]: row for row in rows}
    one, many = (
        by_name[f"features of all layers, tiny, fp32, against {n}"] for n in ("the loop's one", "as many loops")
    )
    assert many["ratio"] == pytest.approx(3 * one["ratio"])  # two layers and the embeddings
    regressions = by_name["logistic regressions of all layers, tiny"]
    assert regressions["details"]["largest difference of accuracies (points)"] < 10
    assert by_name["peak anonymous memory of a whole probing, ten times the rows"]["ours"] > 50e6


def test_rows_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder("squad_features", None)
    recorder.add(Row("SQuAD file to features, against X", "s", (0.5,), "lower", (1.5, 1.6), "X"))
    recorder.add(Row("alone", "s", (0.5,)))
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        "SQuAD file to features, against X: 500 ms (one run) | X: 1.55 s (1.5 to 1.6, 2 runs): 3.1x | at least 2x: met"
    )
    assert second == "alone: 500 ms (one run)"
