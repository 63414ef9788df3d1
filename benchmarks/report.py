"""Writes docs/benchmarks.md from the records in docs/benchmarks, every number of it from a record.

    python benchmarks/report.py           # write
    python benchmarks/report.py --check   # status 1 if the page is not what would be written

Whether a target is met is worked out anew, from a record's numbers and `targets.tsv`. What is said beside the tables is in
`report.md.jinja`.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from machine import REPOSITORY, Machine
from quantities import digits, measured
from record import Record, Row
from targets import Target, read_targets

from hmtl_plugin.reporting.prose import wrapped

RECORDS = REPOSITORY / "docs" / "benchmarks"
PAGE = REPOSITORY / "docs" / "benchmarks.md"
TEMPLATE = Path(__file__).with_name("report.md.jinja")
HEADER = ("what", "ours", "peer", "better than the peer", "target", "machine", "command")


@dataclass(frozen=True)
class Table:
    """The rows of one benchmark on one kind of device, whatever machines they were measured on."""

    title: str
    markdown: str
    notes: tuple[str, ...]


def read_records(folder: Path) -> list[Record]:
    """All of a folder, by benchmark, then by date.

    Raises:
        SystemExit: for a file that is no record, in one line.
    """
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            records.append(Record.read(path))
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise SystemExit(f"error: {path.name}: no record ({error!r}): remove it or measure again") from error
    return sorted(records, key=lambda record: (record.benchmark, record.date))


def page(records: Sequence[Record], targets: Sequence[Target]) -> str:
    """The whole page."""
    machines = list(dict.fromkeys(record.machine for record in records))
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(TEMPLATE.name).render(
        machines=[f"**{letter(number)}**: {describe(machine)}" for number, machine in enumerate(machines)],
        cpu=tables(records, machines, targets, "cpu"),
        gpu=tables(records, machines, targets, "gpu"),
    )


def tables(records: Sequence[Record], machines: list[Machine], targets: Sequence[Target], device: str) -> list[Table]:
    """A table a benchmark that has rows of this device."""
    made = []
    for benchmark in dict.fromkeys(record.benchmark for record in records):
        chosen = [(r, [row for row in r.rows if row.device == device]) for r in records if r.benchmark == benchmark]
        lines, notes = [], []
        for record, rows in chosen:
            place = letter(machines.index(record.machine))
            for number, row in enumerate(rows):
                command = f"`{record.command}`" if not number else "same"
                lines.append((*_cells(row, record.targets_of(row, targets)), place, command))
            if rows:
                notes.append(wrapped(f"{place}: {about(record)}", "* "))
        if lines:
            made.append(Table(benchmark, markdown(HEADER, lines), tuple(notes)))
    return made


def _cells(row: Row, targets: Sequence[Target]) -> tuple[str, ...]:
    """What, ours, peer, ratio, target."""
    details = "; ".join(
        f"{name}: {value if isinstance(value, str) else _detail(value)}" for name, value in row.details.items()
    )
    peer = f"{row.peer_name}: {measured(row.peer, row.unit)}" if row.peer else "-"
    what = f"{row.what} ({details})" if details else row.what
    return what, measured(row.ours, row.unit), peer, row.compared(targets), row.outcome(targets)


def _detail(value: float | int | bool) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else digits(value)


def letter(number: int) -> str:
    """Name of a machine: A, B ... Z, A1, B1 ..."""
    return chr(ord("A") + number % 26) + (str(number // 26) if number >= 26 else "")


def describe(machine: Machine) -> str:
    """One line."""
    sets = f" ({', '.join(machine.instruction_sets)})" if machine.instruction_sets else ""
    parts = [
        f"{machine.cores} cores of {machine.cpu}{sets}{', virtual' if machine.virtual else ''}",
        f"{machine.memory_gib} GiB",
    ]
    if gpu := machine.gpu:
        count = f"{gpu.count} x " if gpu.count > 1 else ""
        memory = f" with {gpu.memory_gib} GiB" if gpu.memory_gib else ""
        parts.append(f"{count}{gpu.name}{memory}, driver {gpu.driver or 'unknown'}")
    return "; ".join(parts)


def about(record: Record) -> str:
    """When and with what a record was made, and what speaks against it."""
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    parts = [
        f"{record.date[:10]}, commit {record.commit or 'unknown'}",
        versions,
        f"load before it {record.load[0]:.1f}",
    ]
    if record.load[0] > 0.25 * record.machine.cores:
        parts[-1] += f" on {record.machine.cores} cores: **the machine was busy**"
    if not record.finished:
        parts.append("**stopped before its end**")
    return "; ".join(parts)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with pipes."""
    lines = (header, ["---"] * len(header), *rows)
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--records", type=Path, default=RECORDS, metavar="FOLDER")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE")
    args = parser.parse_args()
    text = page(read_records(args.records), read_targets())
    if not args.check:
        args.page.write_text(text, encoding="utf-8")
    elif not args.page.is_file() or args.page.read_text(encoding="utf-8") != text:
        raise SystemExit(f"error: {args.page.name} is not what its records give: run python benchmarks/report.py")


if __name__ == "__main__":
    main()
