"""Probing tasks: files in SentEval's layout, ``tr|va|te TAB label TAB sentence``, indexed without holding their text."""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hmtl_plugin.errors import UserError

SPLITS = ("tr", "va", "te")
_BOM = b"\xef\xbb\xbf"
Int64Array = npt.NDArray[np.int64]


class KnownTask(NamedTuple):
    """What is known of a task by its file's name.

    Attributes:
        title: for people.
        linear_only: probed by logistic regression whatever the probe; its labels are too many for the MLP's grid (as in
            SentEval).
        objective: the pre-training objective that is this very task; "" if none is.
    """

    title: str
    linear_only: bool = False
    objective: str = ""


KNOWN: dict[str, KnownTask] = {
    "sentence_length": KnownTask("Sentence length"),
    "word_content": KnownTask("Word content", linear_only=True),
    "tree_depth": KnownTask("Tree depth"),
    "top_constituents": KnownTask("Top constituents"),
    "bigram_shift": KnownTask("Bigram shift", objective="bigram_shift"),
    "past_present": KnownTask("Tense"),
    "subj_number": KnownTask("Subject number"),
    "obj_number": KnownTask("Object number"),
    "odd_man_out": KnownTask("Odd man out"),
    "coordination_inversion": KnownTask("Coordination inversion"),
}
"""SentEval's ten, in the order of the paper (Conneau et al. 2018); ``NAME_anything.txt`` is a variety of NAME."""


def known_task(name: str) -> KnownTask:
    """The entry of a file's stem; a task of the user's own gets its name as title."""
    for known, entry in KNOWN.items():
        if name == known or name.startswith(known + "_"):
            return entry
    return KnownTask(name.replace("_", " ").strip().capitalize() or name)


def _rank(name: str) -> int:
    return next((i for i, known in enumerate(KNOWN) if name == known or name.startswith(known + "_")), len(KNOWN))


@dataclass(frozen=True)
class ProbingTask:
    """A task's rows, arranged tr, va, te; sentences stay on disk (20 bytes a row are held).

    Attributes:
        labels: C names, sorted.
        label_N: index of each row's label.
        sizes: rows of tr, va, te.
        begin_N, end_N: bytes of each row's sentence in the file.
        sha256: fingerprint of the file.
    """

    path: Path
    name: str
    labels: tuple[str, ...]
    label_N: npt.NDArray[np.int32]
    sizes: tuple[int, int, int]
    begin_N: Int64Array
    end_N: Int64Array
    sha256: str

    def __len__(self) -> int:
        return len(self.label_N)

    @property
    def known(self) -> KnownTask:
        """What its name tells."""
        return known_task(self.name)

    def rows(self, split: str) -> slice:
        """Where the rows of ``tr``, ``va`` or ``te`` stand."""
        number = SPLITS.index(split)
        start = sum(self.sizes[:number])
        return slice(start, start + self.sizes[number])

    def sentences(self, rows: Sequence[int] | Int64Array) -> list[str]:
        """Text of rows, read from the file."""
        texts = []
        with open(self.path, "rb") as file:
            for row in rows:
                file.seek(int(self.begin_N[row]))
                texts.append(file.read(int(self.end_N[row] - self.begin_N[row])).decode())
        return texts


def find_tasks(places: Sequence[Path | str]) -> list[ProbingTask]:
    """All tasks of files and of folders' ``*.txt``, SentEval's ten first in their order.

    Raises:
        UserError: none there, two of the same name, or a file that cannot be used, with its line.
    """
    files: list[Path] = []
    for place in map(Path, places):
        found = sorted(place.glob("*.txt")) if place.is_dir() else [place]
        if not found:
            raise UserError(f"{place}: holds no probing task: give a folder of .txt files in SentEval's layout")
        files += found
    by_name: dict[str, Path] = {}
    for file in {file.resolve(): file for file in files}.values():
        if file.stem in by_name:
            raise UserError(f"{file}: {by_name[file.stem]} has the same name: rename one of the two")
        by_name[file.stem] = file
    return [read_task(by_name[name]) for name in sorted(by_name, key=lambda name: (_rank(name), name))]


