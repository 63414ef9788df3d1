"""Records of a study: a file a run, a group of lines a finished stage. With them alone, nothing recorded is done again.

STUDY/records/flat-seed1.jsonl     result lines of a stage, then a line of kind ``stage``; or all of them in
records.jsonl.gz
"""

import gzip
import io
import json
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.publishing import write_whole
from hmtl_plugin.results import append_results, check_results, parse_results

Line = dict[str, Any]
FOLDER, PACKED = "records", "records.jsonl.gz"
STAGE = "stage"


class Records:
    """Finished stages, by fingerprint. A group without its closing line is of a killed writer and does not count."""

    def __init__(self, study: Path) -> None:
        self.folder = study / FOLDER
        self.groups: dict[str, list[Line]] = {}
        for path in [study / PACKED, *sorted(self.folder.glob("*.jsonl"))]:
            if path.is_file():
                self._read(path)

    def _read(self, path: Path) -> None:
        group: list[Line] = []
        for line in _lines(path):
            group.append(line)
            if line.get("kind") == STAGE:
                check_results([line])
                fingerprint = line["fingerprint"]
                whole = [one for one in group if one.get("stage_fingerprint") == fingerprint]
                # before it may stand what a killed writer left of the same stage
                count = line.get("lines", len(whole) - 1)
                self.groups[fingerprint] = whole[-count - 1 :]
                group = []

    def refresh(self, run: str) -> None:
        """Read a run's records again: another process may have worked on it."""
        path = self.folder / f"{run}.jsonl"
        if path.is_file():
            self._read(path)

    def __contains__(self, fingerprint: str) -> bool:
        return fingerprint in self.groups

    def add(self, run: str, fingerprint: str, lines: list[Line], closing: Line) -> None:
        """Record a finished stage; the closing line is what says that it is."""
        closing = {"kind": STAGE, "fingerprint": fingerprint, "lines": len(lines), **closing}
        group = [{**line, "stage_fingerprint": fingerprint} for line in [*lines, closing]]
        append_results(self.folder / f"{run}.jsonl", group)
        self.groups[fingerprint] = group


def pack(study: Path, target: Path, fingerprints: Collection[str] | None = None) -> int:
    """Write all groups, or those of these stages, into one compressed file; returns its size. Equal bytes for equal
    records.
    """
    records = Records(study)
    wanted = records.groups if fingerprints is None else set(fingerprints) & set(records.groups)
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
        for fingerprint in sorted(wanted):
            for line in records.groups[fingerprint]:
                file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
    with write_whole(target) as part:
        part.write_bytes(buffer.getvalue())
    return target.stat().st_size


def _lines(path: Path) -> Iterator[Line]:
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}): fetch it again, or remove it") from None
    yield from parse_results(content, path)
