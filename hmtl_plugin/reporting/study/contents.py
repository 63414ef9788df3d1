"""What a study's report shows, computed once for all forms of it."""

import math
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from hmtl_plugin.probing.results import ProbingResults
from hmtl_plugin.probing.summary import summarise
from hmtl_plugin.reporting.probing.plots import Plot, plots
from hmtl_plugin.reporting.study import figures, tables
from hmtl_plugin.reporting.study.comparisons import Comparison, compare
from hmtl_plugin.reporting.study.data import PRIMARY, PROBES, StudyReport
from hmtl_plugin.reporting.study.findings import findings
from hmtl_plugin.reporting.study.tables import Table

MARKDOWN, HTML, VALUES, PLOTS = "README.md", "report.html", "values.tsv", "plots"
"""Names of its files."""


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
    def probing(self) -> ProbingResults:
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
