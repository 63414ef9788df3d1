"""GLUE's metrics over a whole validation set, in percent, their baseline and bootstrap interval.

By scikit-learn and SciPy, whose definitions the leaderboard's own script uses; here only what is undefined is decided:
predictions that do not vary correlate with nothing (0).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn import metrics as sk

from hmtl_plugin.glue.tasks import GlueTask
from hmtl_plugin.statistics import bootstrap_rows, bootstrap_sums, percentiles

Array = npt.NDArray[np.float64] | npt.NDArray[np.int64]
Weight = npt.NDArray[np.float64] | None


def _accuracy(predicted: Array, true: Array, weight: Weight = None) -> float:
    return float(np.average(predicted == true, weights=weight))


def _f1(predicted: Array, true: Array, weight: Weight = None) -> float:
    return float(sk.f1_score(true, predicted, pos_label=1, zero_division=0, sample_weight=weight))


def _matthews(predicted: Array, true: Array, weight: Weight = None) -> float:
    return float(sk.matthews_corrcoef(true, predicted, sample_weight=weight))


def _pearson(predicted: Array, true: Array, weight: Weight = None) -> float:
    return float(stats.pearsonr(predicted, true).statistic) if _varies(predicted, true) else 0.0


def _spearman(predicted: Array, true: Array, weight: Weight = None) -> float:
    return float(stats.spearmanr(predicted, true).statistic) if _varies(predicted, true) else 0.0


def _varies(predicted: Array, true: Array) -> bool:
    # values that differ by rounding alone have no correlation that means anything, and SciPy warns of them
    return all(np.std(values) > 1e-6 * max(1.0, float(np.abs(np.mean(values)))) for values in (predicted, true))


METRICS: dict[str, Callable[..., float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}


def compute(task: GlueTask, predicted: Array, true: Array, weight: Weight = None) -> dict[str, float]:
    """The task's metrics by name, and ``score``, their mean, which selects models; all times 100.

    Args:
        predicted, true: (N,) class ids in the order of ``task.labels``, or scores.
        weight: (N,) of each row, for classes; None: all alike.

    Raises:
        ValueError: if the two differ in length or there is nothing to measure.
    """
    if len(predicted) != len(true) or not len(true):
        raise ValueError(f"{len(predicted)} predictions for {len(true)} labels")
    values = {name: 100 * METRICS[name](predicted, true, weight) for name in task.metrics}
    return {**values, "score": float(np.mean(list(values.values())))}


@dataclass(frozen=True)
class Score:
    """A ``score`` on one validation set.

    Attributes:
        low, high: 95 % bootstrap interval over its rows (of this set: it says nothing of other seeds).
        baseline: the score of the best constant answer, learned on the training labels.
    """

    value: float
    low: float
    high: float
    baseline: float

    @property
    def better(self) -> bool:
        """Whether the interval lies above the baseline."""
        return self.low > self.baseline


def score(task: GlueTask, predicted: Array, true: Array, train: Array) -> Score:
    """The score with its interval, beside the baseline that the training labels ``train`` give."""
    low, high = percentiles(np.array(list(_drawn_scores(task, predicted, true))))
    return Score(
        compute(task, predicted, true)["score"],
        float(low),
        float(high),
        compute(task, constant(task, train, len(true)), true)["score"],
    )


def _drawn_scores(task: GlueTask, predicted: Array, true: Array) -> Iterator[float]:
    """Scores of bootstrap samples of the rows.

    Of classes it matters only how often each pair of predicted and true class is drawn, so metrics are computed of
    these few pairs, weighted.
    """
    if task.regression:
        for rows_N in bootstrap_rows(len(true)):
            yield compute(task, predicted[rows_N], true[rows_N])["score"]
        return
    both_N2 = np.stack([predicted, true], 1).astype(np.int64)
    pairs_C2, pair_N = np.unique(both_N2, axis=0, return_inverse=True)
    drawn_RC = bootstrap_sums(np.eye(len(pairs_C2), dtype=np.float32)[pair_N.ravel()])
    for weight_C in drawn_RC:
        yield compute(task, pairs_C2[:, 0], pairs_C2[:, 1], weight_C)["score"]


def constant(task: GlueTask, train: Array, rows: int) -> Array:
    """The answer that knows the training labels alone: their mean, or the class that scores best on them."""
    if task.regression:
        return np.full(rows, float(np.mean(train)))
    candidates = range(len(task.labels))
    best = max(candidates, key=lambda label: compute(task, np.full(len(train), label), train)["score"])
    return np.full(rows, best)
