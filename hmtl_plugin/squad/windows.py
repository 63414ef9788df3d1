"""Sequences of long contexts: ``<s> question </s> window </s>``, the windows of a context overlapping by BERT's
document stride.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hmtl_plugin.data.corpus import Int64Array
from hmtl_plugin.errors import UserError

SPECIALS = 3  # of a sequence: <s> and two </s>


@dataclass(frozen=True)
class Windows:
    """W windows, those of a question in a row, questions in their order.

    Attributes:
        question: (W,) whose window it is.
        start: (W,) first of its tokens in the context.
        length: (W,) how many of the context's tokens it holds.
        question_length: (W,) tokens of the question after the cut.
        cut_questions: questions that were cut at their end.
    """

    question: Int64Array
    start: Int64Array
    length: Int64Array
    question_length: Int64Array
    cut_questions: int

    def __len__(self) -> int:
        return len(self.question)

    @property
    def context_begin(self) -> Int64Array:
        """(W,) position in the sequence of the window's first context token."""
        return self.question_length + 2

    @property
    def sizes(self) -> Int64Array:
        """(W,) tokens of the sequence, specials included."""
        return self.question_length + self.length + SPECIALS


def make_windows(
    question_lengths_Q: Int64Array,
    context_lengths_C: Int64Array,
    question_context_Q: Int64Array,
    max_tokens: int,
    stride: int,
    max_question_tokens: int,
    closer: bool = False,
) -> Windows:
    """Windows that cover every token of each question's context.

    Args:
        max_tokens: of a sequence, specials included.
        stride: tokens between the starts of two windows of one context, which gets one window if it fits.
        max_question_tokens: longer questions lose their end.
        closer: lay the windows of a question closer where ``stride`` would leave gaps beside it, rather than refuse.

    Raises:
        UserError: if a question leaves no room, or windows would leave gaps, or an option is not positive.
    """
    for option, value in (("--doc-stride", stride), ("--max-question-tokens", max_question_tokens)):
        if value < 1:
            raise UserError(f"{option} {value}: use 1 or more")
    asked_Q = np.minimum(question_lengths_Q, max_question_tokens)
    room_Q = max_tokens - SPECIALS - asked_Q
    shortest = int(room_Q.min(initial=max_tokens - SPECIALS))
    _check_room(shortest, max_tokens, 1 if closer else stride, max_question_tokens)
    stride_Q = np.minimum(stride, room_Q)
    beyond_Q = np.maximum(context_lengths_C[question_context_Q] - room_Q, 0)
    count_Q = 1 - (-beyond_Q // stride_Q)  # rounded up
    question_W = np.repeat(np.arange(len(asked_Q)), count_Q)
    start_W = (np.arange(len(question_W)) - np.repeat(np.cumsum(count_Q) - count_Q, count_Q)) * stride_Q[question_W]
    length_W = np.minimum(context_lengths_C[question_context_Q[question_W]] - start_W, room_Q[question_W])
    cut = int((question_lengths_Q > max_question_tokens).sum())
    return Windows(question_W, start_W, length_W, asked_Q[question_W], cut)


def _check_room(room: int, max_tokens: int, stride: int, max_question_tokens: int) -> None:
    if room <= 0:
        raise UserError(
            f"--tokens-per-sample {max_tokens}: the longest question leaves no room for its context; raise it, "
            f"or lower --max-question-tokens {max_question_tokens}"
        )
    if stride > room:
        raise UserError(
            f"--doc-stride {stride} leaves gaps between windows: the longest question leaves {room} tokens of context to a "
            f"window; lower it to {room} or less, or raise --tokens-per-sample {max_tokens}, or lower --max-question-tokens"
        )


class AnswerPositions(NamedTuple):
    """Where answers stand in the sequences of windows.

    Attributes:
        start, end: (W,) first and last position of the answer; 0, the ``<s>``, where the window does not hold all of
            one.
        lost: questions with an answer that no window holds.
    """

    start: Int64Array
    end: Int64Array
    lost: int


def describe(windows: Windows, labels: AnswerPositions) -> str:
    """What a split becomes, and what of it is lost."""
    questions = int(windows.question[-1]) + 1 if len(windows) else 0
    return (
        f"{questions:,} questions in {len(windows):,} windows; {windows.cut_questions:,} questions cut at their end; "
        f"{labels.lost:,} answers that no window holds"
    )


def answer_positions(windows: Windows, begin_Q: Int64Array, end_Q: Int64Array) -> AnswerPositions:
    """Positions of the answers whose first and last token in the context are given, -1 for none."""
    begin_W, end_W = begin_Q[windows.question].astype(np.int64), end_Q[windows.question].astype(np.int64)
    held_W = (begin_W >= windows.start) & (end_W < windows.start + windows.length)
    shift_W = windows.context_begin - windows.start
    found = len(np.unique(windows.question[held_W]))
    return AnswerPositions(
        np.where(held_W, begin_W + shift_W, 0),
        np.where(held_W, end_W + shift_W, 0),
        int((begin_Q >= 0).sum()) - found,
    )
