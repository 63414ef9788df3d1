"""Records of benchmarks: one JSON file a run, from which `report.py` makes docs/benchmarks.md.

    with Recorder("loader", args.json) as recorder:
        recorder.add(Row("corruption and collation", "tokens/s", speeds, peer=others, peer_name="MaskTokensDataset"))

Numbers go in as measured, one a repeat; medians, spreads and ratios are worked out here, and whether a target is met
comes from `targets.tsv`. The file is written after every row, so that a benchmark stopped at its time limit leaves what
it has.
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from machine import Machine, command, commit, public, versions
from row import Row
from targets import Target, read_targets

from hmtl_plugin.files.publishing import write_json

__all__ = ["Record", "Recorder", "Row", "command_line"]


def command_line(documentation: str | None, device: bool = False) -> argparse.ArgumentParser:
    """A benchmark's command line: ``--json``, and ``--device`` if it asks for one; the benchmark adds its own.

    Args:
        documentation: the module's docstring.
    """
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the record")
    if device:
        parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    return parser


@dataclass(frozen=True)
class Record:
    """A benchmark's run.

    Attributes:
        commit: with ``+`` if files differed from it; None if unknown.
        date: UTC, ISO 8601, when it began.
        load: mean number of running processes over the minute before it began, and over its last.
        finished: it was not stopped before its end.
    """

    benchmark: str
    machine: Machine
    versions: Mapping[str, str]
    commit: str | None
    date: str
    command: str
    load: tuple[float, float]
    finished: bool
    rows: Sequence[Row]

    def targets_of(self, row: Row, targets: Sequence[Target]) -> list[Target]:
        """Those that concern the row."""
        return [target for target in targets if target.concerns(self.benchmark, row.device, row.what)]

    def to_json(self, targets: Sequence[Target]) -> dict[str, Any]:
        """The file's content."""
        rows = [row.to_json(self.targets_of(row, targets)) for row in self.rows]
        return {**vars(self), "machine": asdict(self.machine), "rows": rows}

    @classmethod
    def read(cls, path: Path) -> "Record":
        """From a file."""
        values = json.loads(path.read_text(encoding="utf-8"))
        values["machine"] = Machine.from_json(values["machine"])
        values["load"] = tuple(values["load"])
        values["rows"] = tuple(map(Row.from_json, values["rows"]))
        return cls(**values)


class Recorder:
    """Collects a benchmark's rows, prints them, and keeps its file up to date if it has one. A context manager: its end
    finishes the record.
    """

    def __init__(self, benchmark: str, path: Path | None) -> None:
        self.path, self.rows = path, list[Row]()
        self._targets = read_targets()
        self._load = round(os.getloadavg()[0], 2)  # before we add to it
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")
        self._about = (benchmark, Machine.here(), versions(), commit(), date, command())
        self._finished = False

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._finished = kind is None
        if self.rows or self._finished:
            self._write()

    def add(self, row: Row) -> Row:
        """Keep a row, print it, write the file, give the row back."""
        self.keep(row)
        print(row.line(self.record.targets_of(row, self._targets)), flush=True)
        return row

    def keep(self, *rows: Row) -> None:
        """Add rows that may grow yet, instead of those that they grew from (same name and device), and write the file."""
        grown = {(row.what, row.device) for row in rows}
        self.rows[:] = [row for row in self.rows if (row.what, row.device) not in grown] + [*rows]
        self._write()

    @property
    def record(self) -> Record:
        """All so far."""
        load = (self._load, round(os.getloadavg()[0], 2))
        return Record(*self._about, load, self._finished, tuple(self.rows))

    def _write(self) -> None:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, _public(self.record.to_json(self._targets)))


def _public(value: Any) -> Any:
    """The same with absolute paths shortened, wherever in it they are: records are committed."""
    if isinstance(value, str):
        return public(value)
    if isinstance(value, dict):
        return {key: _public(item) for key, item in value.items()}
    return [_public(item) for item in value] if isinstance(value, list | tuple) else value
