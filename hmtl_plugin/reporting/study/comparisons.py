"""Variants against the baseline and against their ablations, paired by seed: differences, intervals, effect sizes, what
could have been seen at all.

The sample is the seeds of pre-training. A seed gives both variants the same initial encoder, pairs and masks. What
differs is the hierarchy, and chance all the same: trainings that begin alike drift apart by rounding alone
(docs/results.md, The study).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hmtl_plugin.reporting.study.data import BASELINE, Measure, StudyReport
from hmtl_plugin.statistics import LEVEL, detectable, holm, sign_flip, t_half_width

SEEDS_FOR_TEST = 6  # 2 ** 6 sign patterns: the smallest p is 1/32
_NO_SPREAD = 1e-9  # what adding equal values in another order leaves


@dataclass(frozen=True)
class Comparison:
    """One variant less another on one measure, over the seeds that both have.

    Attributes:
        against: the other: the baseline, or the variant that lacks just what this one adds.
        family: of the measure; intervals and p are corrected for the comparisons of one family with the baseline, or
            with ablations.
        mean, sd: of the differences; sd is NaN for one seed, as all that follows from it; 0: no spread, and no effect
            size.
        low, high: 95 % t interval of the mean.
        low_all, high_all: the same widened (Bonferroni) so that all intervals of the family hold together with 95 %.
        effect: mean / sd, Cohen's d of paired differences.
        detectable: the mean difference that a paired t test at 5 % would have found with 80 % power, the sd being what
            it was.
        detectable_all: the same at the level that is corrected as the intervals are.
        p: of the sign-flip permutation test, two-sided; None below `SEEDS_FOR_TEST` seeds.
        p_holm: corrected for the number of comparisons of the family that have a p.
    """

    variant: str
    against: str
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
    detectable_all: float
    p: float | None
    p_holm: float | None = None

    @property
    def descriptive(self) -> bool:
        """Too few seeds for a test."""
        return self.p is None

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval of this comparison alone does; without any spread among the seeds there is none to judge
        by.
        """
        return self.sd > 0 and (self.low > 0 or self.high < 0)

    @property
    def excludes_zero_among_all(self) -> bool:
        """Whether the interval does that is corrected for the number of comparisons."""
        return self.sd > 0 and (self.low_all > 0 or self.high_all < 0)


def compare(study: StudyReport) -> list[Comparison]:
    """Every variant less the baseline, and less its ablation, on every measure that both have with some seed in common.

    A published checkpoint is none: it is one pre-training, its seeds are those of fine-tuning.
    """
    found: list[Comparison] = []
    for with_ablation in (False, True):
        pairs = []
        for row in (row for row in study.rows if not row.reference):
            other = row.against if with_ablation else BASELINE
            for measure in study.measures:
                ours, theirs = study.by_seed(row.name, measure.name), study.by_seed(other, measure.name)
                shared = tuple(seed for seed in ours if seed in theirs)
                if shared and other != row.name and not (with_ablation and other == BASELINE):
                    pairs.append((row.name, other, measure, shared, [ours[seed] - theirs[seed] for seed in shared]))
        for family in dict.fromkeys(measure.family for _, _, measure, _, _ in pairs):
            of_family = [pair for pair in pairs if pair[2].family == family]
            number = sum(len(shared) > 1 for _, _, _, shared, _ in of_family)  # one seed has no interval to correct
            found += _corrected([paired(name, o, m, seeds, d, number) for name, o, m, seeds, d in of_family])
    return found


def paired(
    variant: str, against: str, measure: Measure, seeds: tuple[int, ...], differences: Sequence[float], comparisons: int
) -> Comparison:
    """One comparison among ``comparisons``."""
    values, count = np.asarray(differences, dtype=np.float64), len(differences)
    mean = float(values.mean())
    if count < 2:
        nan = math.nan
        return Comparison(
            variant, against, measure.name, measure.family, seeds, mean, nan, nan, nan, nan, nan, nan, nan, nan, None
        )
    sd = float(values.std(ddof=1))
    sd = sd if sd > _NO_SPREAD * max(1.0, float(np.abs(values).max())) else 0.0
    half, half_all = (float(t_half_width(sd, count, level)) for level in (LEVEL, LEVEL / comparisons))
    return Comparison(
        variant,
        against,
        measure.name,
        measure.family,
        seeds,
        mean,
        sd,
        mean - half,
        mean + half,
        mean - half_all,
        mean + half_all,
        mean / sd if sd else math.nan,
        detectable(count) * sd if sd else math.nan,
        detectable(count, LEVEL / comparisons) * sd if sd else math.nan,
        sign_flip(values) if count >= SEEDS_FOR_TEST else None,
    )


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
