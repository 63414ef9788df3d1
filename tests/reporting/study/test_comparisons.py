"""Comparisons paired by seed, against independent computations and by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hmtl_plugin.reporting.study.comparisons import SEEDS_FOR_TEST, paired
from hmtl_plugin.reporting.study.data import Measure


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
