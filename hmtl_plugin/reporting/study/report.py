"""A study's report as files: README.md, report.html, values.tsv, figures. All are equal for equal records."""

from pathlib import Path

from hmtl_plugin.files.publishing import write_whole
from hmtl_plugin.reporting.study import tables
from hmtl_plugin.reporting.study.contents import HTML, MARKDOWN, PLOTS, VALUES, Report
from hmtl_plugin.reporting.study.data import StudyReport
from hmtl_plugin.reporting.study.html import html
from hmtl_plugin.reporting.study.markdown import markdown


def write_report(study: StudyReport, out: Path) -> list[Path]:
    """Write all files into ``out``; each is there whole or not at all."""
    report = Report(study)
    (out / PLOTS).mkdir(parents=True, exist_ok=True)
    written = {out / MARKDOWN: markdown(report), out / HTML: html(report), out / VALUES: _values(study)}
    written |= {out / PLOTS / f"{plot.name}.svg": plot.svg() for plot in report.figures}
    for path, text in written.items():
        with write_whole(path) as part:
            part.write_text(text, encoding="utf-8", errors="replace")
    for old in set((out / PLOTS).glob("*.svg")) - set(written):
        old.unlink()
    return list(written)


def _values(study: StudyReport) -> str:
    table = tables.seeds_table(study)
    return "".join("\t".join(row) + "\n" for row in (table.header, *table.rows))
