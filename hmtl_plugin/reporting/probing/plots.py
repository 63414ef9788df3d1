"""The figures of a probing report: which there are, how they are named, how they become files."""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure

from hmtl_plugin.files.publishing import write_whole
from hmtl_plugin.probing.results import ProbingResults
from hmtl_plugin.reporting.probing.curves import accuracy_curves, selectivity_curves
from hmtl_plugin.reporting.probing.heatmaps import accuracy_map, difference_map
from hmtl_plugin.reporting.probing.labels import FONT, plain, slugs

DPI = 150
_STYLE = {
    "font.family": [FONT],
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.fonttype": "none",
    "svg.hashsalt": "probing",
    "path.simplify": False,
}
# Most readers have one of these; all are narrower than the font that places were measured with.
_FAMILIES = "'Helvetica Neue', Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
_SVG_METADATA: dict[str, None] = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@dataclass(frozen=True)
class Plot:
    """One figure, not yet drawn.

    Attributes:
        name: file name without suffix, unique in a study.
        kind: ``heatmap``, ``difference``, ``curves`` or ``selectivity``.
        title: one line for people.
        description: what one sees, for those who cannot.
    """

    name: str
    kind: str
    pooling: str
    title: str
    description: str
    draw: Callable[[], Figure] = field(repr=False)

    def png(self) -> bytes:
        """A picture; equal bytes for equal studies."""
        with _style():
            return _saved(self.draw(), "png", {"Software": None})

    def svg(self) -> str:
        """A drawing with text as text; equal for equal studies."""
        with _style():
            text = _saved(self.draw(), "svg", _SVG_METADATA).decode()
        text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        return re.sub(r"(?<=font-family: )'DejaVu Sans'[^;\"]*(?=[;\"])", _FAMILIES, text)


def plots(study: ProbingResults) -> list[Plot]:
    """All figures that the study can fill, in the order of a report."""
    found: list[Plot] = []
    if not study.tasks or not study.encoders:
        return found
    of_encoder, of_pooling = slugs(e.name for e in study.encoders), slugs(study.poolings)
    tasks = f"{len(study.tasks)} task{'s' * (len(study.tasks) > 1)}"
    for pooling in study.poolings:
        for encoder in study.encoders:
            name = f"{of_encoder[encoder.name]}_{of_pooling[pooling]}"
            what = plain(f"{encoder.name}, {pooling} pooling")
            about = f"Accuracy of {what}: layers 0 to {encoder.layers} by {tasks}. All numbers are in the table of full numbers."
            draw = partial(accuracy_map, study, encoder, pooling)
            found.append(Plot(f"heatmap_{name}", "heatmap", pooling, f"Accuracy: {what}", about, draw))
            if any((encoder.name, task.name, pooling) in study.differences for task in study.tasks):
                title = plain(f"Difference: {encoder.name} less {study.baseline}, {pooling} pooling")
                about = f"{title}: layers by {tasks}. All numbers are in the table of full numbers."
                draw = partial(difference_map, study, encoder, pooling)
                found.append(Plot(f"difference_{name}", "difference", pooling, title, about, draw))
    for pooling in study.poolings:
        title = plain(f"Accuracy by layer, {pooling} pooling")
        about = f"{title}: {tasks}, a line for each of {len(study.encoders)} encoders with its 95 % interval."
        draw = partial(accuracy_curves, study, pooling)
        found.append(Plot(f"curves_{of_pooling[pooling]}", "curves", pooling, title, about, draw))
        if any(key[2] == pooling and probed.control is not None for key, probed in study.probed.items()):
            title = plain(f"Selectivity by layer, {pooling} pooling")
            about = f"{title}: {tasks}, a line for each of {len(study.encoders)} encoders."
            draw = partial(selectivity_curves, study, pooling)
            found.append(Plot(f"selectivity_{of_pooling[pooling]}", "selectivity", pooling, title, about, draw))
    return found


def write_plots(study: ProbingResults, folder: Path) -> list[Path]:
    """Write every figure as PNG and SVG; a file is there whole or not at all.

    Returns:
        The files, in the order of a report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for plot in plots(study):
        for suffix, data in (("png", plot.png()), ("svg", plot.svg().encode())):
            written.append(folder / f"{plot.name}.{suffix}")
            with write_whole(written[-1]) as part:
                part.write_bytes(data)
    return written


@contextmanager
def _style() -> Iterator[None]:
    """matplotlib's own defaults and ours, whatever a user's file of settings says; what was set before comes back."""
    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a name in another script
        yield


def _saved(figure: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()
