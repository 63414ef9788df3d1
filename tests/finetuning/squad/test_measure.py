"""Scores from the best span of each window, and the report of a run, against slow references and by hand."""

import json
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmtl_plugin.squad.dataset import SquadSplit
from hmtl_plugin.squad.decoding import LOWEST
from hmtl_plugin.squad.files import Question, SquadFile, read_squad
from hmtl_plugin.squad.measure import QuestionScores, SquadScorer
from hmtl_plugin.squad.prepare import prepare_squad
from hmtl_plugin.squad.report import report
from hmtl_plugin.squad.scoring import (
    FloatArray,
    GoldAnswers,
    answer_lengths,
    normalised_words,
    random_span_baseline,
    score_questions,
)
from hmtl_plugin.squad.windows import Windows
from hmtl_plugin.tokenizers.base import Tokenizer
from hmtl_plugin.tokenizers.offsets import encode_with_offsets
from tests.finetuning.squad.runs import Trained
from tests.finetuning.squad.texts import random_squad

TRAIN = SquadFile("", ["one two three"], [0], [Question("t", "", 0, (("one two", 0),), False)], True)


class Asked(NamedTuple):
    """A scorer and what it is made of; the context of each question with the characters of its tokens."""

    scorer: SquadScorer
    file: SquadFile
    windows: Windows
    contexts: list[tuple[str, list[list[int]]]]


@pytest.fixture(scope="module", params=[False, True], ids=["1.1", "2.0"])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Asked:
    folder = tmp_path_factory.mktemp("measure")
    path = random_squad(folder / "dev.json", 7, 30, longest=40, impossible=0.4 if request.param else 0.0)
    prepare_squad(None, path, None, folder / "out", tokenizer.dictionary(), tokenizer, 1)
    split = SquadSplit(folder / "out" / "valid")
    windows = split.windows(40, 11, 12)
    assert np.bincount(windows.question).max() > 1
    file = read_squad(path)
    contexts = [file.contexts[question.context] for question in file.questions]
    offsets = [encode_with_offsets(tokenizer, [context])[2].tolist() for context in contexts]
    return Asked(SquadScorer(split, windows, request.param), file, windows, list(zip(contexts, offsets, strict=True)))


def random_rows(asked: Asked, seed: int) -> FloatArray:
    """What the criterion adds up for every window; half of the questions with a right answer somewhere."""
    random, windows = np.random.default_rng(seed), asked.windows
    rows_W5 = np.zeros((len(windows), 5))
    for window, row in enumerate(rows_W5):
        start, length = int(windows.start[window]), int(windows.length[window])
        first = start + int(random.integers(length))
        last = min(first + int(random.integers(4)), start + length - 1)
        row[:] = 1, random.normal() * 2, random.normal() * 2, first, last
        question = int(windows.question[window])
        begin, end = (int(asked.scorer.split.table[name][question]) for name in ("begin", "end"))
        if begin >= start and end < start + length and random.random() < 0.5:
            row[2:] = row[2] + 2, begin, end
        context, offsets = asked.contexts[question]
        if not normalised_words(context[offsets[int(row[3])][0] : offsets[int(row[4])][1]]):
            row[2] -= 20  # "the" is right where there is no answer, which the official thresholds do not know
    return rows_W5.astype(np.float32).astype(np.float64)


def slow_answers(asked: Asked, rows_W5: FloatArray) -> tuple[dict[str, str], dict[str, float]]:
    """Answer and margin of no answer by question id, one question at a time."""
    texts, odds = {}, {}
    for number, question in enumerate(asked.file.questions):
        rows = [row for window, row in enumerate(rows_W5.tolist()) if asked.windows.question[window] == number]
        _, _, score, begin, end = max(rows, key=lambda row: row[2])
        context, offsets = asked.contexts[number]
        texts[question.id] = context[offsets[int(begin)][0] : offsets[int(end)][1]].strip()
        odds[question.id] = min(row[1] for row in rows) - score
    return texts, odds


def official(asked: Asked, texts: dict[str, str], odds: dict[str, float], threshold: float) -> tuple[float, float]:
    """Exact match and F1; where no answer is given, it is right if the file gives none."""
    golds = GoldAnswers(asked.file.questions, asked.scorer.version_2)
    silent_Q = np.array([odds[question.id] > threshold for question in asked.file.questions])
    exact_Q, f1_Q = (np.where(silent_Q, ~golds.has_answer, score_Q) for score_Q in score_questions(texts, golds))
    return 100 * float(exact_Q.mean()), 100 * float(f1_Q.mean())


