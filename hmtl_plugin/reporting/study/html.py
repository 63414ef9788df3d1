"""The report as one HTML file that needs nothing else, in the style of the probing report."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hmtl_plugin.reporting.probing import html as probing_html
from hmtl_plugin.reporting.probing.colours import THEME
from hmtl_plugin.reporting.probing.inline_svg import inline_svg
from hmtl_plugin.reporting.study import about, tables
from hmtl_plugin.reporting.study.contents import Report

_TEMPLATE = "study.html.jinja"


def html(report: Report) -> str:
    """The page's text."""
    environment = Environment(
        loader=FileSystemLoader([Path(__file__).parent, Path(probing_html.__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=probing_html.harmless,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    study = report.study
    drawn = [(plot, inline_svg(plot), number) for number, plot in enumerate(report.figures, start=1)]
    return environment.get_template(_TEMPLATE).render(
        study=study,
        question=about.question(study),
        findings=report.findings,
        main=report.main,
        probes=report.probes,
        others=[tables.cost_table(study), tables.variants_table(study), about.data_table(study)],
        by_seed=tables.seeds_table(study),
        figures={kind: [f for f in drawn if f[0].kind == kind] for kind in _KINDS},
        pairing=about.PAIRING,
        settings=about.settings(study),
        differs=about.differs(study),
        left_open=about.left_open(),
        theme=THEME,
    )


_KINDS = ("differences", "learning-curves", "heatmap", "curves")
