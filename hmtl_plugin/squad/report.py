"""What a SQuAD run is worth: official scores with intervals, beside baselines that read no question."""

import numpy as np
import numpy.typing as npt

from hmtl_plugin.squad.files import SquadFile
from hmtl_plugin.squad.measure import QuestionScores, at_threshold
from hmtl_plugin.squad.scoring import (
    FloatArray,
    GoldAnswers,
    answer_lengths,
    best_threshold,
    random_span_baseline,
)
from hmtl_plugin.statistics import bootstrap_sums, percentiles


def report(found: QuestionScores, golds: GoldAnswers, valid: SquadFile, train: SquadFile) -> dict[str, float]:
    """Metrics of a run, in percent; ``score`` chooses among runs, ``low`` to ``high`` is its 95 % interval,
    ``baseline`` what it must beat.

    Version 1.1: F1, beside random spans of the contexts. Version 2.0: F1 on half of the questions at the threshold that
    was best on the other half, beside always and never answering; and as in the official way F1 and exact match at the
    threshold that is best on all of them, each at its own.
    """
    contexts_Q = np.array([question.context for question in valid.questions])
    if golds.version_2:
        return _report_version_2(found, golds, contexts_Q)
    random = random_span_baseline(valid, answer_lengths(train))
    f1 = 100 * float(found.f1_Q.mean())
    low, high = _interval(found.f1_Q, contexts_Q)
    exact = 100 * float(found.exact_Q.mean())
    shared = {"exact": exact, "f1": f1, "random_exact": random["exact"], "random_f1": random["f1"]}
    return {**shared, "score": f1, "low": low, "high": high, "baseline": random["f1"]}


def _report_version_2(found: QuestionScores, golds: GoldAnswers, contexts_Q: npt.NDArray[np.int64]) -> dict[str, float]:
    fitted_Q = contexts_Q % 2 == 0  # whole contexts, so that no paragraph is on both sides
    told_Q = ~fitted_Q
    if not (fitted_Q.any() and told_Q.any()):  # one context
        fitted_Q = told_Q = np.ones_like(fitted_Q)
    threshold = _best(found, golds, found.f1_Q, fitted_Q)[1]
    f1_Q, exact_Q = (at_threshold(value_Q, found, golds, threshold) for value_Q in (found.f1_Q, found.exact_Q))
    everywhere = np.ones_like(fitted_Q)
    best_f1, official = _best(found, golds, found.f1_Q, everywhere)
    always = at_threshold(found.f1_Q, found, golds, np.inf)[told_Q].mean()
    never = (~golds.has_answer)[told_Q].mean()
    low, high = _interval(f1_Q[told_Q], contexts_Q[told_Q])
    score = 100 * float(f1_Q[told_Q].mean())
    return {
        "half_f1": score,
        "half_exact": 100 * float(exact_Q[told_Q].mean()),
        "half_always_f1": 100 * float(always),
        "half_never_f1": 100 * float(never),
        "best_f1": best_f1,
        "best_exact": _best(found, golds, found.exact_Q, everywhere)[0],
        "threshold": official,
        "score": score,
        "low": low,
        "high": high,
        "baseline": 100 * float(max(always, never)),
    }


def _best(
    found: QuestionScores, golds: GoldAnswers, score_Q: FloatArray, chosen_Q: npt.NDArray[np.bool_]
) -> tuple[float, float]:
    return best_threshold(
        found.no_answer_Q[chosen_Q], score_Q[chosen_Q], golds.has_answer[chosen_Q], found.answered_Q[chosen_Q]
    )


def _interval(score_Q: FloatArray, contexts_Q: npt.NDArray[np.int64]) -> tuple[float, float]:
    """95 % bootstrap interval of the mean in percent; contexts are drawn, for their questions are no independent
    samples.
    """
    _, group_Q = np.unique(contexts_Q, return_inverse=True)
    drawn_R2 = bootstrap_sums(np.stack([np.bincount(group_Q, score_Q), np.bincount(group_Q).astype(np.float64)], 1))
    low, high = percentiles(100 * drawn_R2[:, 0] / drawn_R2[:, 1])
    return float(low), float(high)
