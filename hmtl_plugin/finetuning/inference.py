"""A fine-tuned model on text in memory: classes and scores of sentences, answers to questions. The hub interface is
made of it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hmtl_plugin.checkpoints import LoadedCheckpoint
from hmtl_plugin.data.corpus import Int64Array
from hmtl_plugin.errors import UserError
from hmtl_plugin.glue.dataset import cut_pair
from hmtl_plugin.special_tokens import BOS, EOS, PAD
from hmtl_plugin.squad.decoding import Candidate, WindowSpans, candidates
from hmtl_plugin.squad.windows import SPECIALS, Windows, make_windows
from hmtl_plugin.tokenizers.base import Tokenizer
from hmtl_plugin.tokenizers.offsets import OffsetArray, encode_with_offsets

_NBEST = 20


class Answer(NamedTuple):
    """A span of a context: ``context[start:end] == text``. Probabilities are over the best spans (and no answer, in
    2.0).
    """

    text: str
    start: int
    end: int
    probability: float


class Answered(NamedTuple):
    """What a model says to a question.

    Attributes:
        answers: the likeliest spans, best first; none if the context holds nothing.
        no_answer: probability that the context has no answer; 0 from a model of SQuAD 1.1, which always answers.
        impossible: whether that is beyond the threshold that was best on the development set.
    """

    answers: list[Answer]
    no_answer: float
    impossible: bool


def sentence_rows(
    tokenizer: Tokenizer, first: Sequence[str], second: Sequence[str] | None, max_tokens: int
) -> list[Tensor]:
    """Sequences as in fine-tuning, (T,) each, cut as there."""
    columns = [tokenizer.encode_batch(list(texts)) for texts in (first, second) if texts is not None]
    room = max_tokens - 1 - len(columns)
    lengths = [np.array([len(ids) for ids in column], dtype=np.int64) for column in columns]
    kept = cut_pair(lengths[0], lengths[1], room) if len(columns) == 2 else (np.minimum(lengths[0], room),)
    return [
        torch.tensor([BOS, *(token for ids, n in zip(row, sizes, strict=True) for token in (*ids[:n], EOS))])
        for row, sizes in zip(zip(*columns, strict=True), np.stack(kept, axis=1).tolist(), strict=True)
    ]


class QuestionAnswerer:
    """Answers of a checkpoint of the task ``squad``, with the windows it was trained on."""

    def __init__(self, checkpoint: LoadedCheckpoint, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = checkpoint.model, tokenizer
        options = checkpoint.config["task"]
        self.max_tokens, self.stride = int(options["tokens_per_sample"]), int(options["doc_stride"])
        self.max_question_tokens = int(options["max_question_tokens"])
        self.max_answer_tokens = int(options["max_answer_tokens"])
        self.version_2 = bool(options["version_2"])
        self.threshold = float(checkpoint.finetuning.get("no_answer_threshold", 0.0 if self.version_2 else np.inf))

    @torch.inference_mode()
    def answer(self, questions: Sequence[str], contexts: Sequence[str], top_k: int, batch_size: int) -> list[Answered]:
        """An answer for each question on the context beside it.

        Raises:
            UserError: if a question leaves no room for its context.
        """
        asked = self.tokenizer.encode_batch(list(questions))
        for text, ids in zip(questions, asked, strict=True):
            if min(len(ids), self.max_question_tokens) + SPECIALS >= self.max_tokens:
                raise UserError(
                    f"answer: the question '{text[:40]}' has {len(ids)} tokens, which leaves no room for its context "
                    f"in the {self.max_tokens} that the model reads at once: shorten it"
                )
        ids_N, lengths_C, offsets_N2 = encode_with_offsets(self.tokenizer, list(contexts))
        first_C = np.cumsum(lengths_C) - lengths_C
        lengths_Q = np.array([len(ids) for ids in asked], dtype=np.int64)
        windows = make_windows(
            lengths_Q,
            lengths_C,
            np.arange(len(asked)),
            self.max_tokens,
            self.stride,
            self.max_question_tokens,
            closer=True,
        )
        spans = WindowSpans.empty(windows.question, _NBEST)
        order = np.argsort(windows.sizes, kind="stable")
        for begin in range(0, len(order), batch_size):
            self._decode(spans, windows, order[begin : begin + batch_size], asked, ids_N, first_C)
        answers = [Answered([], float(self.version_2), self.version_2)] * len(asked)
        for question, found, no_answer in candidates(spans, _NBEST):
            offsets_T2 = offsets_N2[first_C[question] :]
            answers[question] = self._answered(contexts[question], found, offsets_T2, no_answer, top_k)
        return answers

    def _decode(
        self,
        spans: WindowSpans,
        windows: Windows,
        chosen_B: Int64Array,
        asked: list[list[int]],
        ids_N: Int64Array,
        first_C: Int64Array,
    ) -> None:
        rows = []
        for window in chosen_B.tolist():
            question = int(windows.question[window])
            begin = int(first_C[question] + windows.start[window])
            held = ids_N[begin : begin + int(windows.length[window])].tolist()
            rows.append(torch.tensor([BOS, *asked[question][: windows.question_length[window]], EOS, *held, EOS]))
        device = next(self.model.parameters()).device
        tokens_BT = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD).to(device)
        logits_BT2, _ = self.model(tokens_BT, task_head=True)
        columns = (windows.context_begin, windows.length, windows.start)
        begin_B, length_B, start_B = (torch.from_numpy(column[chosen_B]).to(device) for column in columns)
        spans.put(chosen_B, logits_BT2.float(), begin_B, length_B, start_B, self.max_answer_tokens)

    def _answered(
        self, context: str, found: list[Candidate], offsets_T2: OffsetArray, no_answer: float, top_k: int
    ) -> Answered:
        """Spans of tokens to spans of characters, each text once."""
        places: dict[str, tuple[int, int, float]] = {}
        for span in found:
            start = int(offsets_T2[span.begin, 0])
            text = context[start : int(offsets_T2[span.end, 1])].rstrip()  # the last token may be but a space
            if text:
                places.setdefault(text, (start, start + len(text), span.score))
        if not places:
            return Answered([], float(self.version_2), self.version_2)
        scores = np.array([*(score for _, _, score in places.values()), *([no_answer] if self.version_2 else [])])
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        listed = zip(places.items(), shares.tolist())  # the share of no answer is the last
        answers = [Answer(text, start, end, share) for (text, (start, end, _)), share in listed]
        impossible = self.version_2 and no_answer - scores[0] > self.threshold
        return Answered(answers[:top_k], float(shares[-1]) if self.version_2 else 0.0, bool(impossible))
