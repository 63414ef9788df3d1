"""First stage for rows of sentence pairs: rows to a spool whose documents are groups of rows.

A line of the spool is ``first TAB second``. Memory holds three numbers a row; the rows themselves stay on
disk.
"""

import mmap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hmtl_plugin.parallel import WorkerPool
from hmtl_plugin.preparation.deduplication import ExcludedSentences, Uint64Array
from hmtl_plugin.preparation.gather import Spool
from hmtl_plugin.preparation.readers.pairs import PairColumns, Rows, group_rows, read_rows
from hmtl_plugin.preparation.readers.text import SPAN_BYTES, Span
from hmtl_plugin.preparation.splitting import SentenceSplitter


@dataclass
class RowReader:
    """What a worker needs to read rows: the columns of each file, and what is excluded."""

    columns: dict[str, PairColumns]
    excluded: ExcludedSentences | None = None
    language: str = "en"

    def __post_init__(self) -> None:
        self.splitter = SentenceSplitter(self.language)

    def excluded_rows(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """(R,) whether a row shares a sentence: a side as it stands, or a sentence of it."""
        if self.excluded is None or not len(self.excluded):
            return np.zeros(len(rows.lengths_R), dtype=np.bool_)
        sides = [line.split("\t") for line in rows.lines.decode().split("\n")[:-1]]
        shared = [
            self.excluded.shared([*pair, *(s for side in pair for s in self.splitter.split(side))]) for pair in sides
        ]
        return np.array(shared, dtype=np.bool_)


_reader: RowReader


def set_row_reader(reader: RowReader) -> None:
    """Set up a worker."""
    global _reader
    _reader = reader


def read_rows_task(task: list[Span]) -> list[tuple[Rows, npt.NDArray[np.bool_]]]:
    """In a worker: the rows of each span, and which of them are excluded."""
    result = []
    for span in task:
        rows = read_rows(span, _reader.columns[span.path])
        result.append((rows, _reader.excluded_rows(rows)))
    return result


def gather_rows(folder: Path, pool: WorkerPool, tasks: Iterable[list[Span]], advance: Callable[[int], object]) -> Spool:
    """Read all rows and write them group by group; `advance` is told the bytes read.

    Groups with an excluded row are dropped whole; of equal rows of a group the first is kept.
    """
    rows_path = folder / "rows.txt"
    lengths: list[npt.NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    keys: list[Uint64Array] = [np.empty(0, dtype=np.uint64)]
    excluded: list[npt.NDArray[np.bool_]] = [np.empty(0, dtype=np.bool_)]
    incomplete = 0
    with rows_path.open("wb") as file:
        for task_result, read in _with_sizes(pool, tasks):
            for rows, is_excluded in task_result:
                file.write(rows.lines)
                lengths.append(rows.lengths_R)
                keys.append(rows.keys_2R)
                excluded.append(is_excluded)
                incomplete += rows.incomplete
            advance(read)
    spool = _write_groups(folder, rows_path, np.concatenate(lengths), np.concatenate(keys), np.concatenate(excluded))
    spool.incomplete_rows = incomplete
    rows_path.unlink()
    return spool


def _with_sizes(pool: WorkerPool, tasks: Iterable[list[Span]]) -> Iterable[tuple[list, int]]:
    sizes: list[int] = []

    def noted() -> Iterable[list[Span]]:
        for task in tasks:
            sizes.append(sum(span.end - span.start for span in task))
            yield task

    for number, result in enumerate(pool.map(read_rows_task, noted())):
        yield result, sizes[number]


def _write_groups(
    folder: Path,
    rows_path: Path,
    lengths_R: npt.NDArray[np.int64],
    keys_2R: Uint64Array,
    excluded_R: npt.NDArray[np.bool_],
) -> Spool:
    spool = Spool(folder / "spool.txt", folder / "spool.keys")
    if not len(lengths_R):
        spool.text.touch()
        spool.keys.touch()
        return spool
    group_R = group_rows(keys_2R)
    groups = int(group_R.max()) + 1
    order_R = np.argsort(group_R, kind="stable")
    first_G = np.searchsorted(group_R[order_R], np.arange(groups))
    # The smallest sentence key names a group: it seldom changes when rows are added, so the split is stable.
    row_key_R = np.minimum(keys_2R[0::2], keys_2R[1::2])[order_R]
    key_G = np.minimum.reduceat(row_key_R, first_G)
    excluded_G = np.logical_or.reduceat(excluded_R[order_R], first_G)
    ends_R = np.cumsum(lengths_R)
    starts_R = ends_R - lengths_R
    bounds = [*first_G.tolist(), len(order_R)]
    with rows_path.open("rb") as file, spool.text.open("wb") as text:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        for group in range(groups):
            if excluded_G[group]:
                continue
            rows = order_R[bounds[group] : bounds[group + 1]]
            lines = [view[start:end] for start, end in zip(starts_R[rows].tolist(), ends_R[rows].tolist())]
            unique = list(dict.fromkeys(lines))
            spool.duplicate_rows += len(lines) - len(unique)
            block = (b"\n" if spool.documents else b"") + b"".join(unique)
            text.write(block)
            spool.size += len(block)
            spool.documents += 1
            spool.sentences += 2 * len(unique)
            if spool.size - spool.starts[-1][0] >= SPAN_BYTES:
                spool.starts.append((spool.size, spool.documents - 1))
        view.close()
    spool.excluded = int(excluded_G.sum())
    spool.keys.write_bytes(key_G[~excluded_G].tobytes())
    return spool
