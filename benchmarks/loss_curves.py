"""A drawing of held-out losses over seconds of training, and the numbers that it is made of."""

import csv
import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from loss_race import Race, Run
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from hmtl_plugin.files.publishing import write_whole
from hmtl_plugin.probing.results import ProbedEncoder
from hmtl_plugin.reporting.probing.colours import INK, MUTED, PAPER, RULE, LineStyle, line_styles
from hmtl_plugin.reporting.probing.plots import Plot

COLUMNS = ("system", "rate", "updates", "seconds", "loss")
_WIDTH, _HEIGHT = 6.4, 4.4  # inches


def write_curves(race: Race, levels: Mapping[str, float], file: Path) -> None:
    """Write the drawing to ``file`` (SVG), and its numbers beside it as a table with tabs (``.tsv``).

    Args:
        levels: horizontal lines by name, in nats.
    """
    title = "Held-out loss of the masked language model by seconds of training"
    plot = Plot("time_to_loss", "curves", "", title, title, partial(_draw, race, levels, title))
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(file) as part:
        part.write_text(plot.svg(), encoding="utf-8")
    table = io.StringIO()
    writer = csv.writer(table, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in race.runs:
        for seconds, updates, loss in zip(run.seconds, run.updates, run.losses, strict=True):
            writer.writerow((run.system, run.rate, updates, f"{seconds:.2f}", f"{loss:.4f}"))
    with write_whole(file.with_suffix(".tsv")) as part:
        part.write_text(table.getvalue(), encoding="utf-8")


def _draw(race: Race, levels: Mapping[str, float], title: str) -> Figure:
    """A line for each run: the system's best learning rate bold, the others pale."""
    figure = Figure(figsize=(_WIDTH, _HEIGHT), facecolor=PAPER)
    axes = figure.add_axes((0.08, 0.28, 0.89, 0.64))
    names = list(dict.fromkeys(run.system for run in race.runs))
    styles = line_styles([ProbedEncoder(name, "checkpoint", 0) for name in names])
    shown = []
    for name in names:
        best = _best(race, name)
        for run in race.of(name):
            _line(axes, run, styles[name], bold=run is best)
        if best is not None:
            sample = Line2D([], [], color=styles[name].colour, linestyle=styles[name].dashes, linewidth=1.6)
            sample.set_label(f"{name} ({best.rate})")
            shown.append(sample)
    for number, (name, level) in enumerate(levels.items()):
        dashes = ((0, (6, 2, 1, 2)), (0, (1, 1.5)))[number % 2]
        axes.axhline(level, color=MUTED, linewidth=1.0, linestyle=dashes, zorder=1.5)
        shown.append(Line2D([], [], color=MUTED, linewidth=1.0, linestyle=dashes, label=f"{name} ({level:.2f})"))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_title(title, size=9, weight="bold", color=INK, loc="left", pad=6)
    axes.set_xlabel("seconds of training", size=8, color=MUTED)
    axes.set_ylabel("nats a masked piece", size=8, color=MUTED)
    figure.legend(
        handles=shown, fontsize=7.5, frameon=False, labelcolor=INK, loc="lower left", ncols=2, handlelength=3.2
    )
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_facecolor(PAPER)
    axes.tick_params(which="both", labelsize=7.5, colors=MUTED, length=2.5)
    for side, spine in axes.spines.items():
        spine.set(visible=side == "bottom", color=MUTED, linewidth=0.7)
    return figure


def _line(axes: Axes, run: Run, style: LineStyle, bold: bool) -> None:
    first = 1 if run.seconds and not run.seconds[0] else 0  # the axis is logarithmic
    width, alpha = (1.6, 1.0) if bold else (0.8, 0.4)
    (line,) = axes.plot(run.seconds[first:], run.losses[first:], color=style.colour, linestyle=style.dashes)
    line.set(linewidth=width, alpha=alpha)


def _best(race: Race, system: str) -> Run | None:
    """The first to arrive, else the lowest."""
    trained = [run for run in race.of(system) if run.losses]
    return race.first(system) or min(trained, key=lambda run: run.losses[-1], default=None)
