"""What a report of a study shows, as data: every variant's value of every measure with every seed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BASELINE = "flat"
PRIMARY, PROBES = "primary", "probes"


@dataclass(frozen=True)
class Measure:
    """One column of the main table.

    Attributes:
        name: unique. title: of its column, also in values.tsv.
        family: `PRIMARY` or `PROBES`; comparisons are corrected for their number within one.
        unit: of its values and differences; may be empty.
        higher_is_better: False for perplexity.
        digits: after the point.
        in_average: of a probe, whether it counts in the probing average.
        pretraining: of a target of pre-training, held out; ``counted``: what it means to fall short of its counts.
    """

    name: str
    title: str
    family: str
    unit: str
    higher_is_better: bool = True
    digits: int = 1
    in_average: bool = False
    pretraining: bool = False
    counted: str = ""


@dataclass(frozen=True)
class Row:
    """One variant.

    Attributes:
        trained: pre-trained by the study; reference: a published checkpoint.
        own: probing tasks that it was pre-trained on.
        seeds: those with some record; planned: those of the study's plan.
        against: the variant that lacks only what it adds, its ablation; it is compared with that too.
        layers: of each objective, as recorded, and the depth; empty where nothing says.
        learnt: by title of a pre-training measure, whether some seed's interval excludes the trivial baseline.
    """

    name: str
    hierarchy: str
    transfer: str
    weighting: str
    options: str
    why: str
    trained: bool
    reference: bool
    own: frozenset[str] = frozenset()
    seeds: tuple[int, ...] = ()
    planned: tuple[int, ...] = ()
    against: str = BASELINE
    layers: str = ""
    learnt: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What one run took. Seconds of all stages; ``device`` as recorded."""

    parameters: float | None
    tokens_per_second: float | None
    pretraining_seconds: float | None
    seconds: float
    device: str


@dataclass(frozen=True)
class Value:
    """One value and the stage whose records it was computed from."""

    value: float
    fingerprint: str


@dataclass(frozen=True)
class MixedLayers:
    """What one run learnt: layer -> its share, layer -> the value with it alone."""

    shares: dict[int, float]
    alone: dict[int, float]


Curve = dict[str, list[float]]


@dataclass(frozen=True)
class StudyReport:
    """A whole report; a half-done study lacks values.

    Attributes:
        values: by (variant, measure) then seed.
        curves, costs: by variant, then seed.
        probes: result lines of kind ``probe``, the variant's name and the study's seed in them.
        chance, counts: of a measure, what the trivial baseline reaches, and what counting the text of pre-training
            does.
        plan: entries of study.json: variant, seed, stage -> fingerprint; done_stages: how many of them are recorded.
        not_finite: values that are no numbers, as texts; they are left out.
        made: how records were made: commit, versions, device, precision -> the runs that have it; more than one each:
            they are mixed.
        remade: runs whose results come from two trainings of the same model.
        mixes: by (variant, measure of an objective that reads a mix of layers), then seed: the share of each layer, and
            what the measure is with that layer alone.
        about: what was run: profile, prepared, command, commit, versions.
    """

    rows: tuple[Row, ...]
    measures: tuple[Measure, ...]
    values: dict[tuple[str, str], dict[int, Value]]
    chance: dict[str, float]
    curves: dict[str, dict[int, Curve]]
    costs: dict[str, dict[int, Cost]]
    probes: list[dict[str, Any]]
    plan: list[dict[str, Any]]
    done_stages: int
    not_finite: tuple[str, ...] = ()
    made: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    remade: tuple[str, ...] = ()
    counts: dict[str, float] = field(default_factory=dict)
    mixes: dict[tuple[str, str], dict[int, "MixedLayers"]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def by_seed(self, variant: str, measure: str) -> dict[int, float]:
        """Seed -> value."""
        return {seed: found.value for seed, found in sorted(self.values.get((variant, measure), {}).items())}

    @property
    def planned_stages(self) -> int:
        """In the plan."""
        return sum(len(entry["stages"]) for entry in self.plan)

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds with some record."""
        return tuple(sorted({seed for row in self.rows for seed in row.seeds}))
