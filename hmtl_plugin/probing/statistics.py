"""How sure an accuracy is, and whether two encoders differ: bootstrap over test items, paired tests, Holm's correction.

With SciPy where it serves: its bootstrap writes out every resample, which a product with counts saves, and it has no
correction of Holm's.
"""

import numpy as np
import numpy.typing as npt
from scipy import stats

RESAMPLES = 2000
_BLOCK_ELEMENTS = 1 << 20
_FEW, _FLIPS = 100, 20_000
FloatArray = npt.NDArray[np.float64]


def resampled_means(values_NK: FloatArray, seed: int = 0) -> FloatArray:
    """(RESAMPLES, K) means over bootstrap samples of the N items; all columns use the same samples, so they stay paired."""
    draw = np.random.default_rng(seed)
    count = len(values_NK)
    block = max(1, _BLOCK_ELEMENTS // count)
    means = [
        draw.multinomial(count, np.full(count, 1 / count), min(block, RESAMPLES - done)).astype(np.float32)
        @ values_NK.astype(np.float32)
        / count
        for done in range(0, RESAMPLES, block)
    ]
    return np.concatenate(means).astype(np.float64)


def interval(draws_RK: FloatArray) -> tuple[FloatArray, FloatArray]:
    """95 % percentile interval of each column."""
    low, high = np.percentile(draws_RK, [2.5, 97.5], axis=0)
    return low, high


def at_the_edges(
    low_K: FloatArray, high_K: FloatArray, share_K: FloatArray, count: int
) -> tuple[FloatArray, FloatArray]:
    """All right, or none, leaves the bootstrap nothing to vary: there the interval is Clopper and Pearson's."""
    edge = 0.025 ** (1 / count)
    return np.where(share_K == 1, edge, low_K), np.where(share_K == 0, 1 - edge, high_K)


def with_seeds(low_K: FloatArray, high_K: FloatArray, by_seed_SK: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Intervals widened by the seeds' own error: Student's t on their standard error, added as squares to the items'."""
    seeds = len(by_seed_SK)
    if seeds < 2:
        return low_K, high_K
    mean_K = by_seed_SK.mean(0)
    error_K = stats.t.ppf(0.975, seeds - 1) * by_seed_SK.std(0, ddof=1) / seeds**0.5
    return mean_K - np.hypot(mean_K - low_K, error_K), mean_K + np.hypot(high_K - mean_K, error_K)


def paired_test(first_SN: npt.NDArray[np.bool_], second_SN: npt.NDArray[np.bool_]) -> float:
    """p that two encoders are right on the same test items equally often (two-sided).

    One seed each: McNemar's exact test. Several: its generalisation to each item's difference of shares of right answers, signs
    flipped at random (in the normal approximation where more than a hundred items differ).
    """
    difference_N = first_SN.mean(0) - second_SN.mean(0)
    if len(first_SN) == 1 and len(second_SN) == 1:
        wins, losses = int((difference_N > 0).sum()), int((difference_N < 0).sum())
        return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0
    difference_N = difference_N[difference_N != 0]
    if len(difference_N) == 0:
        return 1.0
    if len(difference_N) > _FEW:
        return float(2 * stats.norm.sf(abs(difference_N.sum()) / np.sqrt(np.square(difference_N).sum())))
    signs_RN = np.random.default_rng(0).choice([-1.0, 1.0], (_FLIPS, len(difference_N)))
    extreme = np.abs(signs_RN @ difference_N) >= abs(difference_N.sum()) - 1e-9
    return float((1 + extreme.sum()) / (1 + _FLIPS))


def holm(p: FloatArray) -> FloatArray:
    """p values corrected for as many comparisons as there are (Holm 1979), in the order given."""
    order = np.argsort(p)
    factors = len(p) - np.arange(len(p))
    corrected = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    result = np.empty_like(corrected)
    result[order] = corrected
    return result


def centre_of_gravity(accuracy_RK: FloatArray, baseline: float) -> FloatArray:
    """(R,) mean layer, each layer weighted by what it is better than the worst layer (or the baseline, if that is higher).

    NaN where no layer is better than the baseline. K is L+1: layer 0 are the embeddings.
    """
    floor_R1 = np.maximum(accuracy_RK.min(1, keepdims=True), baseline)
    weight_RK = np.maximum(accuracy_RK - floor_R1, 0)
    total_R = weight_RK.sum(1)
    with np.errstate(invalid="ignore"):
        centre: FloatArray = (weight_RK @ np.arange(accuracy_RK.shape[1])) / total_R
    return centre
