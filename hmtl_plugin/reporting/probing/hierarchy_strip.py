"""The strip beside a map's layer axis: which objectives were solved at which layer, and arrows for transfers."""

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Curve

from hmtl_plugin.hierarchy import Hierarchy, HierarchyError, Transfer
from hmtl_plugin.probing.results import ProbedEncoder
from hmtl_plugin.reporting.probing.colours import INK, MUTED, PILL
from hmtl_plugin.reporting.probing.labels import shorten, text_width

_POINTS = 7.5
_WIDEST = 2.0
_LANE = 0.13
_PADDING = 0.08
_HEAD = 0.06


@dataclass(frozen=True)
class Strip:
    """What is drawn for one encoder.

    Attributes:
        pills: layer -> names of its objectives, as one text; of one that reads a mix of layers at each its share.
        arrows: transfers between different layers, short ones first; those within a layer are only named in the
            subtitle.
    """

    pills: dict[int, str]
    arrows: tuple[tuple[int, int, Transfer], ...]

    @property
    def width(self) -> float:
        """Inches that it takes."""
        widest = max((text_width(text, _POINTS) + 2 * _PADDING for text in self.pills.values()), default=0.0)
        lanes = len(self.arrows) * _LANE + 0.06 if self.arrows else 0.0
        return widest + lanes + 0.12 if self.pills else 0.0


def hierarchy_strip(encoder: ProbedEncoder) -> Strip:
    """Pills and arrows of an encoder's hierarchy."""
    at: dict[int, list[str]] = {}
    for objective, layer in encoder.placements:
        shares = encoder.mixes.get(objective)
        for each in shares or (layer,):
            at.setdefault(each, []).append(f"{objective} {shares[each]:.2f}" if shares else objective)
    pills = {layer: shorten(" + ".join(names), _WIDEST, _POINTS) for layer, names in at.items()}
    layer_of = dict(encoder.placements)
    arrows = [
        (layer_of[edge.source], layer_of[edge.target], edge)
        for edge in _transfers(encoder.transfer)
        if edge.source in layer_of and edge.target in layer_of and layer_of[edge.source] != layer_of[edge.target]
    ]
    return Strip(pills, tuple(sorted(arrows, key=lambda arrow: (abs(arrow[1] - arrow[0]), arrow[0]))))


def _transfers(text: str) -> tuple[Transfer, ...]:
    try:
        return Hierarchy.parse("", text).transfers
    except HierarchyError:  # a foreign notation: the subtitle still shows it
        return ()


def draw_strip(axes: Axes, strip: Strip, right: float, bottom: float, row: float) -> None:
    """Draw it with its right edge at ``right``; layer 0 begins at ``bottom`` and each layer is ``row`` high (inches)."""
    if not strip.pills:
        return
    widest = max(text_width(text, _POINTS) + 2 * _PADDING for text in strip.pills.values())
    left, edge = right - 0.12 - widest, right - 0.12
    height = min(0.21, row * 0.8)
    for layer, text in strip.pills.items():
        middle = bottom + (layer + 0.5) * row
        axes.plot([edge, right], [middle, middle], color=MUTED, linewidth=0.8, solid_capstyle="butt")
        axes.add_patch(
            FancyBboxPatch(
                (left, middle - height / 2),
                widest,
                height,
                boxstyle=f"round,pad=0,rounding_size={height / 2.5}",
                facecolor=PILL,
                edgecolor="none",
            )
        )
        axes.text(left + widest / 2, middle, text, size=_POINTS, color=INK, ha="center", va="center_baseline").set_gid(
            f"objectives-{layer}"
        )
    for lane, (source, target, transfer) in enumerate(strip.arrows, start=1):
        _draw_arrow(axes, left, lane, [bottom + (layer + 0.5) * row for layer in (source, target)], transfer, height)


def _draw_arrow(axes: Axes, left: float, lane: int, ends: list[float], transfer: Transfer, height: float) -> None:
    """From the source's pill out to a lane of its own, along it and into the target's pill; dashed if no gradient flows
    back.
    """
    x, bend = left - lane * _LANE, 0.05
    # Arrows of several lanes leave and enter a pill at heights of their own, or they would lie upon each other.
    start, end = ends[0] + height * 0.2, ends[1] - height * 0.1 * min(lane, 3)
    tip = left - 0.01
    points = [
        (left, start),
        (x + bend, start),
        (x, start),
        (x, start + bend),
        (x, end - bend),
        (x, end),
        (x + bend, end),
    ]
    codes = [Curve.MOVETO, Curve.LINETO, Curve.CURVE3, Curve.CURVE3, Curve.LINETO, Curve.CURVE3, Curve.CURVE3]
    path = Curve([*points, (tip - _HEAD, end)], [*codes, Curve.LINETO])
    line = PathPatch(
        path, fill=False, edgecolor=MUTED, linewidth=1.0, linestyle="--" if transfer.stop_gradient else "-"
    )
    line.set_gid(f"transfer-{transfer.source}-{transfer.target}")
    axes.add_patch(line)
    half = _HEAD * 0.55
    axes.add_patch(
        Polygon([(tip, end), (tip - _HEAD, end - half), (tip - _HEAD, end + half)], facecolor=MUTED, edgecolor="none")
    )
