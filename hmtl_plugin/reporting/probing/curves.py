"""Layer curves as small multiples: a panel a task, a line an encoder."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator

from hmtl_plugin.probing.results import FloatArray, ProbedEncoder, ProbedTask, ProbingResults
from hmtl_plugin.reporting.probing.colours import INK, MUTED, PAPER, RULE, LineStyle, line_styles
from hmtl_plugin.reporting.probing.heatmaps import DAGGER
from hmtl_plugin.reporting.probing.labels import MARGIN, distinct, plain, shorten, text_width

_COLUMNS = 4
_NOTE, _TICK = 7.5, 7.0  # points
_LEGEND_LINE = 0.21
_SAMPLE, _NAME = 0.42, 3.2  # inches in the legend: a line, the longest name
_BASELINES = {"majority": (0, (1, 1.5)), "bag of words": (0, (6, 2, 1, 2))}


@dataclass(frozen=True)
class Line:
    """One encoder in one panel: y by layer, perhaps an interval, perhaps a layer to stand out."""

    y: FloatArray
    low: FloatArray | None = None
    high: FloatArray | None = None
    best: int | None = None


def accuracy_curves(study: ProbingResults, pooling: str) -> Figure:
    """Accuracies with 95 % intervals; majority and bag of words as horizontal lines, the best layer ringed."""
    lines = {
        (encoder, task): Line(probed.accuracy, probed.low, probed.high, probed.best)
        for (encoder, task, pooled), probed in study.probed.items()
        if pooled == pooling
    }
    levels = [
        {"majority": task.majority, **({} if task.bag_of_words is None else {"bag of words": task.bag_of_words})}
        for task in study.tasks
    ]
    return _small_multiples(study, f"Accuracy by layer, {pooling} pooling", "accuracy (%)", lines, levels)


def selectivity_curves(study: ProbingResults, pooling: str) -> Figure:
    """Accuracy less that on the control task: what a probe owes to the representation rather than to its own memory."""
    lines = {
        (encoder, task): Line(probed.accuracy - probed.control, best=probed.best)
        for (encoder, task, pooled), probed in study.probed.items()
        if pooled == pooling and probed.control is not None
    }
    title = f"Selectivity by layer, {pooling} pooling"
    return _small_multiples(study, title, "accuracy less control accuracy (points)", lines, [{} for _ in study.tasks])


def _small_multiples(
    study: ProbingResults, title: str, unit: str, lines: dict[tuple[str, str], Line], levels: Sequence[dict[str, float]]
) -> Figure:
    across = _across(len(study.tasks))
    down = max(-(-len(study.tasks) // across), 1)
    panel_width, panel_height = (2.0, 1.45) if across > 2 else (3.2, 2.2)
    left, gap_x, gap_y = 0.42, 0.42, 0.56
    width = max(MARGIN + left + across * panel_width + (across - 1) * gap_x + MARGIN, 5.4)
    shown = [name for name in _BASELINES if any(name in level for level in levels)]
    legend = _legend(study, shown, width - 2 * MARGIN)
    below = MARGIN + _LEGEND_LINE * len(legend) + 0.42
    height = below + down * panel_height + (down - 1) * gap_y + 0.82
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    depth = _common_depth(study.encoders)
    axis = "layer" if depth else "share of the depth (%)"
    _titles(figure, title, f"{unit} on te; x: {axis}")
    for number, task in enumerate(study.tasks):
        row, column = divmod(number, across)
        x = MARGIN + left + column * (panel_width + gap_x)
        y = below + (down - 1 - row) * (panel_height + gap_y)
        axes = figure.add_axes((x / width, y / height, panel_width / width, panel_height / height))
        _panel(axes, study, number, lines, levels[number], depth)
        _heading(axes, task, panel_width)
    _draw_legend(figure, legend)
    return figure


def _across(tasks: int) -> int:
    """Panels in a row: 4, or fewer where that leaves fewer places empty."""
    if tasks <= _COLUMNS:
        return max(tasks, 1)
    return min((_COLUMNS, _COLUMNS - 1), key=lambda across: -tasks % across)


def _titles(figure: Figure, title: str, subtitle: str) -> None:
    width, height = figure.get_size_inches().tolist()
    figure.text(MARGIN / width, 1 - 0.26 / height, plain(title), size=10, weight="bold", color=INK)
    figure.text(MARGIN / width, 1 - 0.44 / height, subtitle, size=_NOTE, color=MUTED)


def _heading(axes: Axes, task: ProbedTask, width: float) -> None:
    mark = DAGGER if task.in_distribution else ""
    title = shorten(task.title, width - text_width(mark, 8.5, bold=True), 8.5, bold=True)
    axes.set_title(title + mark, size=8.5, weight="bold", color=INK, loc="left", pad=5)


def _panel(
    axes: Axes,
    study: ProbingResults,
    number: int,
    lines: dict[tuple[str, str], Line],
    levels: dict[str, float],
    depth: int | None,
) -> None:
    styles = line_styles(study.encoders)
    for index, encoder in enumerate(study.encoders):
        line = lines.get((encoder.name, study.tasks[number].name))
        if line is not None:
            x = np.arange(len(line.y), dtype=np.float64) * (1.0 if depth else 100.0 / encoder.layers)
            _draw_line(axes, x, line, styles[encoder.name], f"line-{number}-{index}")
    for name, level in levels.items():
        axes.axhline(level, color=MUTED, linewidth=1.0, linestyle=_BASELINES[name], zorder=1.5)
    if not levels:
        axes.axhline(0.0, color=MUTED, linewidth=0.8, zorder=1.5)
    _ticks(axes, depth)


def _draw_line(axes: Axes, x: FloatArray, line: Line, style: LineStyle, name: str) -> None:
    if line.low is not None and line.high is not None:
        axes.fill_between(x, line.low, line.high, color=style.colour, alpha=0.16, linewidth=0, zorder=1.8)
    (drawn,) = axes.plot(
        x, line.y, color=style.colour, linestyle=style.dashes, marker=style.marker, linewidth=1.3, markersize=_marker(x)
    )
    drawn.set(gid=name, markevery=math.ceil(len(x) / 14))  # more would hide the dashes
    if line.best is not None:
        ring = axes.plot(x[line.best], line.y[line.best], "o", markersize=_marker(x) + 4.5, fillstyle="none")[0]
        ring.set(color=style.colour, markeredgewidth=1.0, gid=f"best-{name}")


def _marker(x: FloatArray) -> float:
    return 3.2 if len(x) <= 14 else 2.2


def _ticks(axes: Axes, depth: int | None) -> None:
    last = depth or 100
    axes.set_xlim(-0.05 * last, 1.05 * last)
    step = max(1, math.ceil(last / 6))
    ticks = list(range(0, last + 1, step)) if depth else [0, 25, 50, 75, 100]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.set_xticklabels(["emb" if tick == 0 else str(tick) for tick in ticks])
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))
    axes.margins(y=0.08)
    axes.set_facecolor(PAPER)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=_TICK, colors=MUTED, length=2.5, width=0.7, pad=2.5)
    for side, spine in axes.spines.items():
        spine.set(visible=side == "bottom", color=MUTED, linewidth=0.7)
    axes.tick_params(axis="y", length=0)


def _common_depth(encoders: Sequence[ProbedEncoder]) -> int | None:
    depths = {encoder.layers for encoder in encoders}
    return depths.pop() if len(depths) == 1 else None


_Entry = tuple[Line2D | None, str, float]


def _legend(study: ProbingResults, baselines: Sequence[str], room: float) -> list[list[_Entry]]:
    """Samples with their texts and widths, on as many lines as they need."""
    styles, names = line_styles(study.encoders), distinct((e.name for e in study.encoders), _NAME, _NOTE)
    own = {name for task in study.tasks for name in task.in_distribution}
    samples: list[tuple[Line2D | None, str]] = []
    for encoder in study.encoders:
        style = styles[encoder.name]
        sample = Line2D([], [], color=style.colour, linestyle=style.dashes, marker=style.marker)
        sample.set(markersize=3.6, linewidth=1.3)
        samples.append((sample, names[encoder.name] + (DAGGER if encoder.name in own else "")))
    for name in baselines:
        samples.append((Line2D([], [], color=MUTED, linestyle=_BASELINES[name], linewidth=1.0), name))
    ring = Line2D([], [], color=MUTED, marker="o", linestyle="none", fillstyle="none", markersize=7.5)
    samples.append((ring, "best layer on va"))
    if own:
        samples.append((None, f"{DAGGER} own objective of pre-training"))
    rows: list[list[_Entry]] = [[]]
    for line, text in samples:
        width = (_SAMPLE if line else 0.0) + text_width(text, _NOTE) + 0.24
        if rows[-1] and sum(entry[2] for entry in rows[-1]) + width > room:
            rows.append([])
        rows[-1].append((line, text, width))
    return rows


def _draw_legend(figure: Figure, rows: Sequence[Sequence[_Entry]]) -> None:
    width, height = figure.get_size_inches().tolist()
    for number, row in enumerate(reversed(rows)):
        x, y = MARGIN, MARGIN + 0.04 + _LEGEND_LINE * number
        for line, text, step in row:
            start = x + (_SAMPLE if line else 0.0)
            figure.text(start / width, y / height, text, size=_NOTE, color=INK if line else MUTED)
            if line is not None:
                places = [x, x + 0.17, x + 0.34] if line.get_linestyle() != "None" else [x + 0.17]
                line.set_data([place / width for place in places], [(y + 0.05) / height] * len(places))
                line.set(transform=figure.transFigure, markevery=[len(places) // 2])
                figure.add_artist(line)
            x += step
