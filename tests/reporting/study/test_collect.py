"""Which record gives which value."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.reporting.study.collect import AVERAGE, read_study
from hmtl_plugin.reporting.study.comparisons import compare
from hmtl_plugin.reporting.study.contents import Report
from hmtl_plugin.reporting.study.markdown import markdown
from hmtl_plugin.reporting.study.tables import mixes_table
from tests.reporting.study.made_up import PROBES, REFERENCE, change, rte, write_study

EFFECTS = {"random": -3.0, "flat": 0.0, "shift-lowest": 0.5, "hierarchy": 1.0}


def test_values_are_those_recorded(tmp_path: Path) -> None:
    study = read_study(write_study(tmp_path, EFFECTS))
    assert study.by_seed("hierarchy", "rte") == pytest.approx({s: rte("hierarchy", s, 1.0) for s in (1, 2, 3)})
    assert study.by_seed("flat", "mlm")[2] == pytest.approx(math.exp(6.002))  # a perplexity
    assert study.by_seed("flat", "nsp") == {1: 81.0, 2: 82.0, 3: 83.0}
    assert study.by_seed("shift-lowest", "bigram_shift") == {1: 60.0, 2: 60.0, 3: 60.0}
    assert study.by_seed("flat", "bigram_shift") == {}
    assert study.by_seed("hierarchy", "squad_f1")[1] == 13.0
    assert study.by_seed("hierarchy", "squad_em")[1] == 4.0
    assert study.chance["rte"] == 52.7
    assert study.values["flat", "rte"][2].fingerprint == "flat-2-RTE"


def test_own_probe_is_left_out_of_everyone_s_average(tmp_path: Path) -> None:
    study = read_study(write_study(tmp_path, EFFECTS))
    for name in EFFECTS:  # of two probes bigram shift is an objective of some variants
        assert study.by_seed(name, AVERAGE) == study.by_seed(name, "probe_past_present")
    own = {row.name: row.own for row in study.rows}
    assert own["hierarchy"] == own["shift-lowest"] == frozenset({"probe_bigram_shift"})
    assert own["flat"] == own["random"] == frozenset()


def test_the_average_is_of_the_same_probes_before_all_runs_are_there(tmp_path: Path) -> None:
    skip = [(name, seed, "probe") for name in ("shift-lowest", "hierarchy") for seed in (1, 2, 3)]
    study = read_study(write_study(tmp_path, EFFECTS, skip=skip))
    assert study.by_seed("flat", AVERAGE) == study.by_seed("flat", "probe_past_present")


def test_every_probe_counts_where_no_variant_was_trained_on_one(tmp_path: Path) -> None:
    study = read_study(write_study(tmp_path, {"flat": 0.0, "random": 0.0}))
    averages, probes = study.by_seed("flat", AVERAGE), [study.by_seed("flat", f"probe_{task}") for task in PROBES]
    assert averages[1] == pytest.approx((probes[0][1] + probes[1][1]) / 2)


def test_a_published_checkpoint_is_marked_and_not_compared(tmp_path: Path) -> None:
    """It is one pre-training, so its seeds are no sample; what it was pre-trained on counts as for any other."""
    study = read_study(write_study(tmp_path, {"flat": 0.0, REFERENCE: 20.0, "random": 0.0}))
    row = study.rows[-1]
    assert row.reference and row.own == frozenset({"probe_bigram_shift"})
    assert study.by_seed(REFERENCE, AVERAGE) == study.by_seed(REFERENCE, "probe_past_present")
    compared = compare(study)
    assert {c.variant for c in compared} == {"random"} and study.by_seed(REFERENCE, "rte")
    alone = compare(read_study(write_study(tmp_path / "alone", {"flat": 0.0, "random": 0.0})))
    shown = [(c.measure, c.low_all) for c in compared if c.measure == "rte"]
    assert shown == [
        (c.measure, c.low_all) for c in alone if c.measure == "rte"
    ]  # its number of comparisons is not theirs


@pytest.mark.parametrize("loss", [math.nan, 800.0, math.inf])
def test_what_diverged_is_left_out_and_named(tmp_path: Path, loss: float) -> None:
    def diverge(line: dict[str, Any]) -> None:
        if line.get("task") == "mlm" and (line["variant"], line["seed"]) == ("hierarchy", 2):
            line["metrics"]["value"] = loss

    study = read_study(change(write_study(tmp_path, EFFECTS, seeds=range(1, 8)), diverge))
    assert study.not_finite == ("hierarchy seed 2 MLM perplexity",)
    assert sorted(study.by_seed("hierarchy", "mlm")) == [1, 3, 4, 5, 6, 7]
    found = next(c for c in compare(study) if (c.variant, c.measure) == ("hierarchy", "mlm"))
    assert found.seeds == (1, 3, 4, 5, 6, 7) and found.p is not None and found.p >= 2 / 2**6


def test_layer_is_chosen_on_validation_rows(tmp_path: Path) -> None:
    study = read_study(write_study(tmp_path, {"flat": 0.0}))
    top = [line for line in study.probes if line["task"] == "past_present" and line["layer"] == 3 and line["seed"] == 1]
    assert study.by_seed("flat", "probe_past_present")[1] == top[0]["metrics"]["accuracy"]


def test_a_half_done_study_lacks_values_and_says_how_far_it_is(tmp_path: Path) -> None:
    skip = [("hierarchy", 3, stage) for stage in ("pretrain", "evaluate", "RTE", "SQuAD", "probe")] + [
        ("flat", 2, "RTE")
    ]
    study = read_study(write_study(tmp_path, EFFECTS, skip=skip))
    assert study.done_stages == study.planned_stages - 6
    assert sorted(study.by_seed("hierarchy", "nsp")) == [1, 2]
    by_name = {(c.variant, c.measure): c for c in compare(study) if c.against == "flat"}
    assert by_name["hierarchy", "nsp"].seeds == (1, 2)
    assert by_name["hierarchy", "rte"].seeds == (1,)  # of the second, flat has none
    assert by_name["random", "rte"].seeds == (1, 3)


def test_records_of_another_plan_do_not_count(tmp_path: Path) -> None:
    write_study(tmp_path, EFFECTS)
    text = (tmp_path / "study.json").read_text(encoding="utf-8")
    (tmp_path / "study.json").write_text(text.replace("flat-2-RTE", "changed"), encoding="utf-8")
    assert sorted(read_study(tmp_path).by_seed("flat", "rte")) == [1, 3]


def test_differences_are_paired_by_seed(tmp_path: Path) -> None:
    """Seeds differ by 3 points each; the difference does not see that."""
    study = read_study(write_study(tmp_path, {"flat": 0.0, "hierarchy": 1.0}, seeds=range(1, 9)))
    found = next(c for c in compare(study) if c.measure == "rte")
    assert found.mean == pytest.approx(1.0, abs=0.3)
    assert found.sd < 0.6
    assert found.p is not None and found.p_holm is not None
    assert found.p <= found.p_holm


def test_without_the_baseline_nothing_is_compared(tmp_path: Path) -> None:
    assert compare(read_study(write_study(tmp_path, {"hierarchy": 1.0}))) == []


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is damaged"), ("[]", "lacks 'profile'"), ('{"plan": []}', "lacks")]
)
def test_a_damaged_study_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "study.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=rf"study\.json: {message}.*: run the study's command again$"):
        read_study(tmp_path)


def test_no_study_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"study\.json"):
        read_study(tmp_path)


def test_what_a_mix_learnt_is_a_table(tmp_path: Path) -> None:
    """Shares and single layers over seeds; single layers are no measures of their own; a study without has no table."""
    assert mixes_table(read_study(write_study(tmp_path / "without", EFFECTS))).rows == ()
    folder = write_study(tmp_path / "with", EFFECTS)
    for path in (folder / "records").glob("hierarchy-seed*.jsonl"):
        lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
        (nsp,) = [line for line in lines if line.get("task") == "nsp"]
        seed = nsp["seed"]
        nsp["metrics"]["shares"] = {"1": 0.2, "2": 0.5 - 0.1 * seed, "3": 0.3 + 0.1 * seed}
        for layer in (1, 2, 3):
            alone = nsp | {"task": f"nsp@{layer}", "metrics": nsp["metrics"] | {"value": 60.0 + layer, "shares": None}}
            lines.insert(lines.index(nsp), alone)
        for line in lines:
            if line.get("kind") == "stage" and line["stage_fingerprint"] == nsp["stage_fingerprint"]:
                line["lines"] += 3
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    study = read_study(folder)
    assert not [measure.name for measure in study.measures if "@" in measure.name]
    assert study.by_seed("hierarchy", "nsp") == {1: 81.0, 2: 82.0, 3: 83.0}
    assert mixes_table(study).rows == (
        ("hierarchy", "NSP", "centre of gravity", "2.30 (2.20 to 2.40)", "82.0 (81.0 to 83.0)"),
        ("hierarchy", "NSP", "layer 1", "0.20 (0.20 to 0.20)", "61.0 (61.0 to 61.0)"),
        ("hierarchy", "NSP", "layer 2", "0.30 (0.20 to 0.40)", "62.0 (62.0 to 62.0)"),
        ("hierarchy", "NSP", "layer 3", "0.50 (0.40 to 0.60)", "63.0 (63.0 to 63.0)"),
    )
    assert "## Learnt placements" in markdown(Report(study))
