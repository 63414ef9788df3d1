"""Maps of layers x tasks: one cell a layer and task, the hierarchy beside, what needs no encoder below."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path as Curve

from hmtl_plugin.reporting.probing.colours import EMPTY, INK, MUTED, PAPER, RULE, text_colour
from hmtl_plugin.reporting.probing.hierarchy_strip import Strip, draw_strip
from hmtl_plugin.reporting.probing.labels import MARGIN, plain, shorten, text_width, wrap

_GAP = 0.015
_HEADING, _NUMBER, _NOTE = 7.5, 8.0, 7.5  # points
_LINE = 0.135  # inches a line of headings
_FOOTER = 0.19
_HATCH = 0.055
_NARROWEST, _WIDEST = 0.56, 0.86


@dataclass(frozen=True)
class Cell:
    """One layer and task. ``framed``: the best layer; ``hatched``: the encoder's own objective; ``bold``: worth a look."""

    text: str
    colour: str
    bold: bool = False
    framed: bool = False
    hatched: bool = False


@dataclass(frozen=True)
class Scale:
    """The colour bar: colours from left to right, what the first and what the last means."""

    colours: tuple[str, ...]
    labels: tuple[str, str]


@dataclass(frozen=True)
class LayerMap:
    """What is drawn, as data.

    Attributes:
        names: the encoder; in a difference also the one that is taken off.
        columns: titles of tasks.
        rows: cells by layer, then task; None where nothing was measured.
        strip_width: room for the hierarchy, the same in all maps of a study, so that columns align.
        footer: label and one text a task, under the cells.
        marks: sample cell and its meaning.
    """

    names: tuple[str, ...]
    subtitle: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell | None]]
    strip: Strip
    strip_width: float
    scale: Scale
    footer: Sequence[tuple[str, Sequence[str]]] = ()
    marks: Sequence[tuple[Cell, str]] = field(default=())