@pytest.mark.parametrize("seed", range(4))
def test_scores_of_windows_are_those_of_their_questions_answers(asked: Asked, seed: int) -> None:
    rows_W5 = random_rows(asked, seed)
    texts, odds = slow_answers(asked, rows_W5)
    found = asked.scorer.measure(rows_W5)
    assert (found["exact"], found["f1"]) == pytest.approx(official(asked, texts, odds, found.get("threshold", np.inf)))
    assert found["score"] == found["f1"]
    assert 0 < found["exact"] < found["f1"] < 100
    assert ("threshold" in found) == asked.scorer.version_2
    if asked.scorer.version_2:  # no other threshold is better
        others = [official(asked, texts, odds, threshold)[1] for threshold in [*odds.values(), -np.inf, np.inf]]
        assert found["f1"] == pytest.approx(max(others))
        assert others[-1] < found["f1"]


def test_a_window_that_was_shown_twice_counts_once(asked: Asked) -> None:
    rows_W5 = random_rows(asked, 0)
    shown_W = np.random.default_rng(1).integers(1, 4, len(rows_W5))
    assert asked.scorer.measure(rows_W5 * shown_W[:, None]) == pytest.approx(asked.scorer.measure(rows_W5))
    texts, _ = slow_answers(asked, rows_W5)
    found, _ = asked.scorer.best(rows_W5 * shown_W[:, None])
    assert [text.strip() for text in found] == list(texts.values())


def test_a_question_without_spans_has_the_empty_answer(asked: Asked) -> None:
    rows_W5 = random_rows(asked, 0)
    rows_W5[asked.windows.question == 3, 2] = np.float32(LOWEST)
    found, no_answer_Q = asked.scorer.best(rows_W5)
    texts = [text.strip() for text in found]
    expected = list(slow_answers(asked, rows_W5)[0].values())
    assert texts[3] == ""
    assert texts[:3] + texts[4:] == expected[:3] + expected[4:]
    assert no_answer_Q.argmax() == 3


def test_never_answering_is_a_threshold_too(asked: Asked) -> None:
    if not asked.scorer.version_2:
        return  # version 1.1 has no threshold
    rows_W5 = random_rows(asked, 0)
    rows_W5[:, 1] -= 100 * (rows_W5[:, 1] > -100)  # every question is surely answered
    rows_W5[:, 3:] = np.stack([asked.windows.start, asked.windows.start], axis=1)  # wrongly
    never = 100 * float(np.mean([question.impossible for question in asked.file.questions]))
    assert asked.scorer.measure(rows_W5)["f1"] >= never


class Found(NamedTuple):
    """Questions as `report` is given them."""

    file: SquadFile
    scores: QuestionScores

    def report(self) -> dict[str, float]:
        golds = GoldAnswers(self.file.questions, any(q.impossible for q in self.file.questions))
        return report(self.scores, golds, self.file, TRAIN)


def found(rows: list[tuple[int, bool, float, float]]) -> Found:
    """Of (context, whether it has an answer, F1 of answering, score of no answer); an exact match is an F1 of 1."""
    questions = [
        Question(f"q{number}", "", context, (("two", 4),) if has else (), not has)
        for number, (context, has, _, _) in enumerate(rows)
    ]
    contexts = ["one two three four"] * (1 + max(row[0] for row in rows))
    f1_Q = np.array([f1 if has else 0.0 for _, has, f1, _ in rows])
    scores = QuestionScores(
        (f1_Q == 1).astype(np.float64), f1_Q, np.array([row[3] for row in rows]), np.ones(len(rows), dtype=np.bool_)
    )
    return Found(SquadFile("", contexts, [0] * len(contexts), questions, True), scores)


ROWS = st.lists(
    st.tuples(st.integers(0, 5), st.booleans(), st.sampled_from([0.0, 0.4, 1.0]), st.floats(-5, 5, width=16)),
    min_size=2,
    max_size=14,
).filter(lambda rows: len({row[0] % 2 for row in rows}) == 2 and not all(row[1] for row in rows))


def mean_f1(rows: list[tuple[int, bool, float, float]], threshold: float) -> float:
    return 100 * float(np.mean([(not has) if odds > threshold else f1 * has for _, has, f1, odds in rows]))


@given(rows=ROWS)
@settings(deadline=None)
def test_the_threshold_of_one_half_of_the_contexts_is_measured_on_the_other(
    rows: list[tuple[int, bool, float, float]],
) -> None:
    """Each question has another score, so that all that one half says of the other is its threshold."""
    rows = [(context, has, f1, odds + number / 100) for number, (context, has, f1, odds) in enumerate(rows)]
    halves = [[row for row in rows if row[0] % 2 == half] for half in (0, 1)]
    thresholds = [row[3] for row in halves[0]]
    best = max([mean_f1(halves[0], threshold) for threshold in thresholds])
    metrics = found(rows).report()
    if best > mean_f1(halves[0], -np.inf):  # else it is best never to answer
        suited = [mean_f1(halves[1], t) for t in thresholds if mean_f1(halves[0], t) == pytest.approx(best)]
        assert any(metrics["half_f1"] == pytest.approx(value) for value in suited)
    assert metrics["score"] == metrics["half_f1"]
    assert metrics["half_always_f1"] == pytest.approx(mean_f1(halves[1], np.inf))
    assert metrics["half_never_f1"] == pytest.approx(mean_f1(halves[1], -np.inf))
    assert metrics["baseline"] == max(metrics["half_always_f1"], metrics["half_never_f1"])
    assert metrics["best_f1"] == pytest.approx(max(mean_f1(rows, t) for t in [-np.inf, *(row[3] for row in rows)]))
    assert metrics["low"] - 1e-9 <= metrics["score"] <= metrics["high"] + 1e-9


