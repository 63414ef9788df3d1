"""How an objective is measured on held-out samples: sums of what a model says of each target, and values made of them.

Sums of targets add up to sums of samples, and these to sums of a bootstrap draw, so that intervals never take the
targets of one sample for independent.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hmtl_plugin.corruption.base import Corruption
from hmtl_plugin.counting.bigrams import BigramCounts
from hmtl_plugin.data.pairing import PairingConfig
from hmtl_plugin.objectives import roc
from hmtl_plugin.statistics import bootstrap_sums, percentiles

FloatArray = npt.NDArray[np.float64]
Sums = dict[str, Tensor]
"""Of M targets, (M, K) each, what adds up to ``value``; where there are such, in the same columns what adds up to the
value of ``counts`` (counting the training text) and of ``sizes`` (of two segments alone); and to the ``baseline``."""
VALUE, BASELINE, COUNTS, SIZES = "value", "baseline", "counts", "sizes"


@dataclass(frozen=True)
class Metric:
    """A kind of value.

    Attributes:
        name: in records.
        unit, digits: as tables show it.
        baseline: what its value without a model is called.
        lower_is_better: as of a loss.
        report_unit, as_reported: as reports of studies show it; None: as elsewhere.
    """

    name: str
    unit: str
    digits: int
    baseline: str
    lower_is_better: bool = False
    report_unit: str | None = None
    as_reported: Callable[[float], float] = float


def _perplexity(loss: float) -> float:
    """Of nats; infinite where it is too large for a number."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


METRICS: dict[str, Metric] = {}


def register_metric(metric: Metric) -> Metric:
    """Make a kind of value known by its name, so that records of it can be shown.

    Raises:
        ValueError: if the name is that of another.
    """
    if METRICS.setdefault(metric.name, metric) != metric:
        raise ValueError(f"metric '{metric.name}' is registered twice")
    return metric


def find_metric(name: str) -> Metric:
    """That of a record; one that nobody has registered here is shown as it is."""
    return METRICS.get(name, Metric(name, name, 3, BASELINE))


LOSS = register_metric(Metric("loss", "loss (nats)", 3, "unigram", True, "", _perplexity))
ACCURACY = register_metric(Metric("accuracy", "accuracy (%)", 1, "majority", False, "% right"))
AUC = register_metric(Metric("auc", "AUC", 3, "chance", False, "AUC, %", lambda value: 100.0 * value))
R2 = register_metric(Metric("r2", "R²", 3, "mean"))
BITS = register_metric(Metric("bits", "bits a character", 3, "unigram", True))


class Seen(NamedTuple):
    """Targets of a batch, and what a model said of them.

    Attributes:
        logits_MC: of each target, in fp32 on the host.
        labels_M: what is right: long classes, or numbers in fp64.
        positions_M: in the flattened tokens, or of samples.
        tokens_BT: what the model saw, on the host.
    """

    logits_MC: Tensor
    labels_M: Tensor
    positions_M: Tensor
    tokens_BT: Tensor

    def neighbours(self) -> tuple[npt.NDArray[np.int64], ...]:
        """(M,) pieces to the left of the targets, there, and to the right. Targets are never first or last in their
        row.
        """
        flat, positions = self.tokens_BT.flatten().numpy(), self.positions_M.numpy()
        return flat[positions - 1], flat[positions], flat[positions + 1]


class Sampling(NamedTuple):
    """How the samples of an evaluation are made, for counts of training text that is made into samples alike.

    Attributes:
        pairing: of sentences.
        corrupting: objectives whose corruption the samples go through.
        seed: of pairs and corruption.
    """

    pairing: PairingConfig
    corrupting: tuple[Corruption, ...]
    seed: int


@dataclass(frozen=True)
class Measure:
    """How one target is measured.

    Attributes:
        sums: of the targets of a batch, given what `Objective.count` returned.
        value: of added columns ``value``, ``counts`` or ``sizes`` (..., K).
        baseline: of the columns ``baseline`` (J,) of all samples; none of them where the sums have none.
    """

    metric: Metric
    sums: Callable[[Seen, Any], Sums]
    value: Callable[[FloatArray], FloatArray]
    baseline: Callable[[FloatArray], float]


