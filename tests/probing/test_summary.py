"""From result lines to a study: means over seeds, comparisons on common layers, half-done work."""

from typing import Any

import numpy as np
import pytest

from hmtl_plugin.probing.run import pack
from hmtl_plugin.probing.summary import centre_of_gravity, summarise
from hmtl_plugin.reporting.probing.table import probing_table
from hmtl_plugin.statistics import holm, paired_test

ROWS = 400


def lines_of(
    name: str,
    shares: list[float],
    task: str = "past_present",
    seed: int = 1,
    role: str = "probe",
    pooling: str = "mean",
) -> list[dict[str, Any]]:
    """Lines of an encoder whose layer k is right on a share of the test rows, each layer on rows of its own."""
    random = np.random.default_rng([len(name), seed, len(task), len(role)])
    lines = []
    for layer, share in enumerate(shares):
        right = random.random(ROWS) < share
        metrics = {"accuracy": 100 * right.mean(), "valid_accuracy": 100 * share, "majority": 50.0}
        lines.append(
            {
                "kind": "probe", "role": role, "task": task, "variant": name, "encoder": "checkpoint", "layers": len(shares) - 1,
                "layer": layer, "pooling": pooling, "seed": seed, "placements": [["bigram_shift", 1], ["mlm", 2]], "transfer": "",
                "checkpoint": "x.pt", "fingerprint": "f", "metrics": metrics, "hyper": {"probe": "logistic", "l2": 0.1},
                "items": pack(right), "data": {"rows": [800, 200, ROWS], "classes": 2},
            }
        )  # fmt: skip
    return lines


def majority(task: str) -> dict[str, Any]:
    return {
        "kind": "probe", "role": "baseline", "task": task, "variant": "majority", "layer": None, "pooling": None,
        "metrics": {"accuracy": 50.0}, "data": {"rows": [800, 200, ROWS], "classes": 2},
    }  # fmt: skip


def test_seeds_are_averaged_and_widen_the_interval() -> None:
    seeds = [lines_of("a", [0.6, 0.8], seed=seed) for seed in (1, 2, 3)]
    study = summarise([majority("past_present"), *seeds[0], *seeds[1], *seeds[2]])
    found = study.probed["a", "past_present", "mean"]
    by_seed = np.array([[line["metrics"]["accuracy"] for line in lines] for lines in seeds])
    assert found.accuracy == pytest.approx(by_seed.mean(0)) and found.sd == pytest.approx(by_seed.std(0, ddof=1))
    assert (found.high - found.low > 2 * 2.92 * by_seed.std(0, ddof=1) / 3**0.5).all()
    assert found.best == 1 and found.control is None and found.centre == pytest.approx(1)


def test_differences_are_of_common_layers_and_corrected_together() -> None:
    deep = [*lines_of("deep", [0.5, 0.9, 0.7, 0.6]), *lines_of("deep", [0.5, 0.5, 0.5, 0.5], task="obj_number")]
    flat = [*lines_of("flat", [0.5, 0.6, 0.7]), *lines_of("flat", [0.5, 0.5, 0.5], task="obj_number")]
    study = summarise([majority("past_present"), majority("obj_number"), *deep, *flat], baseline="flat")
    tense, number = (study.differences["deep", task, "mean"] for task in ("past_present", "obj_number"))
    assert len(tense.delta) == len(number.delta) == 3
    assert tense.significant.tolist() == [False, True, False] and not number.significant.any()
    assert holm(np.concatenate([tense.p, number.p])) == pytest.approx(np.concatenate([tense.p_holm, number.p_holm]))
    assert ("flat", "past_present", "mean") not in study.differences


def test_half_done_work_is_shown() -> None:
    lines = [
        majority("past_present"), majority("bigram_shift"),
        *lines_of("a", [0.6, 0.7]), *lines_of("a", [0.6, 0.9], task="bigram_shift"), *lines_of("b", [0.6, 0.7], pooling="cls"),
    ]  # fmt: skip
    study = summarise(lines, baseline="b")
    assert study.poolings == ("mean", "cls") and not study.differences
    assert {task.name: task.in_distribution for task in study.tasks}["bigram_shift"] == {"a", "b"}
    table = probing_table(study)
    # the average leaves out what any encoder was pre-trained on
    mean = study.probed["a", "past_present", "mean"].accuracy
    assert f"average         {mean[0]:.1f}" in table and table.count("pooling\n") == 2


def test_seeds_of_one_against_a_single_other() -> None:
    """An untrained twin has several seeds, a checkpoint one: they are compared by each row's share of right answers."""
    several = np.random.default_rng(0).random((3, 500)) < 0.6
    single = np.random.default_rng(1).random((1, 500)) < 0.8
    assert paired_test(several, single) < 1e-6
    assert 0.001 < paired_test(several, np.random.default_rng(2).random((1, 500)) < 0.6) <= 1


def test_centre_of_gravity() -> None:
    rows = np.array([[50.0, 50, 90, 50], [60, 80, 80, 60], [40, 40, 40, 40]])
    centre = centre_of_gravity(rows, 50.0)
    assert centre[0] == 2 and centre[1] == 1.5 and np.isnan(centre[2])
