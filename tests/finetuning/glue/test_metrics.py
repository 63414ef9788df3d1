"""Metrics against their textbook definitions, and where these are silent."""

import warnings

import numpy as np
import pytest

from hmtl_plugin.glue.metrics import METRICS, compute, constant, score
from hmtl_plugin.glue.tasks import TASKS, find_task
from hmtl_plugin.statistics import bootstrap_rows


def test_every_task_s_metrics_exist_and_perfect_predictions_score_100() -> None:
    random = np.random.default_rng(0)
    for task in TASKS.values():
        true = random.uniform(0, 5, 50) if task.regression else random.integers(len(task.labels), size=50)
        values = compute(task, true, true)
        assert set(values) == {*task.metrics, "score"}
        assert all(value == pytest.approx(100) for value in values.values())


def test_counts_of_a_confusion_table() -> None:
    true = np.repeat([1, 1, 0, 0], [6, 4, 3, 7])  # 6 hits, 4 misses, 3 false alarms, 7 correct rejections
    predicted = np.repeat([1, 0, 1, 0], [6, 4, 3, 7])
    mrpc = compute(find_task("MRPC"), predicted, true)
    assert mrpc["accuracy"] == pytest.approx(100 * 13 / 20)
    assert mrpc["f1"] == pytest.approx(100 * 12 / 19)
    assert mrpc["score"] == pytest.approx((mrpc["accuracy"] + mrpc["f1"]) / 2)
    matthews = (6 * 7 - 3 * 4) / np.sqrt(9 * 10 * 10 * 11)
    assert compute(find_task("CoLA"), predicted, true)["matthews"] == pytest.approx(100 * matthews)


def test_correlations() -> None:
    true, predicted = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 40.0])
    values = compute(find_task("STS-B"), predicted, true)
    assert values["spearman"] == pytest.approx(100)
    assert values["pearson"] == pytest.approx(100 * np.corrcoef(predicted, true)[0, 1])


@pytest.mark.parametrize("name", METRICS)
def test_constant_predictions_give_a_number_and_no_warning(name: str) -> None:
    true = np.array([0, 1, 1, 0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for answer in (0, 1):
            value = METRICS[name](np.full(5, answer), true)
            assert np.isfinite(value)
            assert name in ("accuracy", "f1") or value == 0
        if name in ("pearson", "spearman"):  # rounding is no variation
            assert METRICS[name](np.full(5, 0.3) + 1e-12 * np.arange(5), np.linspace(0, 1, 5)) == 0


def test_nothing_to_measure_is_an_error() -> None:
    for predicted, true in (([], []), ([1], [1, 0])):
        with pytest.raises(ValueError, match=f"{len(predicted)} predictions for {len(true)} labels"):
            compute(find_task("RTE"), np.array(predicted), np.array(true))


def test_the_baseline_is_the_best_constant() -> None:
    train = np.array([0, 0, 0, 1, 1])
    assert constant(find_task("RTE"), train, 3).tolist() == [0, 0, 0]
    assert constant(find_task("MRPC"), train, 2).tolist() == [1, 1]  # F1 counts hits of class 1 alone
    assert constant(find_task("STS-B"), np.array([1.0, 4.0]), 2).tolist() == [2.5, 2.5]


def test_the_interval_holds_the_value_and_tells_skill_from_luck() -> None:
    random = np.random.default_rng(1)
    true = random.integers(2, size=400)
    skilled = np.where(random.random(400) < 0.8, true, 1 - true)
    for predicted, better in ((skilled, True), (random.integers(2, size=400), False)):
        found = score(find_task("RTE"), predicted, true, true)
        assert found.low < found.value < found.high
        assert found.better == better


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    covered = 0
    for _ in range(60):
        true = random.integers(2, size=150)
        predicted = np.where(random.random(150) < 0.7, true, 1 - true)
        found = score(find_task("RTE"), predicted, true, true)
        covered += found.low <= 70 <= found.high
    assert covered >= 52  # 95 % of 60 is 57; fewer than 52 has a chance of 1 in 200


@pytest.mark.parametrize("name", ["QQP", "MNLI"])
def test_weighted_pairs_are_the_rows_they_stand_for(name: str) -> None:
    """The interval comes of pairs of predicted and true class, weighted: the same as of rows drawn one by one."""
    task, random = find_task(name), np.random.default_rng(4)
    true = random.integers(len(task.labels), size=300)
    predicted = np.where(random.random(300) < 0.6, true, random.integers(len(task.labels), size=300))
    scores = [compute(task, predicted[rows_N], true[rows_N])["score"] for rows_N in bootstrap_rows(300)]
    found = score(task, predicted, true, true)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(scores, [2.5, 97.5])), abs=1e-9)
