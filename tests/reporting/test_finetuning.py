"""Tables of fine-tuning results: which cell is shown, its interval, the averages."""

import re
from pathlib import Path
from typing import Any

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.reporting.finetuning import Line, glue_table, interval, squad_table, summarise
from hmtl_plugin.reporting.text_table import text_table
from hmtl_plugin.results import append_results
from tests.commands.running import run_script

BOTH = {"GLUE": "no GLUE results yet", "SQuAD": "no SQuAD results yet"}


def line(score: float, seed: int = 1, lr: float = 1e-4, half: float = 4.0, **changes: Any) -> Line:
    metrics = {"accuracy": score, "score": score, "low": score - half, "high": score + half, "baseline": 50.0}
    hyper = {"lr": lr, "batch-size": 32, "options": []}
    shared = {"kind": "glue", "variant": "books", "task": "RTE", "seed": seed, "hyper": hyper, "metrics": metrics}
    return shared | changes


def row_of(table: str, *starts: str) -> list[str]:
    """Cells of the only row that begins with these."""
    rows = [re.split(r"\s{2,}", text) for text in table.split("\n")]
    (found,) = [row for row in rows if row[: len(starts)] == list(starts)]
    return found


def test_the_cell_with_the_best_median_is_chosen() -> None:
    lucky = [line(score, seed, lr=1e-4) for seed, score in enumerate((50, 60, 99))]  # mean 69.7
    steady = [line(score, seed, lr=3e-4) for seed, score in enumerate((61, 62, 63))]
    for lines in ([*lucky, *steady], [*steady, *lucky]):
        (summary,) = summarise(lines)
        assert (summary.hyper["lr"], summary.median, summary.mean) == (3e-4, 62, 62)
        assert summary.sd == pytest.approx(1)
        assert summary.baseline == 50
        assert summary.average("accuracy") == 62
        assert len(summary.lines) == 3


def test_a_seed_that_was_recorded_twice_counts_once_with_its_last() -> None:
    (summary,) = summarise([line(10, 1), line(70, 2), line(60, 1)])
    assert sorted(kept["metrics"]["score"] for kept in summary.lines) == [60, 70]
    assert summary.mean == 65


def test_variants_and_tasks_are_apart() -> None:
    lines = [line(60), line(70, variant="flat"), line(80, task="MRPC")]
    found = {(summary.variant, summary.task): summary.mean for summary in summarise(lines)}
    assert found == {("books", "RTE"): 60, ("flat", "RTE"): 70, ("books", "MRPC"): 80}


def test_options_passed_on_are_part_of_a_cell() -> None:
    other = line(70) | {"hyper": {"lr": 1e-4, "batch-size": 32, "options": ["--dropout", "0"]}}
    (summary,) = summarise([line(60), other])
    assert len(summary.lines) == 1
    assert summary.mean == 70


def test_results_of_a_checkpoint_that_is_gone_do_not_count() -> None:
    lines = [line(90, 1, checkpoint_sha256="old"), line(90, 2, checkpoint_sha256="old")]
    (summary,) = summarise([*lines, line(60, 1, checkpoint_sha256="new")])
    assert summary.mean == 60


def test_the_interval_by_hand() -> None:
    assert interval([line(60, half=4)]) == pytest.approx((56, 64))  # one seed tells nothing of seeds
    # scores 58, 60, 62: sd 2, standard error 2 / sqrt(3), Student's t with 2 degrees of freedom 4.302653
    seeds = 4.302653 * 2 / 3**0.5
    lines = [line(58, 1, half=3), line(60, 2, half=4), line(62, 3, half=5)]
    half = (4**2 + seeds**2) ** 0.5
    assert half == pytest.approx(6.3784, abs=1e-4)
    assert interval(lines) == pytest.approx((60 - half, 60 + half), abs=1e-5)
    assert interval([line(60, seed, half=2) for seed in range(5)]) == pytest.approx((58, 62))