def read_task(path: Path | str) -> ProbingTask:
    """Index one file.

    Raises:
        UserError: a malformed line, a split missing, a label of va or te that tr does not have, a single label.
    """
    path = Path(path)
    split_N, label_N, begin_N, end_N = (
        array("b"),
        array("i"),
        array("q"),
        array("q"),
    )  # lists would take five times as much
    line_of_label: list[tuple[str, int]] = []
    number_of: dict[bytes, int] = {}
    digest = hashlib.sha256()
    for number, start, line in _lines(path):
        digest.update(line)
        if not line.strip():
            continue
        split, label, begin, end = _fields(path, number, line)
        if label not in number_of:
            number_of[label] = len(number_of)
            line_of_label.append((_text(path, number, label), number))
        split_N.append(split)
        label_N.append(number_of[label])
        begin_N.append(start + begin)
        end_N.append(start + end)
    return _arranged(path, split_N, label_N, begin_N, end_N, line_of_label, digest.hexdigest())


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Number, first byte and bytes of each line."""
    try:
        with open(path, "rb") as file:
            start = 0
            for number, line in enumerate(file, start=1):
                skipped = len(_BOM) if number == 1 and line.startswith(_BOM) else 0
                yield number, start + skipped, line[skipped:]
                start += len(line)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _fields(path: Path, number: int, line: bytes) -> tuple[int, bytes, int, int]:
    """Split, label and the sentence's place in the line; the sentence is the last field."""
    body = line.rstrip(b"\r\n")
    parts = body.split(b"\t")
    if len(parts) < 3:
        raise UserError(
            f"{path}, line {number}: {len(parts)} fields: a line is tr, va or te, TAB, label, TAB, sentence"
        )
    split = parts[0].strip().decode(errors="replace")
    if split not in SPLITS:
        raise UserError(f"{path}, line {number}: begins with '{split[:20]}': the first field is tr, va or te")
    label = parts[1].strip()
    if not label or not parts[-1].strip():
        raise UserError(
            f"{path}, line {number}: empty {'sentence' if label else 'label'}: fill it in or delete the line"
        )
    _text(path, number, parts[-1])
    return SPLITS.index(split), label, len(body) - len(parts[-1]), len(body)


def _text(path: Path, number: int, field: bytes) -> str:
    try:
        return field.decode()
    except UnicodeDecodeError:
        raise UserError(f"{path}, line {number}: not UTF-8: convert the file") from None


def _arranged(
    path: Path,
    split_N: "array[int]",
    label_N: "array[int]",
    begin_N: "array[int]",
    end_N: "array[int]",
    line_of_label: list[tuple[str, int]],
    sha256: str,
) -> ProbingTask:
    splits, labels = np.array(split_N, dtype=np.int8), np.array(label_N, dtype=np.int32)
    for number, split in enumerate(SPLITS):
        if not (splits == number).any():
            raise UserError(f"{path}: no line begins with '{split}': a task has training, validation and test rows")
    trained = np.bincount(labels[splits == 0], minlength=len(line_of_label)) > 0
    for number in np.flatnonzero(~trained)[:1].tolist():
        name, line = line_of_label[number]
        raise UserError(f"{path}, line {line}: label '{name[:40]}' never occurs in tr: no probe can learn it")
    if len(line_of_label) < 2:
        raise UserError(f"{path}: all rows have the label '{line_of_label[0][0][:40]}': there is nothing to learn")
    order = np.argsort(splits, kind="stable")
    by_name = sorted(range(len(line_of_label)), key=lambda number: line_of_label[number][0])
    rank = np.empty(len(by_name), dtype=np.int32)
    rank[by_name] = np.arange(len(by_name))
    sizes = np.bincount(splits, minlength=3).tolist()
    return ProbingTask(
        path,
        path.stem,
        tuple(line_of_label[number][0] for number in by_name),
        rank[labels[order]],
        (sizes[0], sizes[1], sizes[2]),
        np.array(begin_N, dtype=np.int64)[order],
        np.array(end_N, dtype=np.int64)[order],
        sha256,
    )
