"""How sure a value is, and whether two differ: all intervals and tests of the project.

One policy for all of them. Intervals are of 95 %, tests are two-sided. A bootstrap draws `RESAMPLES` times from a
generator that begins at `SEED`, so that equal values give equal intervals, and values that are measured on the same
items share their draws. What scipy has is scipy's; it has no correction by Holm, and its noncentral t, which a power
would be made of, fails with few degrees of freedom.
"""

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

LEVEL, POWER = 0.05, 0.8
RESAMPLES = 2000
SEED = 0
_BLOCK_ELEMENTS = 1 << 20
_EXACT_FLIPS = 1 << 16
_FLIPS, _MANY = 20_000, 100
_GRID = 20_000
FloatArray = npt.NDArray[np.float64]


# ---- the bootstrap (Efron 1979) ----


def bootstrap_rows(count: int) -> Iterator[npt.NDArray[np.int64]]:
    """`RESAMPLES` times (N,) numbers of N items, drawn with replacement: for values that are no sums over items."""
    random = np.random.default_rng(SEED)
    for _ in range(RESAMPLES):
        yield random.integers(count, size=count)


def bootstrap_sums(values_NK: npt.NDArray[np.floating]) -> FloatArray:
    """(RESAMPLES, K) sums over bootstrap samples of N items; all columns share the samples, so they stay paired.

    Added up in the type of the values. Memory: blocks of a million counts, however many items there are.
    """
    count, drawn = len(values_NK), bootstrap_rows(len(values_NK))
    block = max(1, _BLOCK_ELEMENTS // max(1, count))
    sums = []
    for done in range(0, RESAMPLES, block):
        times = [np.bincount(next(drawn), minlength=count) for _ in range(min(block, RESAMPLES - done))]
        sums.append(np.stack(times).astype(values_NK.dtype) @ values_NK)
    return np.concatenate(sums).astype(np.float64)


def percentiles(draws_Rx: FloatArray) -> tuple[FloatArray, FloatArray]:
    """95 % percentile interval over the first axis; draws without a value (NaN) are left out."""
    low, high = np.nanpercentile(draws_Rx, [50 * LEVEL, 100 - 50 * LEVEL], axis=0)
    return low, high


def at_the_edges(
    low_K: FloatArray, high_K: FloatArray, share_K: FloatArray, count: int
) -> tuple[FloatArray, FloatArray]:
    """Intervals of shares of ``count`` items. All or none leaves a bootstrap nothing to vary: there it is Clopper and
    Pearson's (1934).
    """
    all_of_them = float(stats.binomtest(count, count).proportion_ci(1 - LEVEL).low)
    return np.where(share_K == 1, all_of_them, low_K), np.where(share_K == 0, 1 - all_of_them, high_K)


# ---- seeds ----


def t_half_width(deviation: FloatArray | float, count: int, level: float = LEVEL) -> FloatArray:
    """Half of Student's t interval of a mean over ``count`` seeds with this standard deviation; 0 for one seed."""
    if count < 2:
        return np.zeros_like(np.asarray(deviation, dtype=np.float64))
    return np.asarray(stats.t.ppf(1 - level / 2, count - 1) * deviation / math.sqrt(count))


def with_seeds(low_K: FloatArray, high_K: FloatArray, by_seed_SK: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Intervals over items widened by the seeds' own error, `t_half_width`: independent, so added as squares."""
    if len(by_seed_SK) < 2:
        return low_K, high_K
    mean_K, error_K = by_seed_SK.mean(0), t_half_width(by_seed_SK.std(0, ddof=1), len(by_seed_SK))
    return mean_K - np.hypot(mean_K - low_K, error_K), mean_K + np.hypot(high_K - mean_K, error_K)


# ---- tests ----


def sign_flip(values_N: FloatArray) -> float:
    """p of the sum under flips of the values' signs: all of them up to 16 values, then `_FLIPS` at random."""
    count = len(values_N)
    scale = float(np.abs(values_N).max(initial=0.0))
    if count < 2 or not scale:
        return 1.0  # however the signs are, the sum is as far from 0
    exact = 2**count <= _EXACT_FLIPS
    found = stats.permutation_test(
        (values_N / scale,),
        lambda x, axis: np.round(x.sum(axis), 9),  # sums in another order are equal, whatever the unit
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf if exact else _FLIPS,
        batch=_EXACT_FLIPS,
        rng=np.random.default_rng(SEED),
    )
    return float(found.pvalue)


def paired_test(first_SN: npt.NDArray[np.bool_], second_SN: npt.NDArray[np.bool_]) -> float:
    """p that two encoders are right on the same items equally often.

    One seed each: McNemar's exact test. Several: its generalisation, `sign_flip` of each item's difference of shares of
    right answers (in the normal approximation where more than a hundred items differ).
    """
    difference_N = first_SN.mean(0) - second_SN.mean(0)
    difference_N = difference_N[difference_N != 0]
    if len(difference_N) == 0:
        return 1.0
    if len(first_SN) == 1 and len(second_SN) == 1:
        return float(stats.binomtest(int((difference_N > 0).sum()), len(difference_N)).pvalue)
    if len(difference_N) > _MANY:
        return float(2 * stats.norm.sf(abs(difference_N.sum()) / np.sqrt(np.square(difference_N).sum())))
    return sign_flip(difference_N)


def holm(p: FloatArray) -> FloatArray:
    """p values corrected for as many comparisons as there are (Holm 1979), in the order given."""
    order = np.argsort(p)
    factors = len(p) - np.arange(len(p))
    corrected = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    result = np.empty_like(corrected)
    result[order] = corrected
    return result


@cache
def detectable(count: int, level: float = LEVEL) -> float:
    """The true mean, in standard deviations of the differences, that a paired t test of ``count`` pairs finds with
    power 80 %, integrated over the deviation that a sample may show.
    """
    freedom = count - 1
    shares = (np.arange(_GRID) + 0.5) / _GRID
    bound = stats.t.ppf(1 - level / 2, freedom) * np.sqrt(stats.chi2.ppf(shares, freedom) / freedom)

    def power_missing(effect: float) -> float:
        shift = effect * math.sqrt(count)
        return float((stats.norm.sf(bound - shift) + stats.norm.cdf(-bound - shift)).mean()) - POWER

    high = 1.0
    while power_missing(high) < 0:
        high *= 2
    return float(optimize.brentq(power_missing, 0.0, high))
