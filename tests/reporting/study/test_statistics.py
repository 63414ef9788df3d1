"""Comparisons paired by seed, against independent computations and by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hmtl_plugin.reporting.study.data import Measure
from hmtl_plugin.reporting.study.statistics import SEEDS_FOR_TEST, detectable, paired, sign_flip


def _paired(values: list[float], comparisons: int = 1):
    measure = Measure("m", "M", "primary", "%")
    return paired("v", "flat", measure, tuple(range(len(values))), values, comparisons)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=12))
def test_interval_is_that_of_the_paired_t_test(values: list[float]) -> None:
    found = _paired(values)
    if found.sd < 1e-9:
        return
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.effect == pytest.approx(np.mean(values) / np.std(values, ddof=1))


def test_correction_widens_to_the_bonferroni_interval() -> None:
    values = [1.0, 2.0, 4.0]
    found = _paired(values, comparisons=10)
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(1 - 0.05 / 10)
    assert (found.low_all, found.high_all) == pytest.approx((low, high))
    assert found.low_all < found.low < found.high < found.high_all


def test_one_seed_has_a_difference_and_nothing_else() -> None:
    found = _paired([3.0])
    assert found.mean == 3.0
    assert all(math.isnan(x) for x in (found.sd, found.low, found.high, found.low_all, found.effect, found.detectable))
    assert found.descriptive
    assert not found.excludes_zero and not found.excludes_zero_among_all


def test_equal_differences_have_no_effect_size_and_no_error() -> None:
    found = _paired([0.0, 0.0, 0.0])
    assert (found.low, found.high) == (0.0, 0.0)
    assert math.isnan(found.effect)
    assert not found.excludes_zero


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [1.0, 1.0 + 1e-15, 1.0], [1e-16, 0.0, 2e-16]])
def test_without_a_spread_nothing_is_judged(values: list[float]) -> None:
    """Answers that do not depend on the seed, such as the majority, give an interval without width."""
    found = _paired(values)
    assert found.sd == 0 and math.isnan(found.effect) and math.isnan(found.detectable)
    assert not found.excludes_zero and not found.excludes_zero_among_all


@pytest.mark.parametrize("count", range(2, 10))
def test_permutation_test_begins_at_six_seeds(count: int) -> None:
    found = _paired([1.0] * count)
    assert (found.p is None) == (count < SEEDS_FOR_TEST)
    if found.p is not None:
        assert found.p == 2 / 2**count  # all signs as they are, and all flipped


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
