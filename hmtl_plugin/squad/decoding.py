"""Scores of tokens to spans: the best of each window, then the best of each question over its windows."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hmtl_plugin.data.corpus import Int64Array

LOWEST = -1e30  # instead of minus infinity, which does not survive being added up over ranks


class Spans(NamedTuple):
    """The best spans of B windows, n each, best first. Positions are in the sequence; scores of spans that do not exist
    are `LOWEST`.
    """

    score: Tensor
    start: Tensor
    end: Tensor


def mask_outside(logits_BT2: Tensor, context_begin_B: Tensor, context_length_B: Tensor) -> Tensor:
    """The logits with minus infinity where no answer can stand: everywhere but in the context and at ``<s>``."""
    place_T = torch.arange(logits_BT2.shape[1], device=logits_BT2.device)
    begin_B1 = context_begin_B[:, None]
    inside_BT = (place_T >= begin_B1) & (place_T < begin_B1 + context_length_B[:, None])
    inside_BT[:, 0] = True
    return logits_BT2.masked_fill(~inside_BT[..., None], float("-inf"))


def no_answer_scores(logits_BT2: Tensor) -> Tensor:
    """(B,) score of the span that is ``<s>``."""
    return logits_BT2[:, 0].sum(-1)


def best_spans(masked_BT2: Tensor, max_answer_tokens: int, count: int) -> Spans:
    """The ``count`` spans of up to ``max_answer_tokens`` with the highest sum of start and end logit, ``<s>`` left out.

    All spans are compared, not those of the best starts and ends alone.
    """
    start_BT, end_BT = masked_BT2[:, 1:].float().unbind(-1)
    reach = min(max_answer_tokens, start_BT.shape[1])
    padded = torch.nn.functional.pad(end_BT, (0, reach - 1), value=float("-inf"))
    score_BTA = start_BT[..., None] + padded.unfold(1, reach, 1)
    best = score_BTA.flatten(1).topk(min(count, score_BTA[0].numel()))
    start_Bn = best.indices // reach + 1
    return Spans(best.values.clamp(min=LOWEST), start_Bn, start_Bn + best.indices % reach)


@dataclass(frozen=True)
class WindowSpans:
    """The best spans of all W windows, n each, those of a question in a row.

    Attributes:
        question: (W,) whose window it is.
        score: (W, n) sums of logits; start_logit: (W, n) the start's share.
        begin, end: (W, n) first and last token in the context.
        no_answer: (W,) score of having no answer.
    """

    question: Int64Array
    score: npt.NDArray[np.float32]
    start_logit: npt.NDArray[np.float32]
    begin: Int64Array
    end: Int64Array
    no_answer: npt.NDArray[np.float32]

    @classmethod
    def empty(cls, question_W: Int64Array, count: int) -> "WindowSpans":
        """To be filled a batch at a time by `put`."""
        shape = (len(question_W), count)
        return cls(
            question_W,
            np.full(shape, LOWEST, dtype=np.float32),
            np.zeros(shape, dtype=np.float32),
            np.zeros(shape, dtype=np.int64),
            np.zeros(shape, dtype=np.int64),
            np.zeros(len(question_W), dtype=np.float32),
        )

    def put(
        self,
        window_B: npt.NDArray[np.integer],
        logits_BT2: Tensor,
        context_begin_B: Tensor,
        context_length_B: Tensor,
        window_start_B: Tensor,
        max_answer_tokens: int,
    ) -> None:
        """Decode the logits (fp32) of a batch of windows."""
        masked_BT2 = mask_outside(logits_BT2, context_begin_B, context_length_B)
        spans = best_spans(masked_BT2, max_answer_tokens, self.score.shape[1])
        shift_B1 = (window_start_B - context_begin_B)[:, None]
        found = slice(0, spans.score.shape[1])
        self.score[window_B, found] = spans.score.cpu().numpy()
        self.start_logit[window_B, found] = masked_BT2[..., 0].gather(1, spans.start).cpu().numpy()
        self.begin[window_B, found] = (spans.start + shift_B1).cpu().numpy()
        self.end[window_B, found] = (spans.end + shift_B1).cpu().numpy()
        self.no_answer[window_B] = no_answer_scores(logits_BT2).cpu().numpy()


class Candidate(NamedTuple):
    """A span of a context: score, the start's share of it, first and last token."""

    score: float
    start_logit: float
    begin: int
    end: int


def candidates(spans: WindowSpans, count: int) -> Iterator[tuple[int, list[Candidate], float]]:
    """For each question its number, its best ``count`` spans, each once, and the score of having no answer: the lowest
    of its windows', for one window with the answer is enough.
    """
    for question, group in groupby(range(len(spans.question)), key=lambda window: int(spans.question[window])):
        windows = list(group)
        rows = slice(windows[0], windows[-1] + 1)
        columns = (spans.score[rows], spans.start_logit[rows], spans.begin[rows], spans.end[rows])
        flat = [column.ravel() for column in columns]
        order = np.argsort(-flat[0], kind="stable")
        order = order[flat[0][order] > LOWEST]
        found: dict[tuple[int, int], Candidate] = {}
        for score, start_logit, begin, end in zip(*(column[order].tolist() for column in flat), strict=True):
            found.setdefault((begin, end), Candidate(score, start_logit, begin, end))
            if len(found) == count:
                break
        yield question, list(found.values()), float(spans.no_answer[rows].min())
