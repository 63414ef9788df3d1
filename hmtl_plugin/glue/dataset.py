"""Sentences, or pairs of them, with a label each: ``<s> A </s>`` or ``<s> A </s> B </s>``, built a batch at a time."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from fairseq.data import Dictionary

from hmtl_plugin.data.batching import ByLengthDataset
from hmtl_plugin.data.corpus import Corpus, Int64Array, expand_ranges
from hmtl_plugin.errors import UserError
from hmtl_plugin.glue.tasks import GlueTask, find_task
from hmtl_plugin.special_tokens import BOS, EOS, PAD


def cut_pair(first: Int64Array, second: Int64Array, room: int) -> tuple[Int64Array, Int64Array]:
    """Lengths of pairs that are at most ``room`` together: the longer sentence loses its end, of two as long the
    second.
    """
    kept = np.minimum(first, np.maximum(room - second, (room + 1) // 2))
    return kept, np.minimum(second, room - kept)


class SentenceDataset(ByLengthDataset):
    """Rows of one split.

    Args:
        columns: one or two binarised files, row r being item r of each.
        labels: (rows,) class ids (int64) or scores (float32); None where they are hidden.
        max_tokens: of a row, specials included. A longer one is cut at its end; of a pair the longer sentence first.
        seed: see `ByLengthDataset`.
    """

    def __init__(
        self, columns: list[Corpus], labels: npt.NDArray[Any] | None, max_tokens: int, seed: int | None = None
    ) -> None:
        super().__init__(seed)
        self.columns, self.labels = columns, labels
        rows = np.arange(len(columns[0]))
        self._lengths = [column.lengths(rows) for column in columns]
        self._cut(max_tokens - 1 - len(columns))

    @cached_property
    def sizes(self) -> Int64Array:
        """(rows,) tokens of each, specials included."""
        return np.sum(self._lengths, axis=0) + 1 + len(self.columns)

    def _cut(self, room: int) -> None:
        if len(self._lengths) == 1:
            self._lengths = [np.minimum(self._lengths[0], room)]
            return
        first, second = self._lengths
        self._lengths = list(cut_pair(first, second, room))

    def collater(self, samples: list[int]) -> dict[str, Any]:
        """``id`` (B,), ``set_size`` (rows in all), ``net_input``: ``src_tokens`` (B, T) and ``padded``, ``target`` (B,)
        if labels are known.
        """
        if not samples:
            return {}
        rows_B = np.asarray(samples, dtype=np.int64)
        sizes_B = self.sizes[rows_B]
        tokens_BT = np.full((len(rows_B), int(sizes_B.max())), PAD, dtype=np.int64)
        tokens_BT[:, 0] = BOS
        place_B = np.ones(len(rows_B), dtype=np.int64)
        for column, lengths in zip(self.columns, self._lengths, strict=True):
            lengths_B = lengths[rows_B]
            row_N = np.repeat(np.arange(len(rows_B)), lengths_B)
            tokens_BT[row_N, expand_ranges(place_B, lengths_B)] = column.tokens.take(
                expand_ranges(column.token_start(rows_B), lengths_B)
            )
            place_B += lengths_B
            tokens_BT[np.arange(len(rows_B)), place_B] = EOS
            place_B += 1
        batch = {
            "id": torch.from_numpy(rows_B),
            "nsentences": len(rows_B),
            "set_size": len(self),
            "ntokens": int(sizes_B.sum()),
            "net_input": {
                "src_tokens": torch.from_numpy(tokens_BT),
                "padded": bool((sizes_B < tokens_BT.shape[1]).any()),
            },
        }
        if self.labels is not None:
            batch["target"] = torch.from_numpy(self.labels[rows_B])
        return batch


def open_split(
    folder: Path, manifest: Mapping[str, Any], split: str, max_tokens: int, seed: int | None = None
) -> SentenceDataset:
    """A split of the folder that `prepare_glue` wrote, with its labels where they are known.

    Raises:
        UserError: a file is missing or damaged, or they do not belong together.
    """
    if split not in manifest["splits"]:
        raise UserError(f"{folder}: holds no '{split}', only {', '.join(manifest['splits'])}: prepare the data again")
    task = find_task(manifest["task"])
    columns = [Corpus(str(folder / f"input{i}" / split)) for i in range(len(task.text))]
    labels = read_labels(folder, task, split) if manifest["splits"][split]["labelled"] else None
    rows = {manifest["splits"][split]["rows"], *map(len, columns), *([] if labels is None else [len(labels)])}
    if len(rows) > 1:
        raise UserError(
            f"{folder}: texts and labels of '{split}' have {', '.join(map(str, sorted(rows)))} rows, and glue.json "
            "says how many there were: prepare the data again with --overwrite"
        )
    return SentenceDataset(columns, labels, max_tokens, seed)


def read_labels(folder: Path, task: GlueTask, split: str) -> npt.NDArray[Any]:
    """(rows,) class ids (int64) in the order of ``task.labels``, or scores (float32).

    Raises:
        UserError: a file is missing or damaged.
    """
    prefix = folder / "label" / split
    again = "prepare the data again with --overwrite"
    if task.regression:
        path = prefix.with_suffix(".label")
        try:
            scores = np.loadtxt(path, dtype=np.float32, ndmin=1)
        except (OSError, ValueError):
            raise UserError(f"{path}: missing or damaged; {again}") from None
        if scores.ndim != 1 or not np.isfinite(scores).all():
            raise UserError(f"{path}: holds other things than a number a line; {again}")
        return scores
    found = Corpus(str(prefix))
    if not (found.sizes == 2).all():
        raise UserError(f"{prefix}.idx: holds rows without a label; {again}")
    labels = found.tokens[::2].astype(np.int64) - Dictionary().nspecial
    if labels.min() < 0 or labels.max() >= len(task.labels):
        raise UserError(f"{prefix}.bin: holds labels that {task.name} has not; {again}")
    return labels
