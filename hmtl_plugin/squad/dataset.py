"""Windows of contexts with their questions: ``<s> question </s> window </s>``, built a batch at a time."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hmtl_plugin.data.batching import ByLengthDataset
from hmtl_plugin.data.corpus import Corpus, Int64Array, expand_ranges
from hmtl_plugin.errors import UserError
from hmtl_plugin.files.array_file import load_array
from hmtl_plugin.special_tokens import BOS, EOS, PAD
from hmtl_plugin.squad.answers import QUESTION, QuestionTable
from hmtl_plugin.squad.windows import AnswerPositions, Windows, make_windows

_AGAIN = "prepare the data again with --overwrite"


class SquadSplit:
    """A split that `prepare_squad` wrote, memory-mapped.

    Attributes:
        contexts, questions: their tokens.
        offsets: (N, 2) characters [begin, end) of the tokens of all contexts.
        table: (Q,) of `QUESTION`.
        source: the file it was made of.

    Raises:
        UserError: a file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.contexts, self.questions = Corpus(str(folder / "context")), Corpus(str(folder / "question"))
        self.offsets: npt.NDArray[np.int32] = _load(folder / "offsets.npy", (self.contexts.token_count, 2), "<i4")
        self.table: QuestionTable = _load(folder / "questions.npy", (len(self.questions),), QUESTION)
        self._check_table(folder / "questions.npy")
        self._check_offsets(folder / "offsets.npy")
        self.source = folder / "source.json"

    def _check_table(self, path: Path) -> None:
        """Contexts that are there, and answers within them."""
        context_Q, begin_Q, end_Q = (self.table[name].astype(np.int64) for name in ("context", "begin", "end"))
        if not ((context_Q >= 0) & (context_Q < len(self.contexts))).all():
            raise UserError(f"{path}: names contexts that are not there; {_AGAIN}")
        answered_Q = (begin_Q >= 0) & (begin_Q <= end_Q) & (end_Q < self.context_lengths[context_Q])
        if not (answered_Q | ((begin_Q == -1) & (end_Q == -1))).all():
            raise UserError(f"{path}: has answers outside of their contexts; {_AGAIN}")

    def _check_offsets(self, path: Path) -> None:
        """From token to token of a context neither end falls, and no token ends before it begins."""
        falls_N2 = np.diff(self.offsets, axis=0, prepend=0) < 0
        first_C = self.offset_start[self.context_lengths > 0]
        falls_N2[first_C] = self.offsets[first_C] < 0
        if falls_N2.any() or (self.offsets[:, 0] > self.offsets[:, 1]).any():
            raise UserError(f"{path}: characters of tokens are not in their order; {_AGAIN}")

    @cached_property
    def context_lengths(self) -> Int64Array:
        """(C,) tokens of each context."""
        return self.contexts.lengths(np.arange(len(self.contexts)))

    @cached_property
    def offset_start(self) -> Int64Array:
        """(C,) row of `offsets` with the first token of each context."""
        return np.cumsum(self.context_lengths) - self.context_lengths

    def windows(self, max_tokens: int, stride: int, max_question_tokens: int) -> Windows:
        """See `make_windows`."""
        lengths_Q = self.questions.lengths(np.arange(len(self.questions)))
        return make_windows(
            lengths_Q, self.context_lengths, self.table["context"], max_tokens, stride, max_question_tokens
        )


def _load(path: Path, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
    array = load_array(path, _AGAIN).view(np.ndarray)
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise UserError(f"{path}: does not belong to the texts beside it; {_AGAIN}")
    return array


class SquadDataset(ByLengthDataset):
    """Windows of one split.

    Args:
        labels: where answers stand in the windows' sequences; None where they are hidden.
        seed: see `ByLengthDataset`.
    """

    def __init__(
        self, split: SquadSplit, windows: Windows, labels: AnswerPositions | None = None, seed: int | None = None
    ) -> None:
        super().__init__(seed)
        self.split, self.windows, self.labels = split, windows, labels
        self._context_W: Int64Array = split.table["context"][windows.question].astype(np.int64)

    @cached_property
    def sizes(self) -> Int64Array:
        """(W,) tokens of each, specials included."""
        return self.windows.sizes

    def collater(self, samples: list[int]) -> dict[str, Any]:
        """A batch of the given windows.

        ``id`` (B,), ``set_size`` (windows in all), ``net_input``: ``src_tokens`` (B, T) and ``padded``;
        ``context_begin`` (B,) position of the first context token, ``context_length`` (B,), ``window_start`` (B,) that
        token's number in its context; if answers are known ``start``, ``end`` (B,): first and last position of the
        answer, 0 for none.
        """
        if not samples:
            return {}
        windows_B = np.asarray(samples, dtype=np.int64)
        sizes_B, begin_B = self.sizes[windows_B], self.windows.context_begin[windows_B]
        tokens_BT = self._tokens(windows_B, sizes_B, begin_B)
        columns = {
            "id": windows_B,
            "context_begin": begin_B,
            "context_length": self.windows.length[windows_B],
            "window_start": self.windows.start[windows_B],
        }
        if self.labels is not None:
            columns |= {"start": self.labels.start[windows_B], "end": self.labels.end[windows_B]}
        return {
            "nsentences": len(windows_B),
            "set_size": len(self),
            "ntokens": int(sizes_B.sum()),
            "net_input": {
                "src_tokens": torch.from_numpy(tokens_BT),
                "padded": bool((sizes_B < tokens_BT.shape[1]).any()),
            },
            **{name: torch.from_numpy(column_B) for name, column_B in columns.items()},
        }

    def _tokens(self, windows_B: Int64Array, sizes_B: Int64Array, begin_B: Int64Array) -> Int64Array:
        """(B, T) sequences, padded."""
        rows = np.arange(len(windows_B))
        tokens_BT = np.full((len(rows), int(sizes_B.max())), PAD, dtype=np.int64)
        tokens_BT[:, 0] = BOS
        tokens_BT[rows, begin_B - 1] = EOS
        tokens_BT[rows, sizes_B - 1] = EOS
        asked_B, length_B = self.windows.question_length[windows_B], self.windows.length[windows_B]
        question_start_B = self.split.questions.token_start(self.windows.question[windows_B])
        context_start_B = self.split.contexts.token_start(self._context_W[windows_B]) + self.windows.start[windows_B]
        for corpus, source_B, place_B, count_B in (
            (self.split.questions, question_start_B, np.ones_like(asked_B), asked_B),
            (self.split.contexts, context_start_B, begin_B, length_B),
        ):
            tokens_BT[np.repeat(rows, count_B), expand_ranges(place_B, count_B)] = corpus.tokens.take(
                expand_ranges(source_B, count_B)
            )
        return tokens_BT
