"""Result lines to a `ProbingResults`: means over seeds, intervals, best layers, differences."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hmtl_plugin.errors import UserError
from hmtl_plugin.probing.results import Difference, Probed, ProbedEncoder, ProbedTask, ProbingResults
from hmtl_plugin.probing.run import unpack
from hmtl_plugin.probing.tasks import known_task
from hmtl_plugin.results import check_results
from hmtl_plugin.statistics import at_the_edges, bootstrap_sums, holm, paired_test, percentiles, with_seeds

Line = dict[str, Any]
Key = tuple[str, str, str]
_Column = dict[int, dict[int, Line]]  # seed -> layer -> line


def summarise(
    lines: Iterable[Line], baseline: str | None = None, settings: dict[str, Any] | None = None
) -> ProbingResults:
    """The study that lines of kind ``probe`` make, in their order.

    Args:
        baseline: name of the encoder that others are compared with; None for no comparison.
    """
    lines = [line for line in lines if line.get("kind") == "probe"]
    check_results(lines)
    columns: dict[str, dict[Key, _Column]] = {"probe": {}, "control": {}}
    for line in lines:
        if line["role"] in columns:
            key = (line["variant"], line["task"], line["pooling"])
            columns[line["role"]].setdefault(key, {}).setdefault(line["seed"], {})[line["layer"]] = line
    for (variant, of, pooling), column in ((key, c) for of_role in columns.values() for key, c in of_role.items()):
        if len({tuple(sorted(layers)) for layers in column.values()}) > 1:
            raise UserError(
                f"results of {variant} on {of} ({pooling}): not of the same layers for all seeds: probe again"
            )
    encoders = _encoders(lines)
    tasks = [_task(name, lines, encoders) for name in dict.fromkeys(line["task"] for line in lines)]
    probed: dict[Key, Probed] = {}
    for task in tasks:
        of_task = {key: column for key, column in columns["probe"].items() if key[1] == task.name}
        probed |= _probed(of_task, columns["control"], task)
    return ProbingResults(
        encoders=tuple(encoders),
        tasks=tuple(tasks),
        poolings=tuple(dict.fromkeys(key[2] for key in columns["probe"])),
        probed=probed,
        baseline=baseline,
        differences=_differences(columns["probe"], baseline) if baseline else {},
        settings=settings or {},
    )


def _encoders(lines: Sequence[Line]) -> list[ProbedEncoder]:
    first = {line["variant"]: line for line in reversed(lines) if line["role"] == "probe"}
    return [
        ProbedEncoder(
            name,
            line["encoder"],
            line["layers"],
            tuple((objective, layer) for objective, layer in line["placements"]),
            line["transfer"],
            line["checkpoint"],
            line["fingerprint"],
            {name: {int(k): v for k, v in shares.items()} for name, shares in line.get("mixes", {}).items()},
        )
        for name in dict.fromkeys(line["variant"] for line in lines if line["role"] == "probe")
        for line in [first[name]]
    ]


def _task(name: str, lines: Sequence[Line], encoders: Sequence[ProbedEncoder]) -> ProbedTask:
    own = [line for line in lines if line["task"] == name]
    baselines = {line["variant"]: line["metrics"]["accuracy"] for line in own if line["role"] == "baseline"}
    known, data = known_task(name), own[0]["data"]
    same = {e.name for e in encoders if known.objective in dict(e.placements)} if known.objective else set()
    if "majority" not in baselines or len(data["rows"]) != 3:
        raise UserError(f"results on {name}: without the majority's, or the rows of tr, va and te: probe again")
    tr, va, te = data["rows"]
    return ProbedTask(
        name,
        known.title,
        (tr, va, te),
        data["classes"],
        baselines["majority"],
        baselines.get("bag of words"),
        frozenset(same),
    )


def _probed(columns: dict[Key, _Column], controls: dict[Key, _Column], task: ProbedTask) -> dict[Key, Probed]:
    """All encoders and poolings of one task; they share the bootstrap samples of its test rows."""
    shares = [_right(column).mean(0).T for column in columns.values()]
    if not shares:
        return {}
    shares_NK = np.concatenate(shares, 1).astype(np.float32)  # of few seeds: sums of them are exact, or nearly
    draws_RK = 100 * bootstrap_sums(shares_NK) / len(shares_NK)
    found, start = {}, 0
    for (key, column), share in zip(columns.items(), shares, strict=True):
        draws = draws_RK[:, start : start + share.shape[1]]
        start += share.shape[1]
        found[key] = _one(column, controls.get(key), draws, task.majority, task.items[2])
    return found


def _one(
    column: _Column, control: _Column | None, draws_RK: npt.NDArray[np.float64], majority: float, count: int
) -> Probed:
    by_seed_SK = _metric(column, "accuracy")
    accuracy, valid = by_seed_SK.mean(0), _metric(column, "valid_accuracy").mean(0)
    low, high = at_the_edges(*percentiles(draws_RK / 100), accuracy / 100, count)
    low, high = with_seeds(100 * low, 100 * high, by_seed_SK)
    best = int(valid.argmax())
    centre = _centre(accuracy, draws_RK, majority) if low[best] > majority else None
    return Probed(
        accuracy=accuracy,
        low=low,
        high=high,
        sd=by_seed_SK.std(0, ddof=1) if len(by_seed_SK) > 1 else np.zeros_like(accuracy),
        valid=valid,
        best=best,
        centre=centre[0] if centre else None,
        centre_low=centre[1] if centre else None,
        centre_high=centre[2] if centre else None,
        control=_metric(control, "accuracy").mean(0) if control else None,
        hyper=tuple(_hyper(line) for line in next(iter(column.values())).values()),
    )


def _centre(
    accuracy: npt.NDArray[np.float64], draws_RK: npt.NDArray[np.float64], majority: float
) -> tuple[float, float, float] | None:
    """Centre of gravity and its interval; None where all layers are alike."""
    centre, draws_R = centre_of_gravity(accuracy[None], majority)[0], centre_of_gravity(draws_RK, majority)
    if np.isnan(centre):
        return None
    low, high = percentiles(draws_R)
    return float(centre), float(low), float(high)


def centre_of_gravity(accuracy_RK: npt.NDArray[np.float64], baseline: float) -> npt.NDArray[np.float64]:
    """(R,) mean layer, each layer weighted by what it is better than the worst layer (or the baseline, if that is
    higher).

    NaN where no layer is better than the baseline. K is L+1: layer 0 are the embeddings.
    """
    floor_R1 = np.maximum(accuracy_RK.min(1, keepdims=True), baseline)
    weight_RK = np.maximum(accuracy_RK - floor_R1, 0)
    total_R = weight_RK.sum(1)
    with np.errstate(invalid="ignore"):
        centre: npt.NDArray[np.float64] = (weight_RK @ np.arange(accuracy_RK.shape[1])) / total_R
    return centre


def _metric(column: _Column, name: str) -> npt.NDArray[np.float64]:
    """(S, L+1)."""
    return np.array([[layers[layer]["metrics"][name] for layer in sorted(layers)] for layers in column.values()])


def _right(column: _Column) -> npt.NDArray[np.bool_]:
    """(S, L+1, N) which test rows are right."""
    count = next(iter(next(iter(column.values())).values()))["data"]["rows"][2]
    return np.array([[unpack(layers[layer]["items"], count) for layer in sorted(layers)] for layers in column.values()])


def _hyper(line: Line) -> str:
    shown = {name: value for name, value in line["hyper"].items() if name not in ("probe", "converged")}
    text = ", ".join(
        f"{name} {value}" if isinstance(value, str) else f"{name} {value:g}" for name, value in shown.items()
    )
    return text if line["hyper"].get("converged", True) else text + " (not converged)"


def _differences(columns: dict[Key, _Column], baseline: str) -> dict[Key, Difference]:
    """Every encoder against the baseline, on the layers that both have; Holm over tasks and layers of each pair and
    pooling.
    """
    found: dict[Key, Difference] = {}
    pairs = dict.fromkeys((name, pooling) for name, _, pooling in columns if name != baseline)
    for name, pooling in pairs:
        keys, deltas, tests = [], [], []
        for key, column in columns.items():
            other = columns.get((baseline, key[1], key[2]))
            if key[0] != name or key[2] != pooling or other is None:
                continue
            first, second = _right(column), _right(other)
            shared = min(first.shape[1], second.shape[1])
            keys.append(key)
            deltas.append(100 * (first.mean((0, 2))[:shared] - second.mean((0, 2))[:shared]))
            tests.append(np.array([paired_test(first[:, k], second[:, k]) for k in range(shared)]))
        if keys:
            corrected = np.split(holm(np.concatenate(tests)), np.cumsum([len(test) for test in tests])[:-1])
            found |= {
                key: Difference(delta, p, p_holm)
                for key, delta, p, p_holm in zip(keys, deltas, tests, corrected, strict=True)
            }
    return found
