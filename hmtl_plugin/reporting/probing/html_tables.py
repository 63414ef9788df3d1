"""What the tables of the HTML report say, as text."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from hmtl_plugin.probing.results import Probed, ProbedEncoder, ProbedTask, ProbingResults
from hmtl_plugin.reporting.probing.heatmaps import DAGGER, number, signed


class Verdict(NamedTuple):
    """What an interval lies above: a mark and its meaning."""

    mark: str
    meaning: str


UNTRAINED = Verdict("▲", "above the majority and the untrained encoder")
MAJORITY = Verdict("△", "above the majority")
NEITHER = Verdict("○", "not above the majority")


class Entry(NamedTuple):
    """A cell: the number, what else is to know of it, and whether it is beyond a baseline."""

    main: str
    note: str = ""
    verdict: Verdict | None = None
    own: bool = False


class Row(NamedTuple):
    """A task, texts before the encoders' cells, and a cell an encoder (None: not probed)."""

    title: str
    before: tuple[str, ...]
    cells: tuple[Entry | None, ...]


class LayerRow(NamedTuple):
    """One layer of the table of full numbers."""

    layer: str
    texts: tuple[str, ...]
    best: bool


class Block(NamedTuple):
    """All layers of one encoder on one task."""

    encoder: ProbedEncoder
    title: str
    rows: tuple[LayerRow, ...]


_EntryOf = Callable[[Probed | None, bool], Entry | None]


def task_title(task: ProbedTask) -> str:
    """With a dagger if some encoder was pre-trained on it."""
    return task.title + (DAGGER if task.in_distribution else "")


def summary(study: ProbingResults, pooling: str) -> list[Row]:
    """The best layer (on va) of each encoder and task: accuracy on te, interval, layer, verdict."""
    return [
        Row(
            task_title(task),
            (number(task.majority), number(task.bag_of_words)),
            tuple(_summary_entry(study, encoder, task, pooling) for encoder in study.encoders),
        )
        for task in study.tasks
    ]


def averages(study: ProbingResults, pooling: str) -> tuple[int, tuple[str, ...]]:
    """Means at the best layers: over how many tasks, those that all encoders with this pooling have and none was
    pre-trained on; of each encoder.
    """
    pooled = [
        e.name for e in study.encoders if any((e.name, task.name, pooling) in study.probed for task in study.tasks)
    ]
    keys = [[(name, task.name, pooling) for name in pooled] for task in study.tasks if not task.in_distribution]
    whole = [row for row in keys if all(key in study.probed and _known(study.probed[key]) for key in row)]
    if not whole or not pooled:
        return 0, ()
    best = np.mean([[_at_best(study.probed[key]) for key in row] for row in whole], axis=0)
    means = {name: number(mean) for name, mean in zip(pooled, best.tolist(), strict=True)}
    return len(whole), tuple(means.get(encoder.name, "–") for encoder in study.encoders)


def centres(study: ProbingResults, pooling: str) -> list[Row]:
    """Centres of gravity with their intervals."""

    def entry(probed: Probed | None, own: bool) -> Entry | None:
        if probed is None:
            return None
        if probed.centre is None:
            return Entry("–", own=own)
        note = _interval(probed.centre_low, probed.centre_high, 2)
        return Entry(f"{probed.centre:.2f}", note, own=own)

    return [_row(study, task, pooling, entry) for task in study.tasks]


def selectivities(study: ProbingResults, pooling: str) -> list[Row]:
    """Selectivity at the best layer, and what it is made of."""

    def entry(probed: Probed | None, own: bool) -> Entry | None:
        if probed is None or probed.control is None or not _known(probed):
            return None
        accuracy, control = _at_best(probed), float(probed.control[probed.best])
        return Entry(
            signed(accuracy - control), f"{number(accuracy)} − {number(control)}, {_layer(probed.best)}", own=own
        )

    return [_row(study, task, pooling, entry) for task in study.tasks]


def has_control(study: ProbingResults) -> bool:
    """Whether any control task was run."""
    return any(probed.control is not None for probed in study.probed.values())


