"""Variants against the baseline, paired by seed: differences, intervals, effect sizes, what could have been seen at all.

The sample is the seeds of pre-training. A seed gives both variants the same initial encoder, pairs and masks, so that what differs
is the hierarchy and what the fine-tuning's own noise leaves.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from hmtl_plugin.probing.statistics import holm
from hmtl_plugin.reporting.study.study import BASELINE, StudyReport

LEVEL, POWER = 0.05, 0.8
SEEDS_FOR_TEST = 6  # 2 ** 6 sign patterns: the smallest p is 1/32
_EXACT_SEEDS = 16
_DRAWS = 100_000
_GRID = 20_000
_NO_SPREAD = 1e-9  # what adding equal values in another order leaves


@dataclass(frozen=True)
class Comparison:
    """One variant less the baseline on one measure, over the seeds that both have.

    Attributes:
        mean, sd: of the differences; sd is NaN for one seed, as all that follows from it; 0: no spread, and no effect size.
        low, high: 95 % t interval of the mean.
        low_all, high_all: the same widened (Bonferroni) so that all intervals of the family hold together with 95 %.
        effect: mean / sd, Cohen's d of paired differences.
        detectable: the mean difference that a paired t test at 5 % would have found with 80 % power, the sd being what it was.
        p: of the sign-flip permutation test, two-sided; None below `SEEDS_FOR_TEST` seeds.
        p_holm: corrected for the number of comparisons of the family that have a p.
    """

    variant: str
    measure: str
    family: str
    seeds: tuple[int, ...]
    mean: float
    sd: float
    low: float
    high: float
    low_all: float
    high_all: float
    effect: float
    detectable: float
    p: float | None
    p_holm: float | None = None

    @property
    def descriptive(self) -> bool:
        """Too few seeds for a test."""
        return self.p is None

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval of this comparison alone does; without any spread among the seeds there is none to judge by."""
        return self.sd > 0 and (self.low > 0 or self.high < 0)

    @property
    def excludes_zero_among_all(self) -> bool:
        """Whether the interval does that is corrected for the number of comparisons."""
        return self.sd > 0 and (self.low_all > 0 or self.high_all < 0)


def compare(study: StudyReport) -> list[Comparison]:
    """Every variant but the baseline on every measure that both have with some seed in common.

    A published checkpoint is none: it is one pre-training, its seeds are those of fine-tuning.
    """
    pairs = []
    for row in (row for row in study.rows if not row.reference):
        for measure in study.measures:
            ours, theirs = study.by_seed(row.name, measure.name), study.by_seed(BASELINE, measure.name)
            shared = tuple(seed for seed in ours if seed in theirs)
            if row.name != BASELINE and shared:
                pairs.append((row.name, measure, shared, [ours[seed] - theirs[seed] for seed in shared]))
    families = {measure.family: sum(m.family == measure.family for _, m, _, _ in pairs) for _, measure, _, _ in pairs}
    found = [
        paired(name, measure.name, measure.family, seeds, differences, families[measure.family])
        for name, measure, seeds, differences in pairs
    ]
    return [c for family in families for c in _corrected([c for c in found if c.family == family])]


def paired(
    variant: str, measure: str, family: str, seeds: tuple[int, ...], differences: Sequence[float], comparisons: int
) -> Comparison:
    """One comparison among ``comparisons``."""
    values, count = np.asarray(differences, dtype=np.float64), len(differences)
    mean = float(values.mean())
    if count < 2:
        nan = math.nan
        return Comparison(variant, measure, family, seeds, mean, nan, nan, nan, nan, nan, nan, nan, None)
    sd = float(values.std(ddof=1))
    sd = sd if sd > _NO_SPREAD else 0.0
    error = sd / math.sqrt(count)
    half = float(stats.t.ppf(1 - LEVEL / 2, count - 1)) * error
    half_all = float(stats.t.ppf(1 - LEVEL / 2 / comparisons, count - 1)) * error
    return Comparison(
        variant,
        measure,
        family,
        seeds,
        mean,
        sd,
        mean - half,
        mean + half,
        mean - half_all,
        mean + half_all,
        mean / sd if sd else math.nan,
        detectable(count) * sd if sd else math.nan,
        sign_flip(values) if count >= SEEDS_FOR_TEST else None,
    )


def detectable(count: int) -> float:
    """The true mean, in standard deviations of the differences, that a two-sided paired t test finds with power 80 %.

    The power is integrated over the sd that a sample may show; the library's noncentral t fails with few degrees of freedom.
    """
    freedom = count - 1
    critical = stats.t.ppf(1 - LEVEL / 2, freedom)
    shares = (np.arange(_GRID) + 0.5) / _GRID
    bound = critical * np.sqrt(stats.chi2.ppf(shares, freedom) / freedom)

    def power_missing(effect: float) -> float:
        shift = effect * math.sqrt(count)
        return float((stats.norm.sf(bound - shift) + stats.norm.cdf(-bound - shift)).mean()) - POWER

    high = 1.0
    while power_missing(high) < 0:
        high *= 2
    return float(optimize.brentq(power_missing, 0.0, high))


def sign_flip(values: npt.NDArray[np.float64]) -> float:
    """Two-sided p of the mean under flips of the differences' signs: all of them up to 16 seeds, then a random sample."""
    count = len(values)
    if count <= _EXACT_SEEDS:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=count)))
        extreme = np.abs(signs @ values) >= abs(values.sum()) - 1e-9
        return float(extreme.mean())
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (_DRAWS, count))
    extreme = np.abs(signs @ values) >= abs(values.sum()) - 1e-9
    return float((1 + extreme.sum()) / (1 + _DRAWS))


def _corrected(comparisons: list[Comparison]) -> list[Comparison]:
    """Holm over those that have a p."""
    tested = [index for index, c in enumerate(comparisons) if c.p is not None]
    if not tested:
        return comparisons
    corrected = holm(np.array([comparisons[index].p for index in tested], dtype=np.float64))
    result = list(comparisons)
    for index, p in zip(tested, corrected.tolist(), strict=True):
        result[index] = replace(comparisons[index], p_holm=p)
    return result


def mean_and_sd(values: Mapping[int, float]) -> tuple[float, float]:
    """Over seeds; sd NaN for one."""
    found = np.array(list(values.values()), dtype=np.float64)
    return float(found.mean()), float(found.std(ddof=1)) if len(found) > 1 else math.nan