def test_a_threshold_that_suits_all_is_not_that_of_the_half() -> None:
    """On even contexts it is best to answer up to 1, on all of them, and on odd ones, up to 3."""
    even = [(0, True, 1.0, 1.0), (2, False, 0.0, 2.0), (2, True, 0.5, 3.0)]
    odd = [(1, True, 1.0, 1.0), (1, False, 0.0, 4.0), *[(3, True, 1.0, 3.0)] * 2]
    metrics = found(even + odd).report()
    assert metrics["threshold"] == 3
    assert metrics["best_f1"] == pytest.approx(100 * (1 + 0 + 0.5 + 4) / 7)
    assert metrics["best_exact"] == pytest.approx(100 * 5 / 7)
    assert metrics["half_f1"] == metrics["half_exact"] == 50
    assert (metrics["half_always_f1"], metrics["half_never_f1"], metrics["baseline"]) == (75, 25, 75)


def test_a_half_that_says_never_to_answer() -> None:
    rows = [(0, False, 0.0, -1.0), (0, True, 0.0, -2.0), (1, False, 0.0, -1.0), (1, True, 0.0, -3.0)]
    assert found(rows).report()["half_f1"] == 50


def test_one_context_is_measured_on_itself() -> None:
    metrics = found([(0, True, 1.0, 1.0), (0, False, 0.0, 2.0)]).report()
    assert metrics["half_f1"] == metrics["best_f1"] == 100


def test_version_1_1_beside_random_spans() -> None:
    rows = [(number % 7, True, (0.0, 0.4, 1.0)[number % 3], 0.0) for number in range(60)]
    questions = found(rows)
    metrics = questions.report()
    assert metrics["f1"] == metrics["score"] == pytest.approx(100 * (0 + 0.4 + 1) / 3)
    assert metrics["exact"] == pytest.approx(100 / 3)
    random = random_span_baseline(questions.file, np.array([2]))  # words of the training answer
    assert metrics["baseline"] == metrics["random_f1"] == random["f1"] > 0
    assert metrics["random_exact"] == random["exact"]


@pytest.mark.parametrize("copies", [1, 5])
def test_the_interval_is_that_of_contexts(copies: int) -> None:
    """Five questions of one context with one score say no more than one."""
    f1 = np.random.default_rng(0).choice([0.0, 1.0], 300, p=[0.3, 0.7])
    metrics = found([(number, True, value, 0.0) for number, value in enumerate(f1) for _ in range(copies)]).report()
    half = 100 * 1.96 * f1.std() / len(f1) ** 0.5
    assert metrics["low"] == pytest.approx(metrics["f1"] - half, abs=0.15 * half)
    assert metrics["high"] == pytest.approx(metrics["f1"] + half, abs=0.15 * half)


def test_recorded_metrics_are_the_official_scores_of_the_predictions(trained: Trained) -> None:
    squad = pytest.importorskip("torchmetrics.functional.text", reason="torchmetrics is not installed").squad
    predicted = json.loads((trained.folder / "predictions.json").read_text())
    questions = read_squad(trained.dev).questions
    theirs = squad(
        [{"id": key, "prediction_text": text} for key, text in predicted.items()],
        [
            {"id": q.id, "answers": {"text": [text for text, _ in q.answers] or [""], "answer_start": [0]}}
            for q in questions
        ],
    )
    metrics = trained.metrics
    assert metrics["best_f1" if trained.version_2 else "f1"] == pytest.approx(float(theirs["f1"]), rel=1e-5)
    if not trained.version_2:
        assert metrics["exact"] == pytest.approx(float(theirs["exact_match"]), rel=1e-5)
    assert metrics["low"] <= metrics["score"] <= metrics["high"]


def test_a_trained_model_is_better_than_what_knows_no_question(trained: Trained) -> None:
    assert trained.metrics["low"] > trained.metrics["baseline"] + 20
    file = read_squad(trained.dev)
    if trained.version_2:
        told = [question.impossible for question in file.questions if question.context % 2]
        assert trained.metrics["half_never_f1"] == pytest.approx(100 * np.mean(told))
    else:
        lengths = answer_lengths(read_squad(trained.data / "train" / "source.json"))
        assert trained.metrics["baseline"] == random_span_baseline(file, lengths)["f1"] > 0
