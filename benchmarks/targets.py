"""What a row must reach, from the table `targets.tsv`: nothing is called met that its numbers do not show.

Columns: ``benchmark``, ``device`` (cpu, gpu, any) and ``what`` (a pattern with ``*``) say for which rows; ``measure`` is

    value       the row's own number, in its unit
    ratio       how many times better than the peer
    overhead    how much more than the peer, of the peer's number (0.05: 5 % more)

``bound`` is ``at least`` or ``at most``, ``number`` the bound. Several lines for a row must all be met.
"""

import csv
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from quantities import digits, quantity

TABLE = Path(__file__).with_suffix(".tsv")
MEASURES = ("value", "ratio", "overhead")
BOUNDS = ("at least", "at most")


@dataclass(frozen=True)
class Target:
    """One line of the table."""

    benchmark: str
    device: str
    what: str
    measure: str
    bound: str
    number: float

    def __post_init__(self) -> None:
        if self.measure not in MEASURES or self.bound not in BOUNDS:
            raise ValueError(f"{TABLE.name}: {self.what}: measure is one of {MEASURES}, bound one of {BOUNDS}")

    def concerns(self, benchmark: str, device: str, what: str) -> bool:
        """Is it of this row?"""
        return self.benchmark == benchmark and self.device in (device, "any") and fnmatchcase(what, self.what)

    def met(self, measured: float | None) -> bool:
        """Does the number keep the bound? What was not measured does not."""
        if measured is None:
            return False
        return measured >= self.number if self.bound == "at least" else measured <= self.number

    def text(self, unit: str) -> str:
        """For a table; ``unit`` is the row's."""
        if self.measure == "value":
            return f"{self.bound} {quantity(self.number, unit)}"
        return f"{self.bound} {f'{digits(self.number)}x' if self.measure == 'ratio' else f'{100 * self.number:+.3g} %'}"


def read_targets(path: Path = TABLE) -> list[Target]:
    """All lines."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [Target(**{**row, "number": float(row["number"])}) for row in rows]  # type: ignore[arg-type]
