"""The probes: every layer's best classifier, chosen on ``va``, and what it says of ``te``."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hmtl_plugin.probing import logistic, mlp
from hmtl_plugin.probing.logistic import Features
from hmtl_plugin.probing.mlp import MlpOptions

PROBES = ("logistic", "mlp")
PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # SentEval's four, and a stronger one for small sets


@dataclass(frozen=True)
class ProbeOptions:
    """Which classifier, and what is chosen on ``va``.

    Attributes:
        probe: ``logistic`` or ``mlp``; tasks with very many labels get ``logistic`` in any case, as in SentEval.
        penalties: L2 of logistic regression.
        grid: of the MLP, with its schedule.
    """

    probe: str = "logistic"
    penalties: tuple[float, ...] = PENALTIES
    grid: MlpOptions = field(default_factory=MlpOptions)

    def of_task(self, linear_only: bool) -> str:
        """The probe that a task gets."""
        return "logistic" if linear_only else self.probe

    def record(self, linear_only: bool) -> dict[str, Any]:
        """All that a result depends on."""
        if self.of_task(linear_only) == "logistic":
            return {"probe": "logistic", "penalties": list(self.penalties)}
        return {"probe": "mlp", **asdict(self.grid)}


class LayerResult(NamedTuple):
    """One layer: share of ``va`` that is right, which rows of ``te`` are, and what was chosen."""

    valid: float
    right_N: npt.NDArray[np.bool_]
    hyper: dict[str, Any]


def probe_layers(
    splits: Sequence[Features],
    labels: Sequence[npt.NDArray[np.int32]],
    classes: int,
    options: ProbeOptions,
    linear_only: bool = False,
    seed: int = 1,
    device: str = "cpu",
) -> list[LayerResult]:
    """Probe all layers of (N, L+1, H) features of tr, va and te at once."""
    if options.of_task(linear_only) == "logistic":
        return _logistic(splits, labels, classes, options.penalties, device)
    return _mlp(splits, labels, classes, options.grid, seed, device)


def _logistic(
    splits: Sequence[Features],
    labels: Sequence[npt.NDArray[np.int32]],
    classes: int,
    penalties: tuple[float, ...],
    device: str,
) -> list[LayerResult]:
    best: dict[int, LayerResult] = {}
    tr, va, te = splits
    for fitted in logistic.fit(tr, labels[0], classes, penalties, device):
        valid_P = (logistic.predict(fitted, va) == labels[1]).mean(1)
        right_PN = logistic.predict(fitted, te) == labels[2]
        for p, layer in enumerate(fitted.layer_P.tolist()):
            # penalties come from the strongest: of equal ones it is kept
            if layer not in best or valid_P[p] > best[layer].valid:
                hyper = {"l2": fitted.penalty_P[p], "converged": bool(fitted.converged_P[p])}
                best[layer] = LayerResult(float(valid_P[p]), right_PN[p], hyper)
    return [best[layer] for layer in range(tr.shape[1])]


def _mlp(
    splits: Sequence[Features],
    labels: Sequence[npt.NDArray[np.int32]],
    classes: int,
    options: MlpOptions,
    seed: int,
    device: str,
) -> list[LayerResult]:
    result = mlp.train(splits, labels, classes, options, seed, device)
    cells, layers = mlp.cells_of(options), splits[0].shape[1]
    valid_CL = result.valid_P.reshape(len(cells), layers)
    found = []
    for layer, cell in enumerate(valid_CL.argmax(0).tolist()):
        model = cell * layers + layer
        width, dropout = cells[cell]
        hyper = {"hidden": width, "dropout": dropout, "epochs": int(result.epochs_P[model])}
        found.append(LayerResult(float(valid_CL[cell, layer]), result.predicted_PN[model] == labels[2], hyper))
    return found
