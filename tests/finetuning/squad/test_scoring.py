"""SQuAD's scores against independent implementations, and where the two official versions differ."""

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmtl_plugin.errors import UserError
from hmtl_plugin.squad.files import Question, SquadFile, read_squad
from hmtl_plugin.squad.scoring import (
    GoldAnswers,
    answer_lengths,
    best_threshold,
    evaluate,
    normalised_words,
    random_span_baseline,
    score_questions,
)

PARTS = [
    "the",
    "The",
    "a",
    "an",
    "cat",
    "Cat's",
    "U.S.",
    "$5",
    "\u2014",
    "\u4e2d\u6587",
    "an-the",
    "\u00c9t\u00e9",
    "and",
    "\n",
    " ",
    "the_",
]
ANSWERS = st.lists(st.sampled_from(PARTS), max_size=5).map(" ".join)


def question(number: int, *answers: str, impossible: bool = False) -> Question:
    return Question(f"q{number}", "", 0, tuple((answer, 0) for answer in answers), impossible)


def one(predicted: str, *answers: str, version_2: bool = False) -> tuple[float, float]:
    exact_Q, f1_Q = score_questions({"q0": predicted}, GoldAnswers([question(0, *answers)], version_2))
    return float(exact_Q[0]), float(f1_Q[0])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("The  Cat's\u00a0Hat", "cats hat"),
        ("a an the", ""),
        ("an-the theatre", "anthe theatre"),  # punctuation goes before articles
        ("\u201cU.S.\u201d", "\u201cus\u201d"),  # only ASCII punctuation goes
        ("THE \u00c9t\u00e9", "\u00e9t\u00e9"),
    ],
)
def test_normalisation(answer: str, words: str) -> None:
    assert " ".join(normalised_words(answer)) == words


def test_the_best_gold_answer_counts_and_repeated_words_count_once_each() -> None:
    assert one("the cats", "dogs", "Cats!") == (1, 1)
    assert one("cat cat dog", "cat") == (0, pytest.approx(0.5))
    assert one("cat cat dog", "cat cat") == (0, pytest.approx(0.8))
    assert one("old cat", "grey dog", "cat of old") == (0, pytest.approx(0.8))


def test_versions_differ_where_nothing_is_left() -> None:
    assert one("the", "a") == (1, 0)
    assert one("the", "a", version_2=True) == (1, 1)
    assert one("", "a", "cat") == (1, 0)
    assert one("", "a", "cat", version_2=True) == (0, 0)  # "a" is no gold answer there
    assert one("cat", version_2=True) == (0, 0)
    with pytest.raises(UserError, match="question q0 has no gold answer"):
        one("cat")


def test_evaluate() -> None:
    questions = [question(0, "cat"), question(1, "old dog"), question(2, "x"), question(3, impossible=True)]
    predicted = {"q0": "the cat", "q1": "dog", "q3": "", "other": "cat"}  # q2 is missing
    assert evaluate(predicted, questions) == pytest.approx(
        {
            "exact": 50,
            "f1": 100 * (1 + 2 / 3 + 0 + 1) / 4,
            "total": 4,
            "HasAns_exact": 100 / 3,
            "HasAns_f1": 100 * (1 + 2 / 3) / 3,
            "HasAns_total": 3,
            "NoAns_exact": 100,
            "NoAns_f1": 100,
            "NoAns_total": 1,
        }
    )
    assert list(evaluate(predicted, questions[:3])) == ["exact", "f1", "total"]


