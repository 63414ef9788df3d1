"""All probes of encoders on tasks, each done once: results are lines of a store, and what stands there is not computed
again.
"""

import base64
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hmtl_plugin.probing.baselines import bag_of_words, majority
from hmtl_plugin.probing.control import MAX_CLASSES, control_labels
from hmtl_plugin.probing.encoders import LayerEncoder
from hmtl_plugin.probing.features import (
    LayerFeatures,
    drop_features,
    layer_features,
    release_free_memory,
    sentences_cut,
)
from hmtl_plugin.probing.probes import LayerResult, ProbeOptions, probe_layers
from hmtl_plugin.probing.tasks import SPLITS, ProbingTask
from hmtl_plugin.results import append_results, read_results

Line = dict[str, Any]
_VERSION = 1  # of what a result means; another makes old results count no more
BASELINES = ("majority", "bag of words")


@dataclass(frozen=True)
class Settings:
    """How everything is probed.

    Attributes:
        seeds: of MLPs, control labels and (through their encoders) untrained weights; logistic regression has none.
        controls: run control tasks. bag_of_words: run that baseline.
        cache: folder of features; scratch: of those that no other run can use. keep_features: leave them in the cache.
    """

    store: Path
    cache: Path
    scratch: Path
    options: ProbeOptions
    seeds: tuple[int, ...] = (1,)
    controls: bool = True
    bag_of_words: bool = True
    keep_features: bool = True
    device: str = "cpu"


class Unit(NamedTuple):
    """One probe of all layers: the least that is done and kept at a time."""

    key: str
    pooling: str
    role: str  # "probe" or "control"
    seed: int


def run_all(
    encoders: Sequence[tuple[LayerEncoder, int]], tasks: Sequence[ProbingTask], settings: Settings
) -> list[Line]:
    """Probe every encoder on every task; returns the lines of what was asked for, old and new.

    Args:
        encoders: each with its seed: that of its weights if it is untrained, else 0.
    """
    store = _Store(settings.store)
    lines = [line for task in tasks for line in _baselines(task, settings, store)]
    total, number = len(encoders) * len(tasks), 0
    for encoder, weights_seed in encoders:
        for task in tasks:
            number += 1
            found, seconds = _probe(encoder, weights_seed, task, settings, store)
            lines += found
            if seconds:
                _say(f"[{number}/{total}] {_summary(encoder, task, found)}, {seconds:.0f} s")
    return lines


def _probe(
    encoder: LayerEncoder, weights_seed: int, task: ProbingTask, settings: Settings, store: "_Store"
) -> tuple[list[Line], float]:
    """Lines of one encoder on one task, and the seconds that new ones took (0: all were there)."""
    started, fresh, lines, cut = time.perf_counter(), False, [], 0
    cache = settings.cache if encoder.keep else settings.scratch
    features: LayerFeatures | None = None
    for unit in _units(encoder, weights_seed, task, settings):
        known = store.find(unit.key)
        if known is None:
            if features is None:
                features = layer_features(encoder, task, cache)
                cut = sentences_cut(encoder, task, cache)
            known = [{**line, "cut": cut} for line in _run_unit(encoder, task, unit, features[unit.pooling], settings)]
            store.add(unit.key, known)
            release_free_memory()
            fresh = True
        lines += [_renamed(line, encoder) for line in known]
    if not (settings.keep_features and encoder.keep):
        drop_features(encoder, task, cache)
    return lines, time.perf_counter() - started if fresh else 0.0


def _units(encoder: LayerEncoder, weights_seed: int, task: ProbingTask, settings: Settings) -> Iterator[Unit]:
    """What is to be done. Where no seed matters it is 0; an untrained encoder has its own."""
    probe = settings.options.record(task.known.linear_only)
    controls = settings.controls and len(task.labels) <= MAX_CLASSES
    for pooling in encoder.poolings:
        for role in ("probe", "control") if controls else ("probe",):
            seeds = settings.seeds if probe["probe"] != "logistic" or role == "control" else (0,)
            for seed in (weights_seed,) if weights_seed else seeds:
                parts = [_VERSION, encoder.about.fingerprint, task.name, task.sha256, pooling, role, probe, seed]
                yield Unit(_key(parts), pooling, role, seed)