def columns(study: ProbingResults) -> tuple[str, ...]:
    """Heads of the full numbers, in the order of their texts."""
    control = ("control",) if has_control(study) else ()
    difference = ("difference", "p", "p (Holm)") if study.differences else ()
    return ("accuracy", "low", "high", "sd", "va", *control, *difference, "chosen on va")


def full_numbers(study: ProbingResults, pooling: str) -> Iterator[Block]:
    """Every number of a pooling."""
    for encoder in study.encoders:
        for task in study.tasks:
            probed = study.probed.get((encoder.name, task.name, pooling))
            if probed is not None:
                rows = tuple(_layer_rows(study, probed, (encoder.name, task.name, pooling)))
                mark = DAGGER if encoder.name in task.in_distribution else ""
                yield Block(encoder, task.title + mark, rows)


def _layer_rows(study: ProbingResults, probed: Probed, key: tuple[str, str, str]) -> Iterator[LayerRow]:
    difference = study.differences.get(key)
    for layer in range(len(probed.accuracy)):
        texts = [number(float(array[layer])) for array in (probed.accuracy, probed.low, probed.high)]
        texts += [_decimals(float(probed.sd[layer]), 2), number(float(probed.valid[layer]))]
        if has_control(study):
            texts.append("–" if probed.control is None else number(float(probed.control[layer])))
        if study.differences:
            if difference is not None and layer < len(difference.delta):
                texts.append(signed(float(difference.delta[layer])))
                texts += [_p(float(difference.p[layer])), _p(float(difference.p_holm[layer]))]
            else:
                texts += ["–"] * 3
        texts.append(probed.hyper[layer] if layer < len(probed.hyper) else "–")
        yield LayerRow(str(layer) if layer else "emb", tuple(texts), layer == probed.best)


def _row(study: ProbingResults, task: ProbedTask, pooling: str, entry: _EntryOf) -> Row:
    cells = tuple(
        entry(study.probed.get((encoder.name, task.name, pooling)), encoder.name in task.in_distribution)
        for encoder in study.encoders
    )
    return Row(task_title(task), (), cells)


def _summary_entry(study: ProbingResults, encoder: ProbedEncoder, task: ProbedTask, pooling: str) -> Entry | None:
    probed = study.probed.get((encoder.name, task.name, pooling))
    if probed is None or not _known(probed):
        return None
    low, high = float(probed.low[probed.best]), float(probed.high[probed.best])
    verdict = MAJORITY if low > task.majority else NEITHER
    rivals = [
        study.probed[rival.name, task.name, pooling]
        for rival in _untrained(study.encoders, encoder)
        if (rival.name, task.name, pooling) in study.probed
    ]
    if verdict is MAJORITY and rivals and all(low > float(rival.high[rival.best]) for rival in rivals):
        verdict = UNTRAINED
    note = f"{_interval(low, high, 1)}, {_layer(probed.best)}"
    return Entry(number(_at_best(probed)), note, verdict, encoder.name in task.in_distribution)


def _untrained(encoders: Sequence[ProbedEncoder], encoder: ProbedEncoder) -> list[ProbedEncoder]:
    """The untrained encoders of the same depth, or all if there is none; an untrained encoder has no such rival."""
    if encoder.kind == "untrained":
        return []
    rivals = [other for other in encoders if other.kind == "untrained"]
    return [other for other in rivals if other.layers == encoder.layers] or rivals


def _at_best(probed: Probed) -> float:
    return float(probed.accuracy[probed.best])


def _known(probed: Probed) -> bool:
    return 0 <= probed.best < len(probed.accuracy) and not math.isnan(_at_best(probed))


def _layer(layer: int) -> str:
    return f"layer {layer}" if layer else "embeddings"


def _decimals(value: float, places: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{places}f}"


def _interval(low: float | None, high: float | None, places: int) -> str:
    if low is None or high is None:
        return ""
    return f"{_decimals(low, places)} to {_decimals(high, places)}"


def _p(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
