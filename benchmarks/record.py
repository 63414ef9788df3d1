"""Records of benchmarks: one JSON file a run, from which `report.py` makes docs/benchmarks.md.

    with Recorder("loader", args.json) as recorder:
        recorder.add(Row("corruption and collation", "tokens/s", speeds, peer=others, peer_name="MaskTokensDataset"))

Numbers go in as measured, one a repeat; medians, spreads and ratios are worked out here, and whether a target is met comes
from `targets.tsv`. The file is written after every row, so that a benchmark stopped at its time limit leaves what it has.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from machine import Machine, command, commit, public, versions
from row import Row
from targets import Target, read_targets

__all__ = ["Record", "Recorder", "Row"]


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
        return {
            "benchmark": self.benchmark,
            "machine": self.machine.to_json(),
            "versions": dict(self.versions),
            "commit": self.commit,
            "date": self.date,
            "command": self.command,
            "load": list(self.load),
            "finished": self.finished,
            "rows": [row.to_json(self.targets_of(row, targets)) for row in self.rows],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Record":
        """From what `to_json` gave."""
        made = {
            "machine": Machine.from_json(values["machine"]),
            "load": tuple(values["load"]),
            "rows": tuple(map(Row.from_json, values["rows"])),
        }
        return cls(**{**values, **made})

    @classmethod
    def read(cls, path: Path) -> "Record":
        """From a file."""
        return cls.from_json(json.loads(path.read_text(encoding="utf-8")))


class Recorder:
    """Collects a benchmark's rows, prints them, and keeps its file up to date if it has one. A context manager: its end finishes the record."""

    def __init__(self, benchmark: str, path: Path | None) -> None:
        self.benchmark, self.path = benchmark, path
        self.rows: list[Row] = []
        self._targets = read_targets()
        self._finished = False
        self._machine, self._versions, self._commit = Machine.here(), versions(), commit()
        self._date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ")
        self._load = os.getloadavg()[0]  # before we add to it

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

    def keep(self, row: Row) -> None:
        """Add a row that may grow yet, or put it in the place of the one it grew from (same name and device), and write the file."""
        names = [(kept.what, kept.device) for kept in self.rows]
        place = names.index((row.what, row.device)) if (row.what, row.device) in names else len(names)
        self.rows[place : place + 1] = [row]
        self._write()

    @property
    def record(self) -> Record:
        """All so far."""
        load = (round(self._load, 2), round(os.getloadavg()[0], 2))
        return Record(
            self.benchmark,
            self._machine,
            self._versions,
            self._commit,
            self._date,
            command(),
            load,
            self._finished,
            tuple(self.rows),
        )

    def _write(self) -> None:
        """Beside its place, then renamed: a reader never sees half a file, nor does a kill leave one."""
        if self.path is None:
            return
        content = _public(self.record.to_json(self._targets))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f"{self.path.name}.part")
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(part, self.path)


def _public(value: Any) -> Any:
    """The same with absolute paths shortened, wherever in it they are: records are committed."""
    if isinstance(value, str):
        return public(value)
    if isinstance(value, dict):
        return {key: _public(item) for key, item in value.items()}
    return [_public(item) for item in value] if isinstance(value, list) else value
