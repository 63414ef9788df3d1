"""What a probing report shows, as data: encoders, their accuracies by task and layer, differences between encoders."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ProbedEncoder:
    """One encoder (a row of heat maps).

    Attributes:
        name: unique in a report.
        kind: ``checkpoint``, ``untrained`` (same shape, weights as initialised) or ``given`` (a function from Python).
        layers: L; features are those of 0 (embeddings) to L.
        placements: objective and layer (1..L) of pre-training, lowest first; empty where unknown.
        transfer: as in ``--transfer``, may be empty.
        source: checkpoint file or description.
        fingerprint: sha256 of what it was read from.
        mixes: objective that reads a mix of layers -> the share of each.
    """

    name: str
    kind: str
    layers: int
    placements: tuple[tuple[str, int], ...] = ()
    transfer: str = ""
    source: str = ""
    fingerprint: str = ""
    mixes: Mapping[str, Mapping[int, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Probed:
    """One encoder's layers on one task with one pooling: means over seeds, in percent; arrays are (L+1,).

    Attributes:
        low, high: 95 % interval of the accuracy (bootstrap over test items, and Student's t over seeds if several).
        sd: standard deviation over seeds, 0 for one.
        valid: accuracy on ``va``.
        best: layer with the highest accuracy on ``va``.
        centre, centre_low, centre_high: centre of gravity of the layers and its bootstrap interval; None where no layer
            is better than the majority.
        control: accuracy on the control task; None if it was not run. Selectivity is ``accuracy - control``.
        hyper: what ``va`` chose, one short text a layer (``l2 0.001``).
    """

    accuracy: FloatArray
    low: FloatArray
    high: FloatArray
    sd: FloatArray
    valid: FloatArray
    best: int
    centre: float | None
    centre_low: float | None
    centre_high: float | None
    control: FloatArray | None
    hyper: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """Accuracy of one encoder less that of the baseline encoder, layer by layer, (L+1,) each.

    Attributes:
        delta: percentage points.
        p: of the paired test, uncorrected.
        p_holm: corrected over all tasks and layers of this pair of encoders and this pooling.
    """

    delta: FloatArray
    p: FloatArray
    p_holm: FloatArray

    @property
    def significant(self) -> npt.NDArray[np.bool_]:
        """Where the corrected p is below 0.05."""
        return self.p_holm < 0.05


@dataclass(frozen=True)
class ProbedTask:
    """One task (a column of heat maps).

    Attributes:
        name: that of the file, or the canonical one (``bigram_shift``).
        title: for people (``Bigram shift``).
        items: rows of tr, va, te.
        classes: number of labels.
        majority: accuracy on ``te`` of the most frequent label of ``tr``, percent.
        bag_of_words: accuracy on ``te`` of naive Bayes on words, percent; None if it was not run.
        in_distribution: names of encoders that were pre-trained on this very task (bigram shift).
    """

    name: str
    title: str
    items: tuple[int, int, int]
    classes: int
    majority: float
    bag_of_words: float | None
    in_distribution: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ProbingResults:
    """A whole report. ``probed`` may lack keys: half-done work shows as empty cells.

    Attributes:
        probed: by (encoder name, task name, pooling).
        differences: by the same key, against the encoder ``baseline``; empty if there is none.
        settings: what was run, ready to print: probe, grid, seeds, precision, resamples, versions, commit, command.
    """

    encoders: tuple[ProbedEncoder, ...]
    tasks: tuple[ProbedTask, ...]
    poolings: tuple[str, ...]
    probed: dict[tuple[str, str, str], Probed]
    baseline: str | None = None
    differences: dict[tuple[str, str, str], Difference] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