def draw_layer_map(content: LayerMap) -> Figure:
    """The figure. One pair of axes covers it, in inches, so that everything stands where it was measured to fit."""
    headings = _headings(content.columns)
    column = headings[0]
    labels = max(text_width(label, _NOTE) for label, _ in [("emb", ()), *content.footer]) + 0.16
    left = MARGIN + max(content.strip_width + text_width("emb", _NOTE) + 0.16, labels)
    row = 0.3 if len(content.rows) <= 14 else 0.25
    right = left + column * len(content.columns)
    width = max(right + MARGIN, 5.4)
    legend = _legend_rows(content, width - 2 * MARGIN)
    bottom = MARGIN + 0.24 * len(legend) + 0.12 + 0.14 + _FOOTER * len(content.footer)
    top = bottom + row * len(content.rows)
    title = top + 0.07 + _LINE * headings[1] + 0.13
    height = title + 0.44
    figure = Figure(figsize=(width, height), facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    _draw_titles(axes, content, title, width)
    _draw_headings(axes, headings[2], left, top, column)
    draw_strip(axes, content.strip, left - text_width("emb", _NOTE) - 0.14, bottom, row)
    _draw_cells(axes, content, left, bottom, (column, row))
    _draw_footer(axes, content, left, bottom - 0.08, column)
    for number, items in enumerate(reversed(legend)):
        _draw_legend(axes, content, items, MARGIN + 0.24 * number)
    return figure


def _headings(columns: Sequence[str]) -> tuple[float, int, list[str]]:
    """Width of columns, lines of the tallest heading, headings."""
    words = [word for title in columns for word in title.split()]
    width = max((text_width(word, _HEADING) for word in words), default=0.0) + 0.1
    width = min(max(width, _NARROWEST), _WIDEST)
    wrapped = [wrap(title, width - 0.06, _HEADING) for title in columns]
    return width, max((text.count("\n") + 1 for text in wrapped), default=1), wrapped


def _draw_titles(axes: Axes, content: LayerMap, y: float, width: float) -> None:
    room = width - 2 * MARGIN
    between = " less "
    title = plain(between.join(content.names))
    if text_width(title, 10, bold=True) > room:
        share = room / len(content.names) - text_width(between, 10, bold=True)
        title = between.join(shorten(name, share, 10, bold=True) for name in content.names)
    axes.text(MARGIN, y + 0.2, title, size=10, weight="bold", color=INK)
    axes.text(MARGIN, y + 0.02, shorten(content.subtitle, room, _NOTE), size=_NOTE, color=MUTED)


def _draw_headings(axes: Axes, headings: Sequence[str], left: float, top: float, column: float) -> None:
    for number, heading in enumerate(headings):
        x = left + (number + 0.5) * column
        for line, text in enumerate(reversed(heading.split("\n"))):  # one by one, so that baselines align
            axes.text(x, top + 0.07 + line * _LINE, text, size=_HEADING, color=INK, ha="center")


def _draw_cells(axes: Axes, content: LayerMap, left: float, bottom: float, size: tuple[float, float]) -> None:
    column, row = size
    for layer, cells in enumerate(content.rows):
        y = bottom + layer * row
        name = str(layer) if layer else "emb"
        axes.text(left - 0.08, y + row / 2, name, size=_NOTE, color=INK, ha="right", va="center_baseline")
        for number, cell in enumerate(cells):
            draw_cell(axes, cell, (left + number * column, y), size, f"{layer}-{number}")
    # Frames reach over the gaps between cells: drawn after all of them.
    for layer, cells in enumerate(content.rows):
        for number, cell in enumerate(cells):
            if cell is not None and cell.framed:
                _draw_frame(axes, (left + number * column, bottom + layer * row), size, f"{layer}-{number}")


def draw_cell(axes: Axes, cell: Cell | None, corner: tuple[float, float], size: tuple[float, float], name: str) -> None:
    """One cell without its frame; ``name`` ends the ids of its parts."""
    x, y, width, height = corner[0] + _GAP, corner[1] + _GAP, size[0] - 2 * _GAP, size[1] - 2 * _GAP
    if cell is None:
        axes.add_patch(Rectangle((x, y), width, height, facecolor=EMPTY, edgecolor="none"))
        axes.text(x + width / 2, y + height / 2, "–", size=7, color=MUTED, ha="center", va="center_baseline")
        return
    ink = text_colour(cell.colour)
    axes.add_patch(Rectangle((x, y), width, height, facecolor=cell.colour, edgecolor="none"))
    if cell.hatched:
        hatch = _hatch((x, y), (width, height))
        axes.add_patch(PathPatch(hatch, fill=False, edgecolor=ink, alpha=0.5, linewidth=0.6, gid=f"own-{name}"))
        # Without a plate under it the number would be lost among the lines.
        plate = text_width(cell.text, _NUMBER, cell.bold) + 0.06 if cell.text else 0.0
        middle = (x + (width - plate) / 2, y + height / 2 - 0.075)
        axes.add_patch(Rectangle(middle, plate, 0.15, facecolor=cell.colour, edgecolor="none"))
    text = axes.text(x + width / 2, y + height / 2, cell.text, size=_NUMBER, color=ink, ha="center")
    text.set(va="center_baseline", weight="bold" if cell.bold else "normal", gid=f"cell-{name}")


def _hatch(corner: tuple[float, float], size: tuple[float, float]) -> Curve:
    """Slanting lines in a rectangle; matplotlib's own hatches are pictures in some viewers, and pale."""
    (x, y), (width, height) = corner, size
    ends = []
    for offset in np.arange(_HATCH / 2, width + height, _HATCH).tolist():
        ends.append((x + max(0.0, offset - height), y + height - min(offset, height)))
        ends.append((x + min(offset, width), y + height - max(0.0, offset - width)))
    # From the upper left corner on: each line runs from the left or lower edge to the upper or right one.
    return Curve(ends, [Curve.MOVETO, Curve.LINETO] * (len(ends) // 2))


def _draw_frame(axes: Axes, corner: tuple[float, float], size: tuple[float, float], name: str) -> None:
    """Dark within light, to be seen on every colour."""
    for colour, line, inset in (("#fdfefd", 1.2, 0.036), ("#0b1623", 1.6, 0.016)):
        frame = Rectangle(
            (corner[0] + inset, corner[1] + inset),
            size[0] - 2 * inset,
            size[1] - 2 * inset,
            fill=False,
            edgecolor=colour,
            linewidth=line,
            joinstyle="miter",
        )
        frame.set_gid(f"best-{name}" if line > 1.5 else f"halo-{name}")
        axes.add_patch(frame)


def _draw_footer(axes: Axes, content: LayerMap, left: float, top: float, column: float) -> None:
    if not content.footer:
        return
    right = left + column * len(content.columns)
    axes.plot([left, right], [top, top], color=RULE, linewidth=0.8)
    for number, (label, values) in enumerate(content.footer):
        y = top - 0.02 - (number + 0.5) * _FOOTER
        axes.text(left - 0.08, y, label, size=_NOTE, color=MUTED, ha="right", va="center_baseline")
        for task, value in enumerate(values):
            x = left + (task + 0.5) * column
            axes.text(x, y, value, size=_NOTE, color=MUTED, ha="center", va="center_baseline")


_SWATCH = (0.34, 0.19)
_Item = tuple[Cell | None, str]


def _legend_rows(content: LayerMap, room: float) -> list[list[_Item]]:
    """The scale (None) and the marks, laid out on as many lines as they need."""
    rows: list[list[_Item]] = [[]]
    used = 0.0
    for item in [(None, ""), *content.marks]:
        width = _item_width(content, item)
        if rows[-1] and used + width > room:
            rows.append([])
            used = 0.0
        rows[-1].append(item)
        used += width
    return rows


def _item_width(content: LayerMap, item: _Item) -> float:
    swatch = _SWATCH[0] if item[0] is not None else _scale_width(content.scale)
    return swatch + 0.06 + text_width(item[1], _NOTE) + 0.24


def _scale_width(scale: Scale) -> float:
    ends = text_width(scale.labels[0], _NOTE) + text_width(scale.labels[1], _NOTE)
    return ends + 0.1 + 0.16 * len(scale.colours)


def _draw_legend(axes: Axes, content: LayerMap, items: Sequence[_Item], y: float) -> None:
    x = MARGIN
    middle = y + _SWATCH[1] / 2
    for item in items:
        cell, meaning = item
        if cell is None:
            start = _draw_scale(axes, content.scale, x, y)
        else:
            draw_cell(axes, cell, (x, y), _SWATCH, "sample")
            if cell.framed:
                _draw_frame(axes, (x, y), _SWATCH, "sample")
            start = x + _SWATCH[0]
        axes.text(start + 0.06, middle, meaning, size=_NOTE, color=MUTED, va="center_baseline")
        x += _item_width(content, item)


def _draw_scale(axes: Axes, scale: Scale, x: float, y: float) -> float:
    """Low label, colours, high label; returns where it ends."""
    middle = y + _SWATCH[1] / 2
    axes.text(x, middle, scale.labels[0], size=_NOTE, color=MUTED, va="center_baseline")
    start = x + text_width(scale.labels[0], _NOTE) + 0.05
    for number, colour in enumerate(scale.colours):
        axes.add_patch(Rectangle((start + 0.16 * number, y + 0.025), 0.162, 0.14, facecolor=colour, edgecolor="none"))
    end = start + 0.16 * len(scale.colours) + 0.05
    axes.text(end, middle, scale.labels[1], size=_NOTE, color=MUTED, va="center_baseline")
    return x + _scale_width(scale)