def _run_unit(
    encoder: LayerEncoder, task: ProbingTask, unit: Unit, features_NLH: npt.NDArray[np.float32], settings: Settings
) -> list[Line]:
    started = time.perf_counter()
    labels_N = task.label_N if unit.role == "probe" else control_labels(task, unit.seed)
    linear_only = task.known.linear_only
    results = probe_layers(
        [features_NLH[task.rows(split)] for split in SPLITS],
        [labels_N[task.rows(split)] for split in SPLITS],
        len(task.labels),
        settings.options,
        linear_only,
        unit.seed,
        settings.device,
    )
    about = encoder.about
    shared = {
        **_common(task, unit.key, unit.role),
        "run": about.run,
        "checkpoint": about.source,
        "checkpoint_sha256": about.checkpoint_sha256,
        "variant": about.name,
        "encoder": about.kind,
        "fingerprint": about.fingerprint,
        "hierarchy": about.hierarchy,
        "transfer": about.transfer,
        "placements": [list(placement) for placement in about.placements],
        "mixes": about.mixes,
        "seed": unit.seed,
        "layers": len(results) - 1,
        "pooling": unit.pooling,
        "seconds": round(time.perf_counter() - started, 2),
    }
    base = 100 * float(majority(task, labels_N).mean())
    probe = settings.options.of_task(linear_only)
    return [{**shared, **_layer(layer, result, base, probe)} for layer, result in enumerate(results)]


def _layer(layer: int, result: LayerResult, base: float, probe: str) -> Line:
    metrics = {
        "accuracy": 100 * float(result.right_N.mean()),
        "valid_accuracy": 100 * result.valid,
        "majority": base,
    }
    return {
        "layer": layer,
        "metrics": metrics,
        "hyper": {"probe": probe, **result.hyper},
        "items": pack(result.right_N),
    }


def _baselines(task: ProbingTask, settings: Settings, store: "_Store") -> list[Line]:
    lines = []
    functions = dict(zip(BASELINES, (majority, bag_of_words), strict=True))
    for name in BASELINES if settings.bag_of_words else BASELINES[:1]:
        key = _key([_VERSION, name, task.name, task.sha256])
        known = store.find(key)
        if known is None:
            started = time.perf_counter()
            right_N = functions[name](task)
            known = [
                {
                    **_common(task, key, "baseline"),
                    "variant": name,
                    "seed": 0,
                    "layer": None,
                    "layers": 0,
                    "pooling": None,
                    "metrics": {"accuracy": 100 * float(right_N.mean())},
                    "hyper": {},
                    "items": pack(right_N),
                    "seconds": round(time.perf_counter() - started, 2),
                }
            ]
            store.add(key, known)
        lines += known
    return lines


def _common(task: ProbingTask, key: str, role: str) -> Line:
    data = {"file": task.path.name, "sha256": task.sha256, "rows": list(task.sizes), "classes": len(task.labels)}
    return {"kind": "probe", "unit": key, "role": role, "task": task.name, "split": "te", "data": data}


def _renamed(line: Line, encoder: LayerEncoder) -> Line:
    """An old result under the name and place that its encoder has now."""
    about = encoder.about
    return {**line, "variant": about.name, "run": about.run, "checkpoint": about.source}


def pack(right_N: npt.NDArray[np.bool_]) -> str:
    """Which test rows are right, as base64 of bits."""
    return base64.b64encode(np.packbits(right_N).tobytes()).decode()


def unpack(items: str, count: int) -> npt.NDArray[np.bool_]:
    """The inverse of `pack`."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(items), dtype=np.uint8), count=count)
    return bits.astype(bool)


class _Store:
    """Whole units of a results file, by key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.units: dict[str, dict[Any, Line]] = {}
        for line in read_results(path):
            if line.get("kind") == "probe" and {"unit", "layer", "layers", "role", "metrics"} <= line.keys():
                self.units.setdefault(line["unit"], {})[line["layer"]] = line

    def find(self, key: str) -> list[Line] | None:
        """The unit's lines; None if it was never finished."""
        lines = self.units.get(key, {})
        if not lines or len(lines) < next(iter(lines.values()))["layers"] + 1:
            return None
        return list(lines.values())

    def add(self, key: str, lines: list[Line]) -> None:
        """Keep a finished unit."""
        append_results(self.path, lines)
        self.units[key] = {line["layer"]: line for line in lines}


def _key(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _summary(encoder: LayerEncoder, task: ProbingTask, lines: list[Line]) -> str:
    scored = [line for line in lines if line["role"] == "probe"]
    best = max(scored, key=lambda line: line["metrics"]["valid_accuracy"])
    return (
        f"{encoder.about.name}: {task.name}: best on va {best['pooling']}, layer {best['layer']}, "
        f"{best['metrics']['accuracy']:.1f} on te"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
