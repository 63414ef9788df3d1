"""GLUE's official files as they are: no quoting, byte order marks, missing headers, hidden labels, SNLI's jsonl."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hmtl_plugin.errors import UserError
from hmtl_plugin.glue.tasks import TEST, GlueTask
from hmtl_plugin.preparation.readers.text import (
    Span,
    check_surrogates,
    decode,
    first_line,
    line_number,
    spans,
    tidy_lines,
)

_BOM = "\ufeff"


@dataclass(frozen=True)
class GlueFile:
    """One split's file and where its columns stand.

    Attributes:
        text: column numbers of the sentences (names of fields in a jsonl).
        label: of the label; None where labels are hidden.
        width: columns of a row; 0 for a jsonl.
        header_bytes: bytes before the first row.
    """

    path: str
    split: str
    text: tuple[int, ...] | tuple[str, ...]
    label: int | str | None
    width: int
    header_bytes: int

    def spans(self) -> Iterator[Span]:
        """Its rows in bounded pieces."""
        return spans(self.path, skip=self.header_bytes)


@dataclass(frozen=True)
class GlueRows:
    """Rows of a span.

    Attributes:
        texts: for each sentence column, the tidy sentences of the R rows.
        labels: R labels as written; None where they are hidden.
        broken, unlabelled: rows left out, see `GlueTask`.
    """

    texts: tuple[list[str], ...]
    labels: list[str] | None
    broken: int
    unlabelled: int


def find_files(task: GlueTask, glue_dir: Path) -> list[GlueFile]:
    """The files of a task that there are; train and a validation set must be, test sets may be missing.

    ``glue_dir`` holds a folder for each task, or is the task's own folder.
    """
    folder = glue_dir / task.name if (glue_dir / task.name).is_dir() else glue_dir
    found = []
    for split, names in task.files.items():
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is not None:
            found.append(_open(task, split, path))
    for needed in ("train", "valid"):
        if not any(file.split == needed for file in found):
            raise UserError(
                f"{folder}: holds no {' or '.join(task.files[needed])} of {task.name}; "
                "fetch it with scripts/download_glue.sh or give another --glue-dir"
            )
    return found


def _open(task: GlueTask, split: str, path: Path) -> GlueFile:
    raw = first_line(path)
    if not raw.strip():
        raise UserError(f"{path}: is empty")
    if path.suffix == ".jsonl":
        return GlueFile(str(path), split, task.text, task.label, 0, 0)
    header = [cell.strip() for cell in decode(raw, str(path), 0).removeprefix(_BOM).rstrip("\r\n").split("\t")]
    missing = [name for name in task.text if name not in header]
    if missing and task.headless and not split.startswith(TEST):
        columns = tuple(task.headless[name] for name in task.text)
        if max(task.headless.values()) >= len(header):
            raise UserError(
                f"{path}: line 1 has {len(header)} columns, {task.name}'s files have {max(task.headless.values()) + 1}: "
                "fetch it with scripts/download_glue.sh"
            )
        return GlueFile(str(path), split, columns, task.headless[task.label], len(header), 0)
    labelled = task.label in header
    if not labelled and split in ("train", *task.validation_splits):
        missing.append(task.label)
    if missing:
        raise UserError(f"{path}: no column '{missing[0]}' in its header ({', '.join(header[:16])})")
    columns = tuple(header.index(name) for name in task.text)
    label = header.index(task.label) if labelled else None
    return GlueFile(str(path), split, columns, label, len(header), len(raw))


def read_rows(task: GlueTask, file: GlueFile, span: Span) -> GlueRows:
    """Parse a span of a file.

    Raises:
        UserError: naming file and line: another number of columns, an unknown label, no UTF-8, no JSON.
    """
    lines = span.read().split("\n")
    if not lines[-1]:
        lines.pop()  # what stands after the last line end is no row
    first_line = _Line(span)
    rows = [_cells(task, file, line, first_line, number) for number, line in enumerate(lines)]
    whole = [row for row in rows if row is not None]
    kept = [row for row in whole if row[-1] not in task.unlabelled]
    for number, row in enumerate(rows):
        if row is not None and file.label is not None and row[-1] not in task.unlabelled:
            _check_label(task, row[-1], first_line, number)
    columns = tuple(tidy_lines("\n".join(row[i] for row in kept)) if kept else [] for i in range(len(task.text)))
    labels = [row[-1] for row in kept] if file.label is not None else None
    return GlueRows(columns, labels, len(rows) - len(whole), len(whole) - len(kept))


class _Line:
    """Names a line of a span in a message; its number is counted only then."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def name(self, number: int) -> str:
        return f"{self._span.path}: line {line_number(self._span.path, self._span.start) + number}"


def _cells(task: GlueTask, file: GlueFile, line: str, where: _Line, number: int) -> list[str] | None:
    """The row's sentences and its label (empty if hidden); None if it is broken and may be left out."""
    if not file.width:
        return _fields(task, line, where, number)
    cells = line.rstrip("\r").split("\t")
    if len(cells) != file.width:
        if task.skip_broken:
            return None
        raise UserError(f"{where.name(number)} has {len(cells)} columns instead of {file.width}")
    label = cells[int(file.label)].strip() if file.label is not None else ""
    return [*(cells[int(column)] for column in file.text), label]


def _fields(task: GlueTask, line: str, where: _Line, number: int) -> list[str]:
    try:
        record = json.loads(line.removeprefix(_BOM))
        check_surrogates(line, record, lambda: where.name(number))
        if not all(isinstance(record[name], str) for name in (*task.text, task.label)):
            raise TypeError("null, or a number")
        return [*(" ".join(record[name].split()) for name in task.text), record[task.label].strip()]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        names = ", ".join((*task.text, task.label))
        raise UserError(f"{where.name(number)} is no JSON object with the fields {names} as text") from error


def _check_label(task: GlueTask, label: str, where: _Line, number: int) -> None:
    if not task.regression:
        if label not in task.labels:
            raise UserError(f"{where.name(number)} has the label '{label}', not one of {', '.join(task.labels)}")
        return
    try:
        value = float(label)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where.name(number)} has the score '{label}', which is no number")