@given(data=st.data(), version_2=st.booleans())
@settings(max_examples=60, deadline=None)
def test_against_torchmetrics(data: st.DataObject, version_2: bool) -> None:
    squad = pytest.importorskip("torchmetrics.functional.text", reason="torchmetrics is not installed").squad
    golds = data.draw(st.lists(st.lists(ANSWERS, min_size=1, max_size=3), min_size=1, max_size=4))
    predicted = {f"q{number}": data.draw(ANSWERS) for number in range(len(golds))}
    if version_2:
        golds = [[gold for gold in row if normalised_words(gold)] or [""] for row in golds]
    else:  # it scores nothing against nothing as 2.0 does
        golds = [[gold for gold in row if normalised_words(gold)] or ["cat"] for row in golds]
    questions = [question(number, *row) for number, row in enumerate(golds)]
    theirs = squad(
        [{"id": key, "prediction_text": text} for key, text in predicted.items()],
        [{"id": q.id, "answers": {"text": [t for t, _ in q.answers], "answer_start": [0]}} for q in questions],
    )
    ours = evaluate(predicted, GoldAnswers(questions, version_2))
    assert (ours["exact"], ours["f1"]) == pytest.approx((float(theirs["exact_match"]), float(theirs["f1"])), rel=1e-5)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_against_transformers(data: st.DataObject) -> None:
    name = "transformers.data.metrics.squad_metrics"
    peer = pytest.importorskip(name, reason="no transformers with the metrics of SQuAD (before 5.0)")
    golds = data.draw(st.lists(st.lists(ANSWERS, max_size=3), min_size=1, max_size=8))
    questions = [question(number, *row, impossible=not row) for number, row in enumerate(golds)]
    predicted = {q.id: data.draw(ANSWERS) for q in questions}
    odds = {q.id: data.draw(st.floats(-2, 2)) for q in questions}
    examples = [SimpleNamespace(qas_id=q.id, answers=[{"text": text} for text, _ in q.answers]) for q in questions]
    theirs = peer.squad_evaluate(examples, predicted, odds, no_answer_probability_threshold=9)
    cached = GoldAnswers(questions, version_2=True)
    ours = evaluate(predicted, cached)
    answered_Q = np.array([bool(predicted[q.id]) for q in questions])
    for metric, score_Q in zip(("exact", "f1"), score_questions(predicted, cached)):
        odds_Q = np.array([odds[q.id] for q in questions])
        value, threshold = best_threshold(odds_Q, score_Q, cached.has_answer, answered_Q)
        ours |= {f"best_{metric}": value, f"best_{metric}_thresh": threshold}
    assert ours == pytest.approx({key: theirs[key] for key in ours})


@given(
    rows=st.lists(st.tuples(st.floats(-5, 5), st.sampled_from([0.0, 0.3, 1.0]), st.booleans()), min_size=1, max_size=12)
)
@settings(deadline=None)
def test_no_threshold_is_better_and_the_threshold_gives_the_value(rows: list[tuple[float, float, bool]]) -> None:
    rows = list({row[0]: row for row in rows}.values())
    odds_Q, score_Q, has_Q = (np.array(column) for column in zip(*rows))
    score_Q = np.where(has_Q, score_Q, 0)

    def value(threshold: float) -> float:
        return 100 * float(np.where(odds_Q > threshold, ~has_Q, score_Q).mean())

    best, threshold = best_threshold(odds_Q, score_Q, has_Q)
    assert best == pytest.approx(max(value(t) for t in [-np.inf, *odds_Q]))
    assert value(threshold) == pytest.approx(best)


def test_an_empty_answer_loses_nothing_where_there_is_none() -> None:
    odds_Q, score_Q, has_Q = np.array([0.0, 1.0]), np.array([1.0, 1.0]), np.array([False, True])
    assert best_threshold(odds_Q, score_Q, has_Q) == (50.0, float(odds_Q.min()) - 1)
    assert best_threshold(odds_Q, score_Q, has_Q, np.array([False, True])) == (100.0, 1.0)


def test_random_spans() -> None:
    context = "one two three four"
    questions = [question(number, "two") for number in range(4000)]
    file = SquadFile("", [context], [0], questions, True)
    lengths = np.array([1, 1, 1, 9])
    scores = random_span_baseline(file, lengths, seed=1)
    assert scores == random_span_baseline(file, lengths, seed=1)
    assert scores["exact"] == pytest.approx(100 * 3 / 4 / 4, abs=2)
    assert scores["f1"] == pytest.approx(100 * (3 / 4 / 4 + 1 / 4 * 0.4), abs=2)
    blank = replace(file, contexts=[" "])
    assert random_span_baseline(blank, lengths)["f1"] == 0
    assert answer_lengths(replace(file, questions=[question(0, "a b", "c"), question(1)])).tolist() == [2]


def test_gold_answers_are_perfect_and_quick_to_score(real_data: Callable[[str], Path]) -> None:
    file = read_squad(real_data("squad_v1/dev-v1.1.json"))
    cached = GoldAnswers(file.questions)
    started = time.process_time()
    perfect = evaluate({q.id: q.answers[-1][0] for q in file.questions}, cached)
    next_ones = itertools.chain(file.questions[1:], file.questions[:1])
    wrong = evaluate({q.id: other.answers[0][0] for q, other in zip(file.questions, next_ones)}, cached)
    assert time.process_time() - started < 2
    # the last gold answer of one question is ".", and version 1.1 gives no F1 for nothing
    assert perfect == pytest.approx({"exact": 100, "f1": 100 * 10569 / 10570, "total": 10570})
    assert wrong["exact"] < wrong["f1"] < 10
    assert random_span_baseline(file, answer_lengths(file))["f1"] < 8
