"""Intervals that cover, tests that hold their level, corrections as defined, against the library and by simulation."""

import numpy as np
import pytest
from scipy import stats

from hmtl_plugin import statistics
from hmtl_plugin.statistics import (
    RESAMPLES,
    at_the_edges,
    bootstrap_rows,
    bootstrap_sums,
    detectable,
    holm,
    paired_test,
    percentiles,
    sign_flip,
    t_half_width,
    with_seeds,
)


def test_bootstrap_of_zeros_and_ones_is_the_binomial() -> None:
    right = np.zeros((1000, 1))
    right[:700] = 1
    low, high = percentiles(bootstrap_sums(right) / len(right))
    assert low[0] == pytest.approx(stats.binom(1000, 0.7).ppf(0.025) / 1000, abs=0.003)
    assert high[0] == pytest.approx(stats.binom(1000, 0.7).ppf(0.975) / 1000, abs=0.003)


def test_columns_stay_paired() -> None:
    right = np.random.default_rng(0).random((500, 1)) < 0.5
    draws = bootstrap_sums(np.concatenate([right, right, ~right], 1).astype(float))
    assert (draws[:, 0] == draws[:, 1]).all() and (draws[:, 0] + draws[:, 2] == 500).all()


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


def test_sums_are_those_of_the_rows_drawn() -> None:
    """And the same again: one seed for all."""
    values = np.random.default_rng(0).normal(size=(40, 3))
    rows = [values[rows_N].sum(0) for rows_N in bootstrap_rows(40)]
    assert len(rows) == RESAMPLES and bootstrap_sums(values) == pytest.approx(np.array(rows))
    assert (bootstrap_sums(values) == bootstrap_sums(values)).all()


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of any size give the same."""
    values = np.random.default_rng(0).normal(size=(300, 2))
    whole = bootstrap_sums(values)
    for block in (1, 1000, 70_000):
        monkeypatch.setattr(statistics, "_BLOCK_ELEMENTS", block)
        assert bootstrap_sums(values) == pytest.approx(whole)


def test_intervals_cover() -> None:
    """The mean of skewed values, in 95 of 100 samples or nearly."""
    random = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        values = random.exponential(size=(150, 1))
        low, high = percentiles(bootstrap_sums(values) / 150)
        covered += bool(low[0] <= 1 <= high[0])
    assert 0.90 < covered / 300 < 0.985


def test_clopper_and_pearson_by_the_quantiles_of_beta() -> None:
    low, high = at_the_edges(np.array([1.0, 0.0]), np.array([1.0, 0.0]), np.array([1.0, 0.0]), 25)
    assert low[0] == pytest.approx(stats.beta.ppf(0.025, 25, 1)) and high[1] == pytest.approx(
        stats.beta.ppf(0.975, 1, 25)
    )


def test_t_interval_is_the_library_s() -> None:
    values = np.array([1.0, 2.0, 4.0, 3.5])
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.99)
    half = t_half_width(values.std(ddof=1), 4, 0.01)
    assert (values.mean() - half, values.mean() + half) == pytest.approx((low, high))
    assert t_half_width(0.0, 1) == 0


def test_sign_flip_is_the_library_s_permutation_test() -> None:
    values = np.array([0.3, -0.1, 0.9, 0.4, 0.2, -0.5, 0.8])
    expected = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert sign_flip(values) == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e8])
def test_sign_flip_knows_no_unit(scale: float) -> None:
    """A perplexity of a training that went wrong is in the millions: sums in another order then differ by more than
    1e-9.
    """
    rng = np.random.default_rng(0)
    for _ in range(30):
        values = rng.normal(size=6)
        assert sign_flip(scale * values) == sign_flip(values) >= 2 / 2**6


def test_sign_flip_of_many_seeds_samples_and_is_never_zero() -> None:
    assert 0 < sign_flip(np.full(30, 1.0)) < 1e-3
    assert sign_flip(np.array([1.0, -1.0] * 15)) == 1.0


@pytest.mark.parametrize("level", [0.05, 0.002])
@pytest.mark.parametrize("count", [2, 3, 6, 12])
def test_detectable_difference_is_found_four_times_out_of_five(count: int, level: float) -> None:
    samples = np.random.default_rng(0).normal(detectable(count, level), 1.0, (20_000, count))
    found = (stats.ttest_1samp(samples, 0.0, axis=1).pvalue < level).mean()
    assert found == pytest.approx(0.8, abs=0.015)


def test_one_value_and_values_of_zero_tell_nothing() -> None:
    assert sign_flip(np.array([2.0])) == sign_flip(np.zeros(4)) == sign_flip(np.zeros(0)) == 1.0
    first, second = np.ones((3, 50), dtype=bool), np.ones((3, 50), dtype=bool)
    second[:, 7] = False  # one row differs, under several seeds
    assert paired_test(first, second) == 1.0


@pytest.mark.parametrize(
    ("whole", "parts"), [([2, 3, -1, 2, 2, -1], 5), ([3, -2, 2, -1, 2, -1], 3), ([-3, 2, 2, -5, -4, 0], 277)]
)
def test_ties_among_fractions_are_ties(whole: list[int], parts: int) -> None:
    """Counted over all signs in whole numbers, whose sums are exact."""
    signs = np.array(np.meshgrid(*[[-1, 1]] * len(whole))).reshape(len(whole), -1)
    expected = (abs(np.array(whole) @ signs) >= abs(sum(whole))).mean()
    assert sign_flip(np.array(whole) / parts) == pytest.approx(expected)