def ratio(sums: FloatArray) -> FloatArray:
    """The first column over the second."""
    return sums[..., 0] / sums[..., 1]


def percent(sums: FloatArray) -> FloatArray:
    """The first column in percent of the second."""
    return 100 * ratio(sums)


def majority(sums: FloatArray) -> float:
    """Percent of the most frequent class, of the numbers of all."""
    return float(100 * sums.max() / sums.sum())


def with_ones(values_M: Tensor) -> Tensor:
    """(M, 2) values and 1: columns for `ratio` and `percent`."""
    values_M = values_M.double()
    return torch.stack([values_M, torch.ones_like(values_M)], 1)


def right_answers(seen: Seen, counted: Any = None) -> Sums:
    """Whether the likeliest class is the label; as the baseline the number of each class."""
    classes = seen.logits_MC.shape[1]
    return {
        VALUE: with_ones(seen.logits_MC.argmax(1) == seen.labels_M),
        BASELINE: torch.nn.functional.one_hot(seen.labels_M, classes).double(),
    }


def explained(sums: FloatArray) -> FloatArray:
    """Share of the variance that is explained (R²), of sums (..., 4) of squared errors, numbers, their
    squares and 1; NaN where all numbers are the same.
    """
    error, first, second, count = np.moveaxis(np.asarray(sums, dtype=np.float64), -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = second - first**2 / count
        return np.where(spread > 1e-9 * second, 1 - error / spread, np.nan)


def _squared_errors(seen: Seen, counted: Any = None) -> Sums:
    """What `explained` takes."""
    said_M, label_M = seen.logits_MC[:, 0].double(), seen.labels_M.double()
    return {VALUE: torch.stack([(said_M - label_M) ** 2, label_M, label_M**2, torch.ones_like(label_M)], 1)}


NEIGHBOURS = (
    "less than counting pairs of neighbours does, so whatever models of this size make of the order of words, it is less "
    "than these counts give."
)
"""What it means, in a report, to fall short of them."""
CLASSES = Measure(ACCURACY, right_answers, percent, majority)
"""Of targets with a label out of a few: right answers in percent, beside the most frequent class."""


def misplaced(seen: Seen, counted: BigramCounts) -> Sums:
    """Log-odds that a token is not what stood there, as histograms, see `roc`: the model's, and by how badly it fits
    between its neighbours, pointwise mutual information in nats.
    """
    misfit_M = -torch.from_numpy(counted.fit(*seen.neighbours()))
    theirs_M2 = torch.stack([torch.zeros_like(misfit_M), misfit_M / 4], 1)  # within the range of the bins
    return {VALUE: roc.one_hot(seen.logits_MC, seen.labels_M), COUNTS: roc.one_hot(theirs_M2, seen.labels_M)}


MISPLACED = Measure(AUC, misplaced, roc.area_under_curve, lambda sums: 0.5)
"""Of tokens with label 1 where something else stands than stood: the area under the ROC curve, as few of them have it.
Its objective counts `BigramCounts`."""


NUMBERS = Measure(R2, _squared_errors, explained, lambda sums: 0.0)
"""Of targets that are numbers: the share of their variance that is explained, of which their mean explains none."""


def estimate(measure: Measure, sums: Mapping[str, FloatArray]) -> tuple[float, float, float, float, dict[str, float]]:
    """Value, its 95 % bootstrap interval over samples, baseline, and values of ``counts`` and ``sizes``.

    Args:
        sums: of each sample, (samples, K) each.
    """
    own = sums[VALUE]
    low, high = percentiles(measure.value(bootstrap_sums(own)))
    baseline = measure.baseline(sums[BASELINE].sum(0) if BASELINE in sums else np.empty(0))
    others = {name: float(measure.value(sums[name].sum(0))) for name in (COUNTS, SIZES) if name in sums}
    return float(measure.value(own.sum(0))), float(low), float(high), baseline, others