def test_the_glue_table_says_whether_the_baseline_is_beaten() -> None:
    lines = [line(60, 1), line(62, 2), line(53, task="MRPC"), line(70, task="CoLA", half=1.25)]
    table = glue_table(lines)
    tasks = [text.split()[0] for text in table.split("\n")[2:5]]
    assert tasks == ["CoLA", "MRPC", "RTE"]  # in the order of GLUE, not of the store
    half = (4**2 + (12.7062 * 2**0.5 / 2**0.5) ** 2) ** 0.5  # t with 1 degree of freedom
    assert row_of(table, "RTE") == ["RTE", "books", "61.0", "1.4", "2", "61.0", f"{61 - half:.1f} to {61 + half:.1f}",
                                    "50.0", "no", "accuracy 61.0", "lr=0.0001 batch-size=32"]  # fmt: skip
    assert row_of(table, "MRPC")[3:9] == ["-", "1", "53.0", "49.0 to 57.0", "50.0", "no"]
    assert row_of(table, "CoLA")[6:9] == ["68.8 to 71.2", "50.0", "yes"]


def test_averages_with_and_without_wnli() -> None:
    lines = [line(60), line(80, task="CoLA"), line(10, task="WNLI"), line(99, task="SNLI")]
    lines += [line(30, task="WNLI", variant="flat"), line(90, task="SNLI", variant="other")]
    table = glue_table(lines).split("\n\n")[1]
    assert row_of(table, "books") == ["books", "50.0", "70.0", "3"]
    assert row_of(table, "flat") == ["flat", "30.0", "-", "1"]
    assert "other" not in table  # SNLI is no part of GLUE


def test_a_store_of_other_things() -> None:
    others = [{"kind": "pretrain"}, {"kind": "speed", "metrics": {}}]
    assert glue_table(others) == BOTH["GLUE"]
    assert squad_table([*others, line(60)]) == BOTH["SQuAD"]
    squad = line(70, kind="squad", task="SQuAD 1.1")
    assert row_of(squad_table([line(60), squad]), "SQuAD 1.1")[2] == "70.0"
    assert "SQuAD" not in glue_table([line(60), squad])


def test_a_table_is_as_wide_as_its_longest_cells() -> None:
    assert text_table(["a", "long"], [["wide", "b"], ["c", ""]]).split("\n") == [
        "a     long",
        "----  ----",
        "wide  b",
        "c",
    ]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    append_results(tmp_path / "one" / "results.jsonl", [line(60)])
    append_results(tmp_path / "two.jsonl", [line(70, variant="flat")])
    (tmp_path / "empty.jsonl").touch()
    run_script("results", tmp_path / "one", tmp_path / "two.jsonl")
    table = capsys.readouterr().out
    assert row_of(table, "RTE", "books")[2] == "60.0"
    assert row_of(table, "RTE", "flat")[2] == "70.0"
    assert BOTH["SQuAD"] in table
    append_results(tmp_path / "other" / "results.jsonl", [line(80, checkpoint_sha256="another")])
    run_script("results", tmp_path / "one", tmp_path / "other", tmp_path / "two.jsonl")  # two are called books
    table = capsys.readouterr().out
    assert row_of(table, "RTE", f"books ({tmp_path / 'one'})")[2] == "60.0"
    assert row_of(table, "RTE", f"books ({tmp_path / 'other'})")[2] == "80.0"
    assert row_of(table, "RTE", "flat")[2] == "70.0"
    append_results(tmp_path / "again" / "results.jsonl", [line(64, seed=2)])
    for store in ("one", "again"):  # as evaluate.py leaves them
        append_results(tmp_path / store / "results.jsonl", [{"kind": "pretrain", "task": "mlm", "metrics": {}}])
    run_script("results", tmp_path / "one", tmp_path / "again")  # two seeds of one checkpoint
    assert row_of(capsys.readouterr().out, "RTE", "books")[2:5] == ["62.0", "2.8", "2"]
    run_script("results", tmp_path / "empty.jsonl")
    assert capsys.readouterr().out == f"GLUE\n\n{BOTH['GLUE']}\n\nSQuAD\n\n{BOTH['SQuAD']}\n"
    with pytest.raises(UserError, match=f"^{tmp_path}/results.jsonl: no such store of results"):
        run_script("results", tmp_path)
