"""Sentences and tables say no more than the numbers do."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hmtl_plugin.reporting.study import about, tables
from hmtl_plugin.reporting.study.collect import read_study
from hmtl_plugin.reporting.study.findings import findings
from hmtl_plugin.reporting.study.statistics import Comparison, compare
from hmtl_plugin.reporting.study.study import PRIMARY, PROBES, StudyReport
from tests.reporting.study.made_up import REFERENCE, STAGES, change, write_study

EFFECTS = {"random": -3.0, "flat": 0.0, "shift-lowest": 0.5, "hierarchy": 1.0}


def sentences(study: StudyReport) -> str:
    return "\n".join(findings(study, compare(study)))


def written(folder: Path, effects: dict[str, float] = EFFECTS, **options: Any) -> StudyReport:
    return read_study(write_study(folder, effects, **options))


def column(table: tables.Table, name: str) -> dict[str, str]:
    place = table.header.index(name)
    return {row[0]: row[place] for row in table.rows}


def test_the_untrained_encoder_is_judged_by_what_was_measured(tmp_path: Path) -> None:
    text = sentences(written(tmp_path / "all"))
    assert "flat less the encoder that was never trained" in text and "RTE (+3." in text
    skip = [(name, seed, stage) for name in EFFECTS for seed in (1, 2, 3) for stage in STAGES[2:]]
    begun = sentences(written(tmp_path / "begun", skip=skip))
    assert "less the encoder" not in begun and "comparisons" in begun  # nothing was fine-tuned yet


def test_few_seeds_cannot_give_a_p_that_survives_and_the_report_says_so(tmp_path: Path) -> None:
    assert "No permutation test of so few seeds can give a p below 0.031" in sentences(
        written(tmp_path / "six", seeds=range(1, 7))
    )
    for count in (3, 12):  # no test at all; one that can
        assert "No permutation" not in sentences(written(tmp_path / str(count), seeds=range(1, count + 1)))


def test_what_is_no_number_is_named(tmp_path: Path) -> None:
    def diverge(line: dict[str, Any]) -> None:
        if line.get("task") == "mlm" and (line["variant"], line["seed"]) == ("hierarchy", 2):
            line["metrics"]["value"] = float("nan")

    study = read_study(change(write_study(tmp_path, EFFECTS), diverge))
    assert "left out of everything: hierarchy seed 2 MLM perplexity." in sentences(study)
    table = tables.main_table(study)
    assert column(table, "MLM perplexity")["hierarchy"].endswith(" (2)") and "only n of its seeds" in table.caption


def test_a_long_list_is_cut_and_says_so(tmp_path: Path) -> None:
    study = written(tmp_path)

    def clear(compared: Sequence[Comparison]) -> list[Comparison]:
        return [replace(c, mean=2.0, sd=1.0, low=1.0, high=3.0, low_all=-1.0, high_all=5.0) for c in compared]

    many = [c for c in clear(compare(study)) if c.variant == "hierarchy" and c.family == PRIMARY] * 4
    surest = replace(many[0], variant="shift-lowest", low_all=0.5)
    lines = findings(study, [*many, surest])
    listed = [line for line in lines if " than flat at " in line]
    assert len(listed) == 12 and listed[0].startswith("shift-lowest")
    assert f"{len(many) + 1 - 12} more are in the table of differences." in lines


def test_cost_of_a_published_checkpoint_has_no_pretraining(tmp_path: Path) -> None:
    table = tables.cost_table(written(tmp_path, {"flat": 0.0, REFERENCE: 1.0}))
    assert column(table, "pre-training (h)") == {"flat": "0.01", REFERENCE: "–"}


def test_differences_of_an_own_task_are_marked(tmp_path: Path) -> None:
    study = written(tmp_path)
    table = tables.differences_table(study, compare(study), PROBES)
    marked = {row[0] for row in table.rows if row[1] == "Bigram shift†"}
    assert (
        marked == {"shift-lowest", "hierarchy"} and "† the variant was pre-trained on this very task" in table.caption
    )
    assert not any("†" in row[1] for row in table.rows if row[1].startswith("Tense"))


def test_a_p_too_small_to_show_is_not_zero(tmp_path: Path) -> None:
    study = written(tmp_path, seeds=range(1, 14))
    texts = [row[-1] for row in tables.differences_table(study, compare(study), "primary").rows]
    assert any(text.startswith("<0.001 (") for text in texts) and not any("0.000" in text for text in texts)


@pytest.mark.parametrize("splits", [{}, {"train": {"documents": 9, "sentences": 27, "tokens": 300}}])
def test_a_corpus_that_was_given_is_said_to_be(tmp_path: Path, splits: dict[str, Any]) -> None:
    write_study(tmp_path, {"flat": 0.0})
    path = tmp_path / "study.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    own = read_study(tmp_path)
    assert (
        "the downstream tasks' own?" in about.question(own) and "sentence of 4 words" in about.data_table(own).caption
    )
    content["prepared"]["text"] = {"given": "books", "splits": splits}
    path.write_text(json.dumps(content), encoding="utf-8")
    study = read_study(tmp_path)
    assert "another corpus" in about.question(study)
    assert any("a corpus that was given" in sentence for sentence in about.differs(study))
    assert not any("text is the downstream tasks' own, as" in sentence for sentence in about.differs(study))
    table = about.data_table(study)
    count = "9" if splits else "not known"
    assert table.rows == (("books", "binarised", count, "27" if splits else "not known", "not known"),)
    assert "was not looked at" in table.caption
