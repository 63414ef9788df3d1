"""Exact match and F1 of a labelled split from the best span of each window; in 2.0 with the threshold that suits it
best.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hmtl_plugin.data.corpus import Int64Array
from hmtl_plugin.squad.dataset import SquadSplit
from hmtl_plugin.squad.decoding import LOWEST
from hmtl_plugin.squad.files import read_squad
from hmtl_plugin.squad.scoring import FloatArray, GoldAnswers, best_threshold, score_questions
from hmtl_plugin.squad.windows import Windows

COLUMNS = 5  # of a window: how often it was seen, no-answer score, best score, first and last token of that span


class QuestionScores(NamedTuple):
    """Every question's scores (0 to 1) if the best span is its answer, and how much speaks for none.

    Attributes:
        exact_Q, f1_Q: of answering.
        no_answer_Q: score of no answer less that of the best span.
        answered_Q: whether the span has any text.
    """

    exact_Q: FloatArray
    f1_Q: FloatArray
    no_answer_Q: FloatArray
    answered_Q: npt.NDArray[np.bool_]


class SquadScorer:
    """Scores of a split's questions.

    Args:
        version_2: whether a question may have no answer.
    """

    def __init__(self, split: SquadSplit, windows: Windows, version_2: bool) -> None:
        self.split, self.windows, self.version_2 = split, windows, version_2
        self.file = read_squad(split.source)
        self.golds = GoldAnswers(self.file.questions, version_2)
        self._first_Q = np.searchsorted(windows.question, np.arange(len(self.golds)))

    def text(self, question: int, begin: int, end: int) -> str:
        """The context's text of tokens ``begin`` to ``end``; a last token that is but a space adds none."""
        context = int(self.split.table["context"][question])
        row = int(self.split.offset_start[context])
        first, last = int(self.split.offsets[row + begin, 0]), int(self.split.offsets[row + end, 1])
        return self.file.contexts[context][first:last].rstrip()

    def best(self, rows_W5: FloatArray) -> tuple[list[str], FloatArray]:
        """The answer of each question, empty where it has no span, and (Q,) how much speaks for none."""
        seen_W = np.maximum(rows_W5[:, 0], 1)
        no_answer_W, score_W, begin_W, end_W = (rows_W5[:, 1:] / seen_W[:, None]).T
        score_W = np.where(rows_W5[:, 0] > 0, score_W, LOWEST)
        no_answer_W = np.where(rows_W5[:, 0] > 0, no_answer_W, -LOWEST)
        best_Q = self._best_window(score_W)
        texts = [
            self.text(question, round(begin_W[window]), round(end_W[window])) if score_W[window] > LOWEST / 2 else ""
            for question, window in enumerate(best_Q.tolist())
        ]
        return texts, np.minimum.reduceat(no_answer_W, self._first_Q) - score_W[best_Q]

    def _best_window(self, score_W: FloatArray) -> Int64Array:
        """(Q,) the window with each question's highest score."""
        order = np.lexsort((-score_W, self.windows.question))  # windows of a question in a row, best first
        return order[self._first_Q]

    def score(self, texts: Sequence[str], no_answer_Q: FloatArray) -> QuestionScores:
        """Scores of these answers, one a question in the order of the file."""
        exact_Q, f1_Q = score_questions(dict(zip(self.golds.ids, texts, strict=True)), self.golds)
        return QuestionScores(exact_Q, f1_Q, no_answer_Q, np.array([bool(text) for text in texts]))

    def measure(self, rows_W5: FloatArray) -> dict[str, float]:
        """From the sums over batches and ranks of each window's `COLUMNS`: ``exact`` and ``f1`` in percent, and
        ``score``, which is F1; in 2.0 at the threshold with the best F1.
        """
        found = self.score(*self.best(rows_W5))
        if not self.version_2:
            exact, f1 = 100 * float(found.exact_Q.mean()), 100 * float(found.f1_Q.mean())
            return {"exact": exact, "f1": f1, "score": f1}
        _, threshold = best_threshold(found.no_answer_Q, found.f1_Q, self.golds.has_answer, found.answered_Q)
        exact_Q, f1_Q = (at_threshold(value_Q, found, self.golds, threshold) for value_Q in found[:2])
        f1 = 100 * float(f1_Q.mean())
        return {"exact": 100 * float(exact_Q.mean()), "f1": f1, "score": f1, "threshold": threshold}


def at_threshold(score_Q: FloatArray, found: QuestionScores, golds: GoldAnswers, threshold: float) -> FloatArray:
    """(Q,) scores where questions with ``no_answer_Q`` above the threshold get no answer."""
    return np.where(found.no_answer_Q > threshold, (~golds.has_answer).astype(np.float64), score_Q)
