"""Figures of a study: differences with their intervals, and learning curves."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hmtl_plugin.objectives.base import known_objectives
from hmtl_plugin.probing.results import ProbedEncoder
from hmtl_plugin.reporting.probing.colours import INK, MUTED, PAPER, RULE, LineStyle, line_styles
from hmtl_plugin.reporting.probing.labels import MARGIN, plain, text_width
from hmtl_plugin.reporting.study.comparisons import Comparison
from hmtl_plugin.reporting.study.data import BASELINE, PRIMARY, StudyReport

_PANEL, _CURVE_HEIGHT, _LINE = 2.35, 1.35, 0.24
_ACROSS = 4
_GAP, _TITLE = 0.75, 0.32  # inches between rows of panels: ticks, label, the next title; above the first row


def learning_curves(study: StudyReport) -> Figure | None:
    """A panel for each validation value, a line for each variant: mean over seeds, the band from the lowest to the
    highest.
    """
    curves = _mean_curves(study)
    titles = _curve_titles()
    names = [name for name in titles if any(name in curve.mean for curve in curves)]
    if not names:
        return None
    rows, across = -(-len(names) // _ACROSS), min(_ACROSS, len(names))
    legend = _legend_rows([curve.variant for curve in curves], _PANEL * across)
    bottom = 0.25 * len(legend) + 0.42
    figure, axes = _panels(across, rows, _PANEL * across, _CURVE_HEIGHT, bottom)
    styles = line_styles([_encoder(curve.variant) for curve in curves])
    alpha = min(0.16, 0.8 / len(curves))  # many bands on each other stay lighter than the lines
    for panel, name in zip(axes, names):
        for curve in curves:
            if name in curve.mean:
                style, low, high = styles[curve.variant], curve.low[name], curve.high[name]
                panel.fill_between(curve.updates, low, high, color=style.colour, alpha=alpha, linewidth=0)
                (line,) = panel.plot(curve.updates, curve.mean[name], color=style.colour, linestyle=style.dashes)
                line.set(marker=style.marker, markersize=2.6, linewidth=1.3)
        panel.set_title(titles[name], size=8.5, weight="bold", color=INK, loc="left", pad=4)
        panel.set_xlabel("updates", size=7, color=MUTED, labelpad=2)
        _bare(panel, "y")
    for panel in axes[len(names) :]:
        panel.set_visible(False)
    _legend(figure, legend, styles)
    return figure


def differences(study: StudyReport, comparisons: Sequence[Comparison]) -> Figure | None:
    """A panel for each primary measure, a row for each variant: mean difference, its interval (thick) and the corrected
    one (thin).
    """
    shown = [c for c in comparisons if c.family == PRIMARY and c.against == BASELINE and not math.isnan(c.low)]
    measures = [m for m in study.measures if any(c.measure == m.name for c in shown)]
    variants = [row.name for row in study.rows if any(c.variant == row.name for c in shown)]
    if not shown:
        return None
    left = max(text_width(name, 8) for name in variants) + 0.2
    across = min(_ACROSS, len(measures))
    rows = -(-len(measures) // across)
    width = left + 1.75 * across
    figure, axes = _panels(across, rows, width, _LINE * len(variants), bottom=0.3, left=left)
    for number, (panel, measure) in enumerate(zip(axes, measures)):
        panel.axvline(0.0, color=MUTED, linewidth=0.9, zorder=1)
        for place, variant in enumerate(variants):
            for c in (c for c in shown if c.variant == variant and c.measure == measure.name):
                colour = INK if c.excludes_zero else MUTED
                panel.plot([c.low_all, c.high_all], [place, place], color=colour, linewidth=0.7, zorder=2)
                panel.plot(
                    [c.low, c.high], [place, place], color=colour, linewidth=2.2, zorder=2, solid_capstyle="butt"
                )
                panel.plot([c.mean], [place], "o", color=colour, markersize=4.5, zorder=3)
        sign = "" if measure.higher_is_better else ", lower is better"
        panel.set_title(f"{measure.title}{sign}", size=8, weight="bold", color=INK, loc="left", pad=4)
        panel.set_ylim(len(variants) - 0.5, -0.5)
        panel.set_yticks(range(len(variants)), [plain(v) for v in variants] if number % across == 0 else [])
        _bare(panel, "x")
        panel.tick_params(axis="y", labelsize=8, colors=INK, length=0)
    for panel in axes[len(measures) :]:
        panel.set_visible(False)
    return figure


DIFFERENCES_TEXT = (
    f"Each variant less {BASELINE}, paired by seed: mean (dot), 95 % interval (thick), the interval corrected for the number of "
    "comparisons (thin). Dark where the 95 % interval excludes zero."
)
CURVES_TEXT = "On the validation split while training: mean over seeds, bands from the lowest seed to the highest."


@dataclass(frozen=True)
class _MeanCurve:
    variant: str
    updates: list[float]
    mean: dict[str, list[float]]
    low: dict[str, list[float]]
    high: dict[str, list[float]]


def _curve_titles() -> dict[str, str]:
    """Of what is drawn, losses first: as objectives say; of one that says nothing its loss."""
    found: dict[str, str] = {}
    for name, kind in known_objectives().items():
        unit = "squared error" if kind.numbers else "nats"
        found |= kind.curves or {f"{name}_loss": f"{kind.titles.get(name, name)} loss ({unit})"}
    return dict(sorted(found.items(), key=lambda item: not item[0].endswith("_loss")))


def _mean_curves(study: StudyReport) -> list[_MeanCurve]:
    found, titles = [], _curve_titles()
    for row in study.rows:
        curves = list(study.curves.get(row.name, {}).values())
        whole = [c for c in curves if c["updates"] == curves[0]["updates"]]
        if whole:
            names = [name for name in whole[0] if name in titles]
            values = {name: np.array([c[name] for c in whole]) for name in names}
            found.append(
                _MeanCurve(
                    row.name,
                    whole[0]["updates"],
                    {name: v.mean(0).tolist() for name, v in values.items()},
                    {name: v.min(0).tolist() for name, v in values.items()},
                    {name: v.max(0).tolist() for name, v in values.items()},
                )
            )
    return found


def _encoder(name: str) -> ProbedEncoder:
    return ProbedEncoder(name, "checkpoint", 0)


def _panels(
    across: int, rows: int, width: float, panel: float, bottom: float, left: float = 0.45
) -> tuple[Figure, list[Axes]]:
    """Rows of panels ``panel`` inches high, so far from each other that their texts fit, however high they are."""
    height = _TITLE + panel * rows + _GAP * (rows - 1) + bottom
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    axes = figure.subplots(rows, across, squeeze=False)
    figure.subplots_adjust(
        left=left / width,
        right=1 - 0.12 / width,
        top=1 - _TITLE / height,
        bottom=bottom / height,
        wspace=0.32,
        hspace=_GAP / panel,
    )
    return figure, list(axes.flat)


def _bare(panel: Axes, grid: str) -> None:
    panel.set_facecolor(PAPER)
    panel.grid(axis="y" if grid == "y" else "x", color=RULE, linewidth=0.6)
    panel.set_axisbelow(True)
    panel.locator_params(axis="x", nbins=4)
    panel.tick_params(labelsize=7, colors=MUTED, length=2, pad=2)
    for side, spine in panel.spines.items():
        spine.set(visible=side == "bottom", color=MUTED, linewidth=0.7)


def _legend_rows(names: Sequence[str], width: float) -> list[list[str]]:
    rows: list[list[str]] = [[]]
    used = 0.0
    for name in names:
        step = text_width(name, 7.5) + 0.75
        if rows[-1] and used + step > width - 2 * MARGIN:
            rows.append([])
            used = 0.0
        rows[-1].append(name)
        used += step
    return rows


def _legend(figure: Figure, rows: Sequence[Sequence[str]], styles: Mapping[str, LineStyle]) -> None:
    width, height = figure.get_size_inches().tolist()
    for number, row in enumerate(reversed(rows)):
        x, y = MARGIN, 0.1 + 0.25 * number
        for name in row:
            style = styles[name]
            line = Line2D([x / width, (x + 0.4) / width], [(y + 0.04) / height] * 2, color=style.colour)
            line.set(linestyle=style.dashes, marker=style.marker, markersize=3, transform=figure.transFigure)
            figure.add_artist(line)
            figure.text((x + 0.5) / width, y / height, plain(name), size=7.5, color=INK)
            x += text_width(name, 7.5) + 0.75
