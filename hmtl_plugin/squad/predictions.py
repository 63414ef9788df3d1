"""Answers in the official files: ``predictions.json``, ``nbest.json``, ``null_odds.json``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hmtl_plugin.files.publishing import write_json
from hmtl_plugin.squad.decoding import LOWEST, Candidate, WindowSpans, candidates

NBEST = 20


@dataclass(frozen=True)
class Answer:
    """A way to answer a question; the empty text says that the context has no answer.

    Attributes:
        probability: softmax over the scores of the ways that are listed.
    """

    text: str
    probability: float
    start_logit: float
    end_logit: float


@dataclass(frozen=True)
class Prediction:
    """What a model says to a question.

    Attributes:
        answers: best first, each text once; in 2.0 no answer is one of them.
        best: text of the best span, empty where there is none.
        no_answer: score of having no answer less that of the best span.
    """

    id: str
    answers: list[Answer]
    best: str
    no_answer: float

    def answer(self, threshold: float) -> str:
        """The text, or the empty text where ``no_answer`` is above the threshold (infinity: never, as in 1.1)."""
        return "" if self.no_answer > threshold else self.best


def predict(
    spans: WindowSpans, ids: Sequence[str], text: Callable[[int, int, int], str], version_2: bool
) -> list[Prediction]:
    """A prediction for each question.

    Args:
        text: of a question's number and the first and last token of a span.
        version_2: whether no answer is listed among the answers.
    """
    predictions = []
    for question, found, no_answer in candidates(spans, NBEST):
        ways: dict[str, Candidate] = {}
        for span in found:
            ways.setdefault(text(question, span.begin, span.end), span)
        ways.pop("", None)  # pieces that stand for nothing visible are no answer
        best = next(iter(ways), "")
        margin = no_answer - (ways[best].score if ways else LOWEST)
        predictions.append(Prediction(ids[question], _answers(ways, no_answer, version_2), best, margin))
    return predictions


def _answers(ways: dict[str, Candidate], no_answer: float, version_2: bool) -> list[Answer]:
    rows = [(text, span.score, span.start_logit) for text, span in ways.items()]
    if version_2 or not rows:
        rows.append(("", no_answer, no_answer / 2))
    rows.sort(key=lambda row: -row[1])
    shares = np.exp(np.array([score for _, score, _ in rows]) - rows[0][1])
    shares /= shares.sum()
    return [
        Answer(text, float(share), start, score - start)
        for (text, score, start), share in zip(rows, shares, strict=True)
    ]


def write_predictions(predictions: Sequence[Prediction], threshold: float, folder: Path) -> None:
    """The three files, each written beside and renamed."""
    write_json(folder / "predictions.json", {p.id: p.answer(threshold) for p in predictions})
    write_json(folder / "null_odds.json", {p.id: p.no_answer for p in predictions})
    write_json(folder / "nbest.json", {p.id: [vars(answer) for answer in p.answers] for p in predictions})
