"""Rows of two sentences: GLUE's TSV files (`pairs`) and the jsonl of SNLI and MNLI (`nli-jsonl`).

A TSV file is split at tabs and nothing else: GLUE's files hold quotation marks that quote nothing. A row
lacking one of its sentences (some of QQP's do) is dropped and counted.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.shape import whole
from hmtl_plugin.preparation.deduplication import Uint64Array, key
from hmtl_plugin.preparation.readers.plain import parse_json_line
from hmtl_plugin.preparation.readers.text import Span, decode, first_line, spans, tidy

KNOWN_COLUMNS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("question1", "question2"),
    ("#1 String", "#2 String"),
    ("sentence_A", "sentence_B"),
)


@dataclass(frozen=True)
class PairColumns:
    """Where a file's two sentences stand: column numbers of a TSV or fields of a jsonl; `header_bytes` to
    skip.
    """

    first: int | str
    second: int | str
    header_bytes: int = 0


def tsv_columns(path: str, chosen: str | None) -> PairColumns:
    """Find the sentence columns of a TSV file by its header, or as chosen: ``name,name``, or ``3,4`` counted
    from 1.

    With numbers there is a header only if the file's first line is a known one.
    """
    line = first_line(path)
    header = [cell.strip() for cell in decode(line, path, 0).removeprefix("\ufeff").rstrip("\r\n").split("\t")]
    known = next((pair for pair in KNOWN_COLUMNS if pair[0] in header and pair[1] in header), None)
    if chosen is None:
        if known is None:
            shown = ", ".join(cell[:30] for cell in header[:12])
            raise UserError(f"{path}: no known pair of columns in its header ({shown}); name two with --columns A,B")
        return PairColumns(header.index(known[0]), header.index(known[1]), len(line))
    names = [name.strip() for name in chosen.split(",")]
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise UserError(f"--columns {chosen}: give two different columns, as name,name or as number,number from 1")
    first, second = map(whole, names)
    if first is not None and second is not None:
        first, second = first - 1, second - 1
        if min(first, second) < 0 or max(first, second) >= len(header):
            raise UserError(f"--columns {chosen}: {path} has the columns 1 to {len(header)}")
        return PairColumns(first, second, len(line) if known else 0)
    missing = [name for name in names if name not in header]
    if missing:
        raise UserError(f"--columns {chosen}: {path} has no column '{missing[0]}', only {', '.join(header[:12])}")
    return PairColumns(header.index(names[0]), header.index(names[1]), len(line))


def jsonl_columns(path: str, chosen: str | None) -> PairColumns:
    """The two fields of a jsonl file, by its first record or as chosen."""
    lines = (line for span in spans(path) for line in span.bytes().split(b"\n"))
    record = parse_json_line(next((line for line in lines if line.strip()), b"{}"), path, 0)
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        if len(names) != 2 or not all(names) or names[0] == names[1]:
            raise UserError(f"--columns {chosen}: give two different fields, as name,name")
        return PairColumns(names[0], names[1])
    for first, second in KNOWN_COLUMNS:
        if first in record and second in record:
            return PairColumns(first, second)
    raise UserError(f"{path}: no known pair of sentence fields ({', '.join(record)}); name two with --columns A,B")


@dataclass(frozen=True)
class Rows:
    """The complete rows of a span.

    Attributes:
        lines: each row as ``first TAB second LF`` in UTF-8 (tidy text holds no tab).
        lengths_R: int64, bytes of each row in `lines`.
        keys_2R: uint64, `deduplication.key` of first, second, first, second ...
        incomplete: rows dropped because a sentence was missing or empty.
    """

    lines: bytes
    lengths_R: npt.NDArray[np.int64]
    keys_2R: Uint64Array
    incomplete: int


def read_rows(span: Span, columns: PairColumns) -> Rows:
    """Parse the rows of a span; only its complete rows are kept."""
    pairs = _tsv_pairs(span, columns) if isinstance(columns.first, int) else _jsonl_pairs(span, columns)
    rows: list[bytes] = []
    keys: list[int] = []
    incomplete = 0
    for raw_first, raw_second in pairs:
        first, second = tidy(raw_first), tidy(raw_second)
        if not (first and second):
            incomplete += 1
            continue
        rows.append(f"{first}\t{second}\n".encode())
        keys += (key(first), key(second))
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    return Rows(b"".join(rows), lengths, np.array(keys, dtype=np.uint64), incomplete)


def _tsv_pairs(span: Span, columns: PairColumns) -> list[tuple[str, str]]:
    first, second = int(columns.first), int(columns.second)
    needed = max(first, second)
    pairs: list[tuple[str, str]] = []
    for line in span.read().split("\n"):
        cells = line.rstrip("\r").split("\t")
        if len(cells) > needed:
            pairs.append((cells[first], cells[second]))
        elif line.strip():
            pairs.append(("", ""))
    return pairs


def _jsonl_pairs(span: Span, columns: PairColumns) -> list[tuple[str, str]]:
    span.read()  # refuses what is not UTF-8 with its byte
    pairs: list[tuple[str, str]] = []
    offset = span.start
    for line in span.bytes().split(b"\n"):
        if line.strip():
            record = parse_json_line(line, span.path, offset)
            values = [record.get(str(name)) for name in (columns.first, columns.second)]
            pairs.append(tuple(v if isinstance(v, str) else "" for v in values))  # type: ignore[arg-type]
        offset += len(line) + 1
    return pairs


def group_rows(keys_2R: Uint64Array) -> npt.NDArray[np.int64]:
    """Number of the group of each row: rows joined, directly or through others, by an identical sentence.

    Args:
        keys_2R: keys of the rows' first and second sentences in turn.

    Returns:
        (R,) int64; groups are numbered in the order of their first rows. Connected components by minimum
        label and
        pointer jumping, whole arrays at a time: a few rounds, whatever the shape of the graph.
    """
    rows = len(keys_2R) // 2
    if not rows:
        return np.empty(0, dtype=np.int64)
    _, node = np.unique(keys_2R, return_inverse=True)
    left, right = node[0::2], node[1::2]
    parent = np.arange(int(node.max()) + 1, dtype=np.int64)
    while True:
        a, b = parent[left], parent[right]
        if np.array_equal(a, b):
            break
        low, high = np.minimum(a, b), np.maximum(a, b)
        np.minimum.at(parent, high, low)
        while True:  # every node straight to its root
            grand = parent[parent]
            if np.array_equal(grand, parent):
                break
            parent = grand
    _, first_row, label = np.unique(parent[left], return_index=True, return_inverse=True)
    rank = np.empty(len(first_row), dtype=np.int64)
    rank[np.argsort(first_row, kind="stable")] = np.arange(len(first_row))
    return rank[label]
