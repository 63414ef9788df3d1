"""SQuAD's official scores: exact match and F1 over words, the best over a question's gold answers.

Versions 1.1 and 2.0 differ where nothing is left of an answer once it is normalised. In 1.1 such a gold answer counts
like any other, and F1 with it is 0. In 2.0 it is no gold answer, a question without one has the empty answer for gold,
and where one side is empty F1 is 1 if both are. A missing prediction scores 0.

Not by torchmetrics, with which tests compare: it scores what is empty in 1.1 as in 2.0, and gives sums alone.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from hmtl_plugin.errors import UserError
from hmtl_plugin.squad.files import Question, SquadFile

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
FloatArray = npt.NDArray[np.float64]
_Words = tuple[str, ...]


def normalised_words(answer: str) -> _Words:
    """The words that are compared: in lower case, without ASCII punctuation and articles."""
    return tuple(_ARTICLES.sub(" ", answer.lower().translate(_NO_PUNCTUATION)).split())


class GoldAnswers:
    """The questions of a file with the words of their gold answers, made once for many scorings.

    Args:
        version_2: score as SQuAD 2.0 does; by default if a question is marked impossible.

    Attributes:
        has_answer: (Q,) whether a question has an answer in its context.
    """

    def __init__(self, questions: Sequence[Question], version_2: bool | None = None) -> None:
        self.ids = [question.id for question in questions]
        self.version_2 = any(q.impossible for q in questions) if version_2 is None else version_2
        self.has_answer = np.array([bool(question.answers) for question in questions])
        self.words = [self._golds(question) for question in questions]

    def __len__(self) -> int:
        return len(self.ids)

    def _golds(self, question: Question) -> set[_Words]:
        golds = {normalised_words(text) for text, _ in question.answers}
        if self.version_2:
            return (golds - {()}) or {()}
        if not golds:
            raise UserError(f"question {question.id} has no gold answer: its file serves predictions only")
        return golds


def score_questions(
    predicted: Mapping[str, str], questions: Sequence[Question] | GoldAnswers
) -> tuple[FloatArray, FloatArray]:
    """(Q,) exact match (0 or 1) and (Q,) F1 (0 to 1) of each question's predicted answer, given by question id; ids of
    other questions are ignored.
    """
    golds = questions if isinstance(questions, GoldAnswers) else GoldAnswers(questions)
    scores_Q2 = np.zeros((len(golds), 2))
    for number, (question_id, words) in enumerate(zip(golds.ids, golds.words, strict=True)):
        if question_id in predicted:
            answer = normalised_words(predicted[question_id])
            scores_Q2[number] = answer in words, max(_f1(answer, gold, golds.version_2) for gold in words)
    return scores_Q2[:, 0], scores_Q2[:, 1]


def _f1(predicted: _Words, gold: _Words, version_2: bool) -> float:
    if version_2 and not (predicted and gold):
        return float(predicted == gold)
    shared = (Counter(predicted) & Counter(gold)).total()
    if not shared:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(gold)
    return 2 * precision * recall / (precision + recall)


def evaluate(predicted: Mapping[str, str], questions: Sequence[Question] | GoldAnswers) -> dict[str, float]:
    """``exact`` and ``f1`` in percent and ``total``; for 2.0 also ``HasAns_*`` and ``NoAns_*``, each where there are
    such.

    Args:
        predicted: answer by question id; the empty text says that there is none.
    """
    golds = questions if isinstance(questions, GoldAnswers) else GoldAnswers(questions)
    exact_Q, f1_Q = score_questions(predicted, golds)
    parts = {"": np.ones(len(golds), dtype=np.bool_)}
    if golds.version_2:
        parts |= {"HasAns_": golds.has_answer, "NoAns_": ~golds.has_answer}
    return {
        name: value
        for prefix, chosen_Q in parts.items()
        if chosen_Q.any()
        for name, value in (
            (f"{prefix}exact", 100 * float(exact_Q[chosen_Q].mean())),
            (f"{prefix}f1", 100 * float(f1_Q[chosen_Q].mean())),
            (f"{prefix}total", int(chosen_Q.sum())),
        )
    }


def best_threshold(
    no_answer_score_Q: FloatArray,
    score_Q: FloatArray,
    has_answer_Q: npt.NDArray[np.bool_],
    answered_Q: npt.NDArray[np.bool_] | None = None,
) -> tuple[float, float]:
    """The best mean score (percent) and the threshold that gives it: no answer where ``no_answer_score`` is above it.

    Args:
        no_answer_score_Q: (Q,) how much speaks for no answer.
        score_Q: (Q,) exact match or F1 of answering.
        answered_Q: (Q,) whether the answer has any text; by default all have.

    As in the official script questions of equal score are told apart. Where it is best never to answer the threshold is
    below all scores (the official script says 0, above which they may not be).
    """
    order = np.argsort(no_answer_score_Q, kind="stable")
    spoiled_Q = np.ones(len(score_Q)) if answered_Q is None else answered_Q.astype(np.float64)
    gain_Q = np.where(has_answer_Q, score_Q, -spoiled_Q)[order]
    value_Q = np.cumsum(np.append(float((~has_answer_Q).sum()), gain_Q))
    best = int(value_Q.argmax())
    threshold = float(no_answer_score_Q[order[best - 1]] if best else no_answer_score_Q[order[0]] - 1)
    return 100 * float(value_Q[best]) / len(score_Q), threshold


def answer_lengths(file: SquadFile) -> npt.NDArray[np.int64]:
    """(answerable questions,) words of the first answer of each."""
    return np.array([len(question.answers[0][0].split()) for question in file.questions if question.answers])


def random_span_baseline(file: SquadFile, lengths: npt.NDArray[np.int64], seed: int = 0) -> dict[str, float]:
    """`evaluate` of random spans of the contexts' words, of lengths drawn from the training answers'
    (`answer_lengths`).
    """
    random = np.random.default_rng(seed)
    words = [context.split() for context in file.contexts]
    counts_Q = np.array([len(words[question.context]) for question in file.questions])
    length_Q = np.minimum(random.choice(lengths, len(counts_Q)), counts_Q)
    start_Q = random.integers(0, counts_Q - length_Q, endpoint=True)
    spans = zip(file.questions, start_Q.tolist(), length_Q.tolist(), strict=True)
    predicted = {question.id: " ".join(words[question.context][start : start + n]) for question, start, n in spans}
    return evaluate(predicted, GoldAnswers(file.questions))
