"""A study's report as files: README.md, report.html, values.tsv, figures. All are equal for equal records."""

import math
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from hmtl_plugin.publishing import write_whole
from hmtl_plugin.reporting.probing.plots import Plot, plots
from hmtl_plugin.reporting.probing.study import Study
from hmtl_plugin.reporting.probing.summary import summarise
from hmtl_plugin.reporting.study import figures, tables
from hmtl_plugin.reporting.study.findings import findings
from hmtl_plugin.reporting.study.statistics import Comparison, compare
from hmtl_plugin.reporting.study.study import PRIMARY, PROBES, StudyReport
from hmtl_plugin.reporting.study.tables import Table

MARKDOWN, HTML, VALUES, PLOTS = "README.md", "report.html", "values.tsv", "plots"


@dataclass(frozen=True)
class Report:
    """Everything that is shown, computed once."""

    study: StudyReport

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """With the baseline."""
        return compare(self.study)

    @cached_property
    def findings(self) -> list[str]:
        """Sentences."""
        return findings(self.study, self.comparisons)

    @cached_property
    def main(self) -> list[Table]:
        """Tables that every reader sees."""
        found = [tables.main_table(self.study), tables.differences_table(self.study, self.comparisons, PRIMARY)]
        further = [tables.ablation_table(self.study, self.comparisons), tables.mixes_table(self.study)]
        return [*found, *(table for table in further if table.rows)]

    @cached_property
    def probes(self) -> list[Table]:
        """Tables of probing."""
        found = tables.differences_table(self.study, self.comparisons, PROBES)
        return [tables.probes_table(self.study), found] if self.study.probes else []

    @cached_property
    def probing(self) -> Study:
        """For heat maps: without tests, whose sample would be sentences and not seeds of pre-training."""
        untrained = {row.name for row in self.study.rows if not row.trained and not row.reference}
        bare: dict[str, Any] = {"placements": [], "transfer": "", "encoder": "untrained"}
        lines = [line | bare if line["variant"] in untrained else line for line in self.study.probes]
        order = {row.name: number for number, row in enumerate(self.study.rows)}
        return summarise(sorted(lines, key=lambda line: order.get(line["variant"], -1)))

    @cached_property
    def figures(self) -> list[Plot]:
        """In the order of the report."""
        found = []
        if any(not math.isnan(c.low) for c in self.comparisons if c.family == PRIMARY):
            draw = partial(figures.differences, self.study, self.comparisons)
            found.append(_plot("differences", "Differences to flat BERT", figures.DIFFERENCES_TEXT, draw))
        if self.study.curves:
            draw = partial(figures.learning_curves, self.study)
            found.append(_plot("learning-curves", "Learning curves", figures.CURVES_TEXT, draw))
        probing = plots(self.probing) if self.study.probes else []
        return [*found, *(plot for plot in probing if plot.kind in ("heatmap", "curves"))]


def _plot(name: str, title: str, description: str, draw: Any) -> Plot:
    return Plot(name, name, "", title, description, draw)


def write_report(study: StudyReport, out: Path) -> list[Path]:
    """Write all files into ``out``; each is there whole or not at all."""
    from hmtl_plugin.reporting.study.html import html
    from hmtl_plugin.reporting.study.markdown import markdown

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
