"""Studies with invented numbers, of any size."""

from dataclasses import dataclass

import numpy as np

from hmtl_plugin.probing.results import Difference, FloatArray, Probed, ProbedEncoder, ProbedTask, ProbingResults

TITLES = (
    "Sentence length|Word content|Tree depth|Top constituents|Bigram shift|Tense|Subject number|Object number|"
    "Odd man out|Coordination inversion|Semantic roles of arguments|Negation"
).split("|")
_CLASSES = (6, 1000, 7, 20, 2, 2, 2, 2, 2, 2, 5, 2)


@dataclass(frozen=True)
class Shape:
    """What an invented study is like."""

    layers: int = 4
    tasks: int = 10
    poolings: tuple[str, ...] = ("cls", "mean")
    names: tuple[str, ...] = ("runs/books-flat", "runs/books-hierarchy")
    untrained: bool = True
    control: bool = True
    seed: int = 0


def invented(shape: Shape = Shape()) -> ProbingResults:
    """A flat encoder, hierarchies (the last one with bigram shift), and an untrained encoder as baseline."""
    encoders = _encoders(shape)
    draw = np.random.default_rng(shape.seed)
    own = frozenset(e.name for e in encoders if "bigram_shift" in dict(e.placements))
    tasks = tuple(
        ProbedTask(
            title.lower().replace(" ", "_"),
            title,
            (100_000, 10_000, 10_000),
            classes,
            _majority(classes),
            None if classes == 1000 else _majority(classes) + float(draw.uniform(0, 12)),
            own if title == "Bigram shift" else frozenset(),
        )
        for title, classes in list(zip(TITLES, _CLASSES, strict=True))[: shape.tasks]
    )
    probed, differences = {}, {}
    baseline = encoders[-1].name if shape.untrained else encoders[0].name
    for pooling in shape.poolings:
        for task in tasks:
            for encoder in reversed(encoders):
                probed[encoder.name, task.name, pooling] = _probed(draw, encoder, task, shape.control)
            for encoder in encoders:
                if encoder.name != baseline:
                    key = (encoder.name, task.name, pooling)
                    differences[key] = _difference(probed[key], probed[baseline, task.name, pooling])
    return ProbingResults(encoders, tasks, shape.poolings, probed, baseline, differences, SETTINGS)


SETTINGS = {
    "probe": "logistic regression, L-BFGS, to convergence",
    "grid": {"l2": [1e-4, 1e-3, 1e-2], "standardise": True},
    "poolings": ["cls", "mean"],
    "seeds": [1, 2, 3],
    "bootstrap resamples": 2000,
    "versions": {"python": "3.12.1", "torch": "2.9.0", "numpy": "2.2.1"},
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "command": "python scripts/probe.py runs/books-flat runs/books-hierarchy --tasks probing --poolings cls mean --seeds 1,2,3",
}


def _encoders(shape: Shape) -> tuple[ProbedEncoder, ...]:
    top, found = shape.layers, []
    for number, name in enumerate(shape.names):
        placements: tuple[tuple[str, int], ...] = (("nsp", top), ("mlm", top))
        transfer = ""
        if number:
            placements = (("bigram_shift", max(1, top // 2)), ("nsp", max(1, 3 * top // 4)), ("mlm", top))
            transfer = "nsp>mlm:concat" if number == 1 else "bigram_shift>nsp:gate!,nsp>mlm:concat"
        found.append(
            ProbedEncoder(name, "checkpoint", top, placements, transfer, f"{name}/checkpoint_best.pt", "5e" * 32)
        )
    if shape.untrained:
        found.append(ProbedEncoder("untrained", "untrained", top, source="weights as initialised, seed 1"))
    return tuple(found)


def _majority(classes: int) -> float:
    return 50.0 if classes == 2 else 100.0 / classes + 1.3


def _probed(draw: np.random.Generator, encoder: ProbedEncoder, task: ProbedTask, control: bool) -> Probed:
    depth = np.linspace(0, 1, encoder.layers + 1)
    gain = draw.uniform(2, 10) if encoder.kind == "untrained" else draw.uniform(15, 95 - task.majority)
    shape = np.exp(-(((depth - draw.uniform(0.2, 0.9)) / draw.uniform(0.3, 0.7)) ** 2))
    accuracy: FloatArray = np.minimum(task.majority - 1 + gain * shape + draw.normal(0, 0.4, len(depth)), 99.9)
    half = draw.uniform(0.5, 1.4, len(depth))
    centre = float((depth * shape).sum() / shape.sum() * encoder.layers) if gain > 4 else None
    return Probed(
        accuracy=accuracy,
        low=accuracy - half,
        high=accuracy + half,
        sd=draw.uniform(0.05, 0.3, len(depth)),
        valid=accuracy + draw.normal(0, 0.3, len(depth)),
        best=int(accuracy.argmax()),
        centre=centre,
        centre_low=None if centre is None else centre - 0.11,
        centre_high=None if centre is None else centre + 0.12,
        control=task.majority + draw.uniform(0, 4, len(depth)) if control else None,
        hyper=tuple(f"l2 {draw.choice([0.0001, 0.001, 0.01]):g}" for _ in depth),
    )


def _difference(probed: Probed, baseline: Probed) -> Difference:
    shared = min(len(probed.accuracy), len(baseline.accuracy))
    delta = probed.accuracy[:shared] - baseline.accuracy[:shared]
    p = np.exp(-np.abs(delta) * 2)
    return Difference(delta, p, np.minimum(p * 50, 1.0))
