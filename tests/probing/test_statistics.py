"""Intervals that cover, tests that hold their level, Holm as defined."""

import numpy as np
import pytest
from scipy import stats

from hmtl_plugin.probing.statistics import (
    at_the_edges,
    centre_of_gravity,
    holm,
    interval,
    paired_test,
    resampled_means,
    with_seeds,
)


def test_bootstrap_of_zeros_and_ones_is_the_binomial() -> None:
    right = np.zeros((1000, 1))
    right[:700] = 1
    low, high = interval(resampled_means(right))
    assert low[0] == pytest.approx(stats.binom(1000, 0.7).ppf(0.025) / 1000, abs=0.003)
    assert high[0] == pytest.approx(stats.binom(1000, 0.7).ppf(0.975) / 1000, abs=0.003)


def test_columns_stay_paired() -> None:
    right = np.random.default_rng(0).random((500, 1)) < 0.5
    draws = resampled_means(np.concatenate([right, right, ~right], 1).astype(float))
    assert (draws[:, 0] == draws[:, 1]).all() and draws[:, 0] + draws[:, 2] == pytest.approx(np.ones(len(draws)))


def test_seeds_widen() -> None:
    low, high = np.array([0.4]), np.array([0.6])
    assert with_seeds(low, high, np.array([[0.5]])) == (low, high)
    wide_low, wide_high = with_seeds(low, high, np.array([[0.4], [0.5], [0.6]]))
    error = 4.302653 * 0.1 / 3**0.5
    assert wide_low[0] == pytest.approx(0.5 - np.hypot(0.1, error), abs=1e-5)
    assert wide_high[0] == pytest.approx(0.5 + np.hypot(0.1, error), abs=1e-5)


def test_mcnemar_of_one_seed_and_close_to_it_of_several() -> None:
    random = np.random.default_rng(0)
    first, second = random.random((1, 2000)) < 0.75, random.random((1, 2000)) < 0.72
    wins, losses = (first & ~second).sum(), (~first & second).sum()
    exact = stats.binomtest(int(wins), int(wins + losses)).pvalue
    assert paired_test(first, second) == pytest.approx(exact)
    assert paired_test(np.repeat(first, 3, 0), np.repeat(second, 3, 0)) == pytest.approx(exact, rel=0.15)
    assert paired_test(first, first) == 1.0 and paired_test(np.repeat(first, 2, 0), np.repeat(first, 2, 0)) == 1.0


@pytest.mark.parametrize("seeds", [1, 3])
def test_level_under_no_difference(seeds: int) -> None:
    random = np.random.default_rng(1)
    p = [paired_test(random.random((seeds, 400)) < 0.6, random.random((seeds, 400)) < 0.6) for _ in range(400)]
    assert np.mean(np.array(p) < 0.05) < 0.08


def test_few_rows_that_differ_are_counted_exactly() -> None:
    first, second = np.ones((1, 50), dtype=bool), np.ones((1, 50), dtype=bool)
    second[:, :5] = False
    assert paired_test(first, second) == pytest.approx(2 / 32)
    # the same answers under two seeds are no more evidence
    assert paired_test(np.repeat(first, 2, 0), np.repeat(second, 2, 0)) == pytest.approx(2 / 32, rel=0.1)


def test_all_right_is_not_certainty() -> None:
    low, high = at_the_edges(np.array([1.0, 0.0, 0.4]), np.array([1.0, 0.0, 0.6]), np.array([1.0, 0.0, 0.5]), 60)
    assert low == pytest.approx([0.025 ** (1 / 60), 0, 0.4]) and high == pytest.approx([1, 1 - 0.025 ** (1 / 60), 0.6])


def test_holm_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.5, 0.9])) == pytest.approx([1.0, 1.0])


def test_centre_of_gravity() -> None:
    rows = np.array([[50.0, 50, 90, 50], [60, 80, 80, 60], [40, 40, 40, 40]])
    centre = centre_of_gravity(rows, 50.0)
    assert centre[0] == 2 and centre[1] == 1.5 and np.isnan(centre[2])
