"""A row of a benchmark: one thing measured, as often as it was, beside its peer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal, TypeAlias

from quantities import digits, measured
from targets import Target

Detail: TypeAlias = str | float | int | bool


@dataclass(frozen=True)
class Row:
    """One thing measured, beside its peer if it has one. Speeds, times and memory all fit.

    Attributes:
        what: a phrase that tells it from all others of its benchmark on that device; `targets.tsv` goes by it.
        unit: in full units: ``tokens/s``, ``s``, ``bytes``, ``bytes/s``, ``%``.
        ours: a number a repeat.
        better: which numbers are the better ones.
        peer: the peer's numbers, in the same unit, taken in turns with ours.
        peer_name: who or what that is.
        device: what computed: ``cpu`` or ``gpu``, which torch's ``cuda`` becomes.
        details: whatever else a reader should know: batch sizes, utilisation, whether results are identical.
    """

    what: str
    unit: str
    ours: Sequence[float]
    better: Literal["higher", "lower"] = "higher"
    peer: Sequence[float] = ()
    peer_name: str = ""
    device: str = "cpu"
    details: Mapping[str, Detail] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.ours:
            raise ValueError(f"{self.what}: nothing measured")
        object.__setattr__(self, "device", self.device.replace("cuda", "gpu"))

    @property
    def value(self) -> float:
        """Median of ours."""
        return median(self.ours)

    @property
    def peer_value(self) -> float | None:
        """Median of the peer's."""
        return median(self.peer) if self.peer else None

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer: below 1 is worse."""
        if not self.peer_value:
            return None
        return self.value / self.peer_value if self.better == "higher" else self.peer_value / self.value

    @property
    def overhead(self) -> float | None:
        """How much more than the peer, as a share of the peer's number."""
        return self.value / self.peer_value - 1 if self.peer_value else None

    def met(self, targets: Sequence[Target]) -> bool | None:
        """Are all of these targets of the row met? None if there are none."""
        found = {"value": self.value, "ratio": self.ratio, "overhead": self.overhead}
        return all(target.met(found[target.measure]) for target in targets) if targets else None

    def compared(self, targets: Sequence[Target]) -> str:
        """How many times better than the peer, or for a target on the overhead how many percent more; ``-`` without a
        peer.
        """
        if self.ratio is None or self.overhead is None:
            return "-"
        if any(target.measure == "overhead" for target in targets):
            return f"{100 * self.overhead:+.3g} %"
        return f"{digits(self.ratio)}x"

    def outcome(self, targets: Sequence[Target]) -> str:
        """What it must reach, and whether it does; ``-`` without targets."""
        return f"{self._wanted(targets)}: {'met' if self.met(targets) else 'not met'}" if targets else "-"

    def _wanted(self, targets: Sequence[Target]) -> str:
        return " and ".join(target.text(self.unit) for target in targets)

    def line(self, targets: Sequence[Target]) -> str:
        """For a terminal."""
        parts = [f"{self.what}: {measured(self.ours, self.unit)}"]
        if self.peer:
            parts.append(f"{self.peer_name}: {measured(self.peer, self.unit)}: {self.compared(targets)}")
        return " | ".join((*parts, *([self.outcome(targets)] if targets else [])))

    def to_json(self, targets: Sequence[Target]) -> dict[str, Any]:
        """For a record: what was measured, and for its readers what follows from it."""
        return {
            "what": self.what,
            "device": self.device,
            "unit": self.unit,
            "better": self.better,
            "ours": self.value,
            "spread": [min(self.ours), max(self.ours)],
            "repeats": len(self.ours),
            "measured": list(self.ours),
            "peer_name": self.peer_name or None,
            "peer": self.peer_value,
            "peer_spread": [min(self.peer), max(self.peer)] if self.peer else None,
            "peer_measured": list(self.peer),
            "ratio": self.ratio,
            "target": self._wanted(targets) or None,
            "met": self.met(targets),
            "details": dict(self.details),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Row":
        """What was measured; the rest follows anew."""
        made = {name: values[name] for name in ("what", "unit", "better", "device", "details")}
        ours, peer = tuple(values["measured"]), tuple(values["peer_measured"])
        return cls(ours=ours, peer=peer, peer_name=values["peer_name"] or "", **made)
