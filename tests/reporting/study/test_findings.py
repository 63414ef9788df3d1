"""Sentences and tables say no more than the numbers do."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hmtl_plugin.reporting.study import about, tables
from hmtl_plugin.reporting.study.collect import read_study
from hmtl_plugin.reporting.study.comparisons import Comparison, compare
from hmtl_plugin.reporting.study.data import PRIMARY, PROBES, StudyReport
from hmtl_plugin.reporting.study.findings import findings
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

    many = [
        c for c in clear(compare(study)) if c.variant == "hierarchy" and c.family == PRIMARY and c.against == "flat"
    ] * 4
    surest = replace(many[0], variant="shift-lowest", low_all=0.5)
    lines = findings(study, [*many, surest])
    listed = [line for line in lines if " − flat at " in line]
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
        marked == {"shift-lowest − flat", "hierarchy − flat"}
        and "† the variant was pre-trained on this very task" in table.caption
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


def test_few_seeds_are_described_and_six_are_judged(tmp_path: Path) -> None:
    for count, said in ((3, "hierarchy − flat at RTE: +"), (8, "hierarchy is better than flat at RTE: +")):
        study = written(tmp_path / str(count), seeds=range(1, count + 1))
        text, rows = sentences(study), tables.differences_table(study, compare(study), PRIMARY).rows
        assert said in text
        marked = [row for row in rows if "*" in row[3]]
        assert bool(marked) == (count == 8)
        assert (" is better than " in text) == (count == 8)


def test_a_variant_is_compared_with_its_ablation_too(tmp_path: Path) -> None:
    study = written(tmp_path, seeds=range(1, 9))
    compared = compare(study)
    table = tables.ablation_table(study, compared)
    assert {row[0] for row in table.rows} == {"hierarchy − shift-lowest"}  # the other has not run
    found = next(c for c in compared if (c.against, c.measure) == ("shift-lowest", "rte"))
    assert found.mean == pytest.approx(0.5, abs=0.3)
    number = sum(c.against == "shift-lowest" and c.family == PRIMARY for c in compared)
    assert f"all {number} intervals here" in table.caption
    assert f"Of {number} comparisons of variants with the one that lacks only what they add" in sentences(study)
    assert not any(row[0].endswith("shift-lowest") for row in tables.differences_table(study, compared, PRIMARY).rows)


def test_records_that_were_not_made_alike_are_named(tmp_path: Path) -> None:
    assert "not all made alike" not in sentences(written(tmp_path))

    def other(line: dict[str, Any]) -> None:
        if (line["variant"], line["seed"]) == ("hierarchy", 2) and line["kind"] == "stage":
            line["precision"] = "none"
        if (line["variant"], line["seed"], line.get("task")) == ("flat", 1, "nsp"):
            line["checkpoint_sha256"] = "another"

    study = read_study(change(tmp_path, other))
    text = sentences(study)
    assert (
        "precision is bf16 (random seed 1, flat seed 1, shift-lowest seed 1 and 8 more); fp32 (hierarchy seed 2)"
        in text
    )
    assert "another training of the same model than the rest of its run: flat seed 1." in text
    assert about.settings(study)["precision of the records"] == "bf16; fp32"


def test_an_objective_that_taught_nothing_is_named(tmp_path: Path) -> None:
    assert "not learnt" not in sentences(written(tmp_path))

    def at_chance(line: dict[str, Any]) -> None:
        wanted = line["variant"] == "shift-lowest" or line["seed"] == 1
        if wanted and (line["kind"], line.get("task")) == ("pretrain", "bigram_shift"):
            line["metrics"] |= {"value": 0.51, "low": 0.49, "high": 0.53}

    text = sentences(read_study(change(tmp_path, at_chance)))
    assert "shift: not learnt by shift-lowest (each seed's" in text


def test_what_is_not_there_is_not_planned_or_not_yet(tmp_path: Path) -> None:
    skip = [("hierarchy", seed, stage) for seed in (1, 2, 3) for stage in STAGES]
    skip += [("shift-lowest", 3, stage) for stage in STAGES]
    study = written(tmp_path, skip=skip)
    main = tables.main_table(study)
    assert column(main, "MLM perplexity")["hierarchy"] == tables.NOT_YET
    assert column(main, "MLM perplexity")["never-run"] == tables.NOT_RUN
    here = column(tables.variants_table(study), "seeds here")
    assert (here["shift-lowest"], here["flat"]) == ("1, 2 (not yet: 3)", "1, 2, 3")
    assert (here["hierarchy"], here["never-run"]) == (tables.NOT_YET, tables.NOT_RUN)
    assert "shift-lowest: seeds 1, 2" in sentences(study)


def test_what_knows_nothing_and_what_knows_words(tmp_path: Path) -> None:
    study = written(tmp_path)
    assert column(tables.main_table(study), "SQuAD EM (%)")["trivial baseline"] == "0.4"
    probes = tables.probes_table(study)
    assert [row[0] for row in probes.rows[-2:]] == ["bag of words", "trivial baseline"]
    assert column(probes, "Tense")["bag of words"] == "61.5"
    assert "400 / 100 / 200." in probes.caption


def test_layers_are_those_of_the_model(tmp_path: Path) -> None:
    table = tables.variants_table(written(tmp_path))
    assert column(table, "layers")["hierarchy"] == "bigram_shift 1, nsp 2, mlm 3 of 3"
    assert column(table, "layers")["random"] == "–"


def test_what_counting_reaches_is_shown_and_said(tmp_path: Path) -> None:
    """Records of before have no counts; then there is neither row nor sentence. The model is better only where the
    number is.
    """
    before = written(tmp_path)
    assert tables.COUNTS not in column(tables.main_table(before), "MLM perplexity")
    assert tables.COUNTS not in sentences(before)

    def count(mlm: float) -> Callable[[dict[str, Any]], None]:
        def what(line: dict[str, Any]) -> None:
            if line.get("kind") == "pretrain":
                line["metrics"]["bigrams"] = {"mlm": mlm, "bigram_shift": 0.55}.get(line["task"])

        return what

    change(tmp_path, count(5.0))
    study = read_study(tmp_path)
    assert column(tables.main_table(study), "MLM perplexity")[tables.COUNTS] == "148.4"
    assert column(tables.main_table(study), "shift (AUC, %)")[tables.COUNTS] == "55.0"
    assert "MLM perplexity: the best run reaches 39" in sentences(study) and "shift: the best" not in sentences(study)
    change(tmp_path, count(6.5))
    assert "the best run reaches" not in sentences(read_study(tmp_path))


def test_counts_of_next_sentences_and_the_view_of_the_records(tmp_path: Path) -> None:
    """Newer records call them counts, and know their view; where some are of another view, the report says so."""
    assert "view is" not in sentences(written(tmp_path))

    def newer(line: dict[str, Any]) -> None:
        if line.get("kind") == "pretrain":
            line["metrics"]["counts"] = {"mlm": 6.5, "nsp": 95.0}.get(line["task"])
            line["hyper"] = {"view": "fixed"} if line["checkpoint_sha256"].startswith("flat") else {}

    study = read_study(change(tmp_path, newer))
    assert column(tables.main_table(study), "NSP (% right)")[tables.COUNTS] == "95.0"
    assert "counting the pieces that two segments share" in sentences(study)
    assert "order of words" not in sentences(study)
    assert "view is" in sentences(study) and "fixed (flat" in sentences(study)
