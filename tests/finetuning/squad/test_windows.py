"""Windows cover every context, and answers are where they are said to be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmtl_plugin.errors import UserError
from hmtl_plugin.squad.windows import Windows, answer_positions, make_windows


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[int], list[int], list[int], int, int, int]:
    """Arguments of `make_windows`."""
    contexts = draw(st.lists(st.integers(0, 60), min_size=1, max_size=5))
    questions = draw(st.lists(st.integers(0, 12), min_size=1, max_size=8))
    of = draw(st.lists(st.integers(0, len(contexts) - 1), min_size=len(questions), max_size=len(questions)))
    longest = draw(st.integers(1, 10))
    tokens = draw(st.integers(longest + 4, 40))
    stride = draw(st.integers(1, tokens - 3 - min(longest, max(questions))))
    return questions, contexts, of, tokens, stride, longest


def windows_of(problem: tuple[list[int], list[int], list[int], int, int, int]) -> Windows:
    questions, contexts, of, *options = problem
    return make_windows(np.array(questions), np.array(contexts), np.array(of), *options)


def slow_windows(question: int, context: int, tokens: int, stride: int, longest: int) -> list[tuple[int, int, int]]:
    """(start, length, question length) of one question's windows, one at a time."""
    question = min(question, longest)
    room = tokens - 3 - question
    start, found = 0, []
    while True:
        length = min(room, context - start)
        found.append((start, length, question))
        if start + length == context:
            return found
        start += stride


@given(problem=problems())
@settings(deadline=None)
def test_windows_are_those_made_one_at_a_time_and_cover_the_context(
    problem: tuple[list[int], list[int], list[int], int, int, int],
) -> None:
    questions, contexts, of, tokens, stride, longest = problem
    windows = windows_of(problem)
    assert windows.cut_questions == sum(question > longest for question in questions)
    assert (windows.sizes <= tokens).all()
    assert (np.diff(windows.question) >= 0).all()
    for number, question in enumerate(questions):
        own = windows.question == number
        rows = np.stack([windows.start, windows.length, windows.question_length], axis=1)[own]
        expected = slow_windows(question, contexts[of[number]], tokens, stride, longest)
        assert [tuple(row) for row in rows.tolist()] == expected
        covered = {place for start, length, _ in expected for place in range(start, start + length)}
        assert covered == set(range(contexts[of[number]]))


@given(problem=problems(), data=st.data())
@settings(deadline=None)
def test_an_answer_is_in_every_window_that_holds_all_of_it(
    problem: tuple[list[int], list[int], list[int], int, int, int], data: st.DataObject
) -> None:
    questions, contexts, of, tokens, stride, _ = problem
    windows = windows_of(problem)
    begin = np.array([data.draw(st.integers(-1, contexts[c] - 1)) for c in of])
    end = np.array([data.draw(st.integers(b, contexts[c] - 1)) if b >= 0 else -1 for b, c in zip(begin, of)])
    start_W, end_W, lost = answer_positions(windows, begin.astype(np.int32), end.astype(np.int32))
    assert start_W.dtype == end_W.dtype == np.int64
    held: set[int] = set()
    for w, question in enumerate(windows.question.tolist()):
        # the sequence: what stands at each position
        first, count = int(windows.start[w]), int(windows.length[w])
        sequence = [None] * (1 + int(windows.question_length[w]) + 1) + [*range(first, first + count)] + [None]
        assert len(sequence) == windows.sizes[w]
        assert windows.context_begin[w] == len(sequence) - 1 - count
        if begin[question] >= 0 and {begin[question], end[question]} <= set(sequence):
            assert sequence[start_W[w]] == begin[question]
            assert sequence[end_W[w]] == end[question]
            held.add(question)
        else:
            assert start_W[w] == end_W[w] == 0
    assert lost == sum(b >= 0 and q not in held for q, b in enumerate(begin))
    smallest_room = tokens - 3 - windows.question_length.max()
    for question in range(len(questions)):
        span = end[question] - begin[question] + 1
        if begin[question] >= 0 and span <= smallest_room - stride + 1:
            assert question in held  # windows overlap by that much


def test_exact_fit_empty_context_and_cut_question() -> None:
    windows = make_windows(np.array([2, 2, 9, 2]), np.array([5, 0, 6]), np.array([0, 1, 0, 2]), 10, 3, 4)
    assert windows.question.tolist() == [0, 1, 2, 2, 3, 3]
    assert windows.start.tolist() == [0, 0, 0, 3, 0, 3]
    assert windows.length.tolist() == [5, 0, 3, 2, 5, 3]
    assert windows.question_length.tolist() == [2, 2, 4, 4, 2, 2]
    assert windows.cut_questions == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((7, 1, 4), "--tokens-per-sample 7: the longest question leaves no room"),
        ((12, 6, 4), "--doc-stride 6 leaves gaps between windows: the longest question leaves 5 tokens"),
        ((12, 0, 4), "--doc-stride 0: use 1 or more"),
        ((12, 2, 0), "--max-question-tokens 0: use 1 or more"),
    ],
)
def test_options_that_cannot_work(options: tuple[int, int, int], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        make_windows(np.array([3, 9]), np.array([100]), np.array([0, 0]), *options)
    assert "\n" not in str(error.value)
