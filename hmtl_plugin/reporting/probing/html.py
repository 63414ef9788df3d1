"""The probing report as one HTML file that needs nothing else: no script, no font, no picture from elsewhere."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hmtl_plugin.files.publishing import write_whole
from hmtl_plugin.probing.results import ProbingResults
from hmtl_plugin.reporting.probing import html_tables
from hmtl_plugin.reporting.probing.colours import THEME, line_styles
from hmtl_plugin.reporting.probing.heatmaps import DAGGER
from hmtl_plugin.reporting.probing.inline_svg import inline_svg
from hmtl_plugin.reporting.probing.labels import plain
from hmtl_plugin.reporting.probing.plots import plots

_TEMPLATE = "report.html.jinja"


def write_html(study: ProbingResults, file: Path) -> None:
    """Write the report; the file is there whole or not at all, and equal for equal studies."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # A name may hold what UTF-8 cannot: it came from a path.
    with write_whole(file) as part:
        part.write_text(html(study), encoding="utf-8", errors="replace")


def html(study: ProbingResults) -> str:
    """The page's text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=harmless,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.tests["table"] = lambda value: isinstance(value, Mapping)
    environment.filters["scalar"] = _scalar
    in_order = sorted(plots(study), key=lambda plot: _KINDS.index(plot.kind))
    drawn = [(plot, inline_svg(plot), number) for number, plot in enumerate(in_order, start=1)]
    styles = line_styles(study.encoders)
    return environment.get_template(_TEMPLATE).render(
        study=study,
        tables=html_tables,
        theme=THEME,
        dagger=DAGGER,
        shades={name: style.shade for name, style in styles.items()},
        figures={kind: [entry for entry in drawn if entry[0].kind == kind] for kind in _KINDS},
        own=[name for name in styles if any(name in task.in_distribution for task in study.tasks)],
        verdicts=(html_tables.UNTRAINED, html_tables.MAJORITY, html_tables.NEITHER),
        has_control=html_tables.has_control(study),
    )


_KINDS = ("heatmap", "difference", "curves", "selectivity")


def harmless(value: Any) -> Any:
    """Texts without characters that no page may hold; lines stay lines."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return "\n".join(plain(line) for line in value.split("\n"))
    return value


def _scalar(value: Any) -> str:
    """A setting that is no table, as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_scalar(item) for item in value)
    return str(value)
