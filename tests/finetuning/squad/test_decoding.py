"""The best spans against all spans, one at a time."""

from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hmtl_plugin.squad.decoding import (
    LOWEST,
    WindowSpans,
    best_spans,
    candidates,
    mask_outside,
    no_answer_scores,
)

Scores = dict[tuple[int, int], float]  # of (first, last)


class Batch(NamedTuple):
    """Windows of one width."""

    logits_BT2: torch.Tensor
    begin: list[int]
    length: list[int]


@st.composite
def batches(draw: st.DrawFn, windows: int | None = None) -> Batch:
    """Random logits; whole numbers, so that sums are exact and some are equal, the highest outside of contexts."""
    count = draw(st.integers(1, 4)) if windows is None else windows
    width = draw(st.integers(3, 14))
    begin = [draw(st.integers(2, width - 1)) for _ in range(count)]
    length = [draw(st.integers(0, width - 1 - first)) for first in begin]
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits_BT2 = random.integers(-draw(st.integers(1, 200)), 10, (count, width, 2)).astype(np.float32)
    for row, first, n in zip(logits_BT2, begin, length, strict=True):
        row[1:first] += 1000
        row[first + n :] += 1000
    return Batch(torch.from_numpy(logits_BT2), begin, length)


def masked(batch: Batch) -> torch.Tensor:
    return mask_outside(batch.logits_BT2, torch.tensor(batch.begin), torch.tensor(batch.length))


def all_spans(batch: Batch, row: int, max_answer: int) -> Scores:
    """Every span of a window's context, one at a time."""
    logits_T2 = batch.logits_BT2[row].tolist()
    stop = batch.begin[row] + batch.length[row]
    return {
        (first, last): logits_T2[first][0] + logits_T2[last][1]
        for first in range(batch.begin[row], stop)
        for last in range(first, min(first + max_answer, stop))
    }


@given(batch=batches(), max_answer=st.integers(1, 16), count=st.integers(1, 40))
@settings(deadline=None)
def test_best_spans_are_the_best_of_all(batch: Batch, max_answer: int, count: int) -> None:
    found = best_spans(masked(batch), max_answer, count)
    width = batch.logits_BT2.shape[1] - 1
    assert found.score.shape == (len(batch.begin), min(count, width * min(max_answer, width)))
    for row, columns in enumerate(zip(*(column.tolist() for column in found), strict=True)):
        expected = all_spans(batch, row, max_answer)
        scores = sorted(expected.values(), reverse=True)[:count]
        assert columns[0] == scores + [float(np.float32(LOWEST))] * (len(columns[0]) - len(scores))
        spans = list(zip(*columns[1:], strict=True))[: len(scores)]
        assert [expected[span] for span in spans] == scores  # a span that is none has no score
        assert len(set(spans)) == len(spans)


@given(batch=batches())
@settings(deadline=None)
def test_only_the_context_and_its_absence_can_be_an_answer(batch: Batch) -> None:
    before = batch.logits_BT2.clone()
    masked_BT2 = masked(batch)
    assert torch.equal(batch.logits_BT2, before)
    for row, (first, n) in enumerate(zip(batch.begin, batch.length, strict=True)):
        for place in range(before.shape[1]):
            open_ = place == 0 or first <= place < first + n
            expected = before[row, place].tolist() if open_ else [float("-inf")] * 2
            assert masked_BT2[row, place].tolist() == expected
    assert no_answer_scores(masked_BT2).tolist() == [sum(row[0]) for row in before.tolist()]


@st.composite
def asked(draw: st.DrawFn) -> tuple[list[int], Batch, list[int]]:
    """The question of each window, the windows, and the first token of each in its context."""
    question = sorted(draw(st.lists(st.integers(0, 3), min_size=1, max_size=7)))
    return question, draw(batches(windows=len(question))), [draw(st.integers(0, 6)) for _ in question]


@given(
    problem=asked(),
    max_answer=st.integers(1, 6),
    kept=st.integers(1, 30),
    count=st.integers(1, 30),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_windows_of_a_question_become_one_list(
    problem: tuple[list[int], Batch, list[int]], max_answer: int, kept: int, count: int, seed: int
) -> None:
    """Decoded in batches of any order; a span in several windows comes once, with its best score."""
    question, batch, start = problem
    count = min(count, kept)
    spans = WindowSpans.empty(np.array(question), kept)
    order = np.random.default_rng(seed).permutation(len(question))
    for rows in filter(len, np.array_split(order, 2)):
        columns = (torch.tensor(column)[rows] for column in (batch.begin, batch.length, start))
        spans.put(rows, batch.logits_BT2[rows], *columns, max_answer)
    found = {number: rest for number, *rest in candidates(spans, count)}
    assert list(found) == sorted(set(question))
    for number, (listed, no_answer) in found.items():
        own = [window for window, of in enumerate(question) if of == number]
        assert no_answer == min(float(batch.logits_BT2[window, 0].sum()) for window in own)
        best: Scores = {}
        shares: dict[tuple[int, int, float], set[float]] = {}
        for window in own:
            shift = start[window] - batch.begin[window]
            for (first, last), score in all_spans(batch, window, max_answer).items():
                place = first + shift, last + shift
                best[place] = max(score, best.get(place, score))
                shares.setdefault((*place, score), set()).add(float(batch.logits_BT2[window, first, 0]))
        scores = sorted(best.values(), reverse=True)[:count]
        assert [span.score for span in listed] == scores
        assert [best[span.begin, span.end] for span in listed] == scores
        assert len({(span.begin, span.end) for span in listed}) == len(listed)
        assert all(span.start_logit in shares[span.begin, span.end, span.score] for span in listed)


def test_a_context_without_tokens_has_no_spans() -> None:
    spans = WindowSpans.empty(np.array([0, 1]), 3)
    columns: Any = (torch.tensor([2, 2]), torch.tensor([0, 1]), torch.tensor([0, 0]))
    spans.put(np.array([0, 1]), torch.zeros(2, 4, 2), *columns, 5)
    assert [(number, len(found)) for number, found, _ in candidates(spans, 3)] == [(0, 0), (1, 1)]
