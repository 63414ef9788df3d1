"""Colours and line styles of probing plots: safe for colour-blind eyes, told apart in black and white as well."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb

from hmtl_plugin.probing.results import ProbedEncoder, ProbingResults


class Shade(NamedTuple):
    """One colour in a light and in a dark scheme. Plots are drawn in the light one; a page replaces it by a variable."""

    light: str
    dark: str


Dashes = Literal["solid"] | tuple[float, tuple[float, ...]]


class LineStyle(NamedTuple):
    """How one encoder looks in every figure and table.

    Attributes:
        shade: name of its colour in `THEME`.
        dashes: as matplotlib takes them.
    """

    shade: str
    dashes: Dashes
    marker: str

    @property
    def colour(self) -> str:
        """Its colour in the light scheme."""
        return THEME[self.shade].light


_LINES: tuple[tuple[Shade, Dashes, str], ...] = (
    (Shade("#0072b2", "#5cb8ef"), "solid", "o"),
    (Shade("#d55e00", "#ff9350"), (0, (5, 1)), "s"),
    (Shade("#117733", "#63c884"), (0, (6, 1, 1, 1)), "^"),
    (Shade("#aa4499", "#e592d6"), (0, (3, 1)), "D"),
    (Shade("#8a6d00", "#e3c23c"), (0, (6, 1, 1, 1, 1, 1)), "v"),
    (Shade("#332288", "#a79bff"), (0, (2, 1)), "P"),
)

_UNTRAINED_MARKERS = "xX+*1p"

THEME: dict[str, Shade] = {
    "ink": Shade("#1f2328", "#e6e9ed"),
    "muted": Shade("#59636e", "#9aa4af"),
    "rule": Shade("#d0d7de", "#3a424c"),
    "paper": Shade("#fffffe", "#14181d"),
    "pill": Shade("#e7ecf2", "#2a323c"),
    "empty": Shade("#f4f5f7", "#1c2127"),
    "untrained": Shade("#6e7781", "#a9b2bc"),
    **{f"line-{number}": shade for number, (shade, _, _) in enumerate(_LINES)},
}
"""Every colour that a dark scheme changes. All light ones differ: they are what a page looks for to put a variable in.
"""

INK, MUTED, RULE, PAPER, PILL, EMPTY = (THEME[n].light for n in ("ink", "muted", "rule", "paper", "pill", "empty"))

_SHARE = ("#f3f6fa", "#d3e4f0", "#9fc8e2", "#5f9fcb", "#2c6fae", "#16427f", "#0c2552")
_DELTA = ("#7f3b08", "#c4721b", "#efad5c", "#fbe3c2", "#f6f6f6", "#d3e6f2", "#82b9dc", "#3079b5", "#0b3c73")
_DARK_TEXT, _LIGHT_TEXT = "#000000", "#ffffff"


def line_styles(encoders: Sequence[ProbedEncoder]) -> dict[str, LineStyle]:
    """A style for each encoder's name: grey dots for untrained ones, colours in order for others.

    From the seventh on colours come again, with other dashes and markers.
    """
    styles: dict[str, LineStyle] = {}
    counts = {True: 0, False: 0}
    for encoder in encoders:
        untrained = encoder.kind == "untrained"
        turn, number = divmod(counts[untrained], len(_LINES))
        counts[untrained] += 1
        if untrained:
            styles[encoder.name] = LineStyle("untrained", (0, (1, 1)), _UNTRAINED_MARKERS[number])
        else:
            _, dashes, marker = _LINES[(number + turn) % len(_LINES)]
            styles[encoder.name] = LineStyle(f"line-{number}", dashes, marker)
    return styles


def share_colour(share: float) -> str:
    """Colour of a share in 0..1, light to dark."""
    return to_hex(_ramp("share", _SHARE)(min(max(share, 0.0), 1.0)))


def delta_colour(delta: float, limit: float) -> str:
    """Colour of a difference: orange below 0, white at 0, blue above; full at ``limit``."""
    return to_hex(_ramp("delta", _DELTA)(min(max((delta / limit + 1) / 2, 0.0), 1.0)))


def text_colour(background: str) -> str:
    """Dark or light, whichever is easier to read on the background."""
    return max((_DARK_TEXT, _LIGHT_TEXT), key=lambda text: contrast(text, background))


def contrast(first: str, second: str) -> float:
    """Ratio of luminances as the Web Content Accessibility Guidelines define it, 1 to 21."""
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def delta_limit(study: ProbingResults) -> float:
    """Where the colours of differences end: one scale for all maps of a study, in steps of 5 points."""
    largest = max((abs(v) for d in study.differences.values() for v in d.delta.tolist() if v == v), default=0.0)
    return max(5.0, 5.0 * -(-largest // 5))


def _ramp(name: str, colours: Sequence[str]) -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list(name, list(colours))


def _luminance(colour: str) -> float:
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]
