"""Heat maps of accuracies, and maps of differences to the baseline encoder."""

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from hmtl_plugin.probing.results import ProbedEncoder, ProbedTask, ProbingResults
from hmtl_plugin.reporting.probing.colours import delta_colour, delta_limit, share_colour
from hmtl_plugin.reporting.probing.hierarchy_strip import hierarchy_strip
from hmtl_plugin.reporting.probing.labels import plain
from hmtl_plugin.reporting.probing.layer_maps import Cell, LayerMap, Scale, draw_layer_map

DAGGER = "†"
_STEPS = 9


def accuracy_map(study: ProbingResults, encoder: ProbedEncoder, pooling: str) -> Figure:
    """Layers x tasks: number is the accuracy, colour the share of the way from the majority to 100 %."""
    columns = [_accuracy_column(study, encoder, task, pooling) for task in study.tasks]
    footer = [("majority", [number(task.majority) for task in study.tasks])]
    if any(task.bag_of_words is not None for task in study.tasks):
        footer.append(("words", [number(task.bag_of_words) for task in study.tasks]))
    own = [(Cell("", share_colour(0.45), hatched=True), f"{DAGGER} own objective of pre-training")]
    return draw_layer_map(
        LayerMap(
            names=(encoder.name,),
            subtitle=f"accuracy (%), {pooling} pooling{_trained(encoder)}",
            columns=headings(study.tasks, encoder),
            rows=list(zip(*columns)),
            strip=hierarchy_strip(encoder),
            strip_width=_strip_width(study),
            scale=Scale(
                tuple(share_colour(step / (_STEPS - 1)) for step in range(_STEPS)),
                ("colour: majority", "100 %"),
            ),
            footer=footer,
            marks=[
                (Cell("", share_colour(0.45), framed=True), "best layer on va"),
                *(own if any(encoder.name in task.in_distribution for task in study.tasks) else []),
            ],
        )
    )


def difference_map(study: ProbingResults, encoder: ProbedEncoder, pooling: str) -> Figure:
    """Layers that the encoder and the baseline both have x tasks: percentage points, starred where significant."""
    limit = delta_limit(study)
    baseline = next(e for e in study.encoders if e.name == study.baseline)
    layers = min(encoder.layers, baseline.layers) + 1
    columns = [_difference_column(study, encoder, task, pooling, layers, limit) for task in study.tasks]
    own = [(Cell("", delta_colour(0, limit), hatched=True), f"{DAGGER} own objective of pre-training")]
    return draw_layer_map(
        LayerMap(
            names=(encoder.name, baseline.name),
            subtitle=f"difference of accuracies (points), {pooling} pooling{_trained(encoder)}",
            columns=headings(study.tasks, encoder),
            rows=list(zip(*columns)),
            strip=hierarchy_strip(encoder),
            strip_width=_strip_width(study),
            scale=Scale(
                tuple(delta_colour(limit * (2 * step / (_STEPS - 1) - 1), limit) for step in range(_STEPS)),
                (f"colour: −{limit:.0f}", f"+{limit:.0f} points"),
            ),
            marks=[
                (Cell("*", delta_colour(limit / 3, limit), bold=True), "p < 0.05 after Holm's correction"),
                *(own if any(encoder.name in task.in_distribution for task in study.tasks) else []),
            ],
        )
    )


def headings(tasks: Sequence[ProbedTask], encoder: ProbedEncoder) -> tuple[str, ...]:
    """Titles of tasks, with a dagger where the encoder was pre-trained on the task."""
    return tuple(plain(task.title) + (DAGGER if encoder.name in task.in_distribution else "") for task in tasks)


def number(value: float | None) -> str:
    """One decimal; a dash for what is not known."""
    return "–" if value is None or math.isnan(value) else f"{value:.1f}"


def signed(value: float) -> str:
    """One decimal with a sign; a difference that rounds to 0 has none."""
    text = f"{value:+.1f}".replace("-", "−")
    return "0.0" if text[1:] == "0.0" else text


def _accuracy_column(
    study: ProbingResults, encoder: ProbedEncoder, task: ProbedTask, pooling: str
) -> list[Cell | None]:
    cells: list[Cell | None] = [None] * (encoder.layers + 1)
    probed = study.probed.get((encoder.name, task.name, pooling))
    if probed is None:
        return cells
    room = max(100.0 - task.majority, 1e-9)
    own = encoder.name in task.in_distribution
    for layer, accuracy in enumerate(probed.accuracy.tolist()[: len(cells)]):
        if not math.isnan(accuracy):
            best = layer == probed.best
            colour = share_colour((accuracy - task.majority) / room)
            cells[layer] = Cell(number(accuracy), colour, bold=best, framed=best, hatched=own)
    return cells


def _difference_column(
    study: ProbingResults, encoder: ProbedEncoder, task: ProbedTask, pooling: str, layers: int, limit: float
) -> list[Cell | None]:
    cells: list[Cell | None] = [None] * layers
    difference = study.differences.get((encoder.name, task.name, pooling))
    if difference is None:
        return cells
    own = encoder.name in task.in_distribution
    pairs = zip(difference.delta.tolist(), difference.significant.tolist())
    for layer, (delta, significant) in zip(range(layers), pairs):
        if not math.isnan(delta):
            text = signed(delta) + ("*" if significant else "")
            cells[layer] = Cell(text, delta_colour(delta, limit), bold=significant, hatched=own)
    return cells


def _trained(encoder: ProbedEncoder) -> str:
    if encoder.kind == "untrained":
        return " · weights as initialised"
    return f" · transfer {encoder.transfer}" if encoder.transfer else ""


def _strip_width(study: ProbingResults) -> float:
    return max((hierarchy_strip(encoder).width for encoder in study.encoders), default=0.0)
