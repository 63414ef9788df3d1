"""The report in Markdown, for a repository."""

from hmtl_plugin.reporting.prose import wrapped
from hmtl_plugin.reporting.study import about, tables
from hmtl_plugin.reporting.study.contents import HTML, PLOTS, VALUES, Report
from hmtl_plugin.reporting.study.tables import Table


def markdown(report: Report) -> str:
    """The page's text."""
    study, names = report.study, {plot.name for plot in report.figures}
    title = f"# Study: {study.about['profile']['name']}"
    parts = [title, wrapped(about.question(study)), _list(report.findings)]
    parts += [_picture("differences")] if "differences" in names else []
    for table in report.main:
        parts += _section(table)
    parts += ["## Learning curves", _picture("learning-curves")] if "learning-curves" in names else []
    for number, table in enumerate(report.probes):
        title = "Differences of probes" if number else "Probes"
        parts += [f"## {title}", wrapped(table.caption), markdown_table(table)]
    parts += (
        _section(tables.cost_table(study)) + _section(tables.variants_table(study)) + _section(about.data_table(study))
    )
    parts += ["## How it was measured", wrapped(about.PAIRING)]
    parts += [_list([f"{name}: {_code(name, value)}" for name, value in about.settings(study).items()])]
    parts += ["## What differs from the paper", _list(about.differs(study))]
    parts += ["What the paper leaves open, and is a choice here:", _list(about.left_open())]
    parts += [
        wrapped(
            f"Layer heat maps and layer curves of the probes are in [{HTML}]({HTML}) and {PLOTS}/; every value "
            f"with its seed and the stage it comes from in [{VALUES}]({VALUES}); the records themselves in records.jsonl.gz. "
            "This page is written by `scripts/study_report.py`."
        )
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(table: Table) -> list[str]:
    return [f"## {table.title}", wrapped(table.caption), markdown_table(table)] if table.rows else []


def markdown_table(table: Table) -> str:
    """A table with pipes."""
    if not table.rows:
        return "Nothing yet."
    rule = ["---" if number < table.numbers else "---:" for number in range(len(table.header))]
    return "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in (table.header, rule, *table.rows))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _list(items: list[str]) -> str:
    return "\n".join(wrapped(item, "* ") for item in items)


def _code(name: str, value: str) -> str:
    return f"`{value}`" if name in ("command", "commit") else value.replace("*", "\\*")


def _picture(name: str) -> str:
    return f"![{name}]({PLOTS}/{name}.svg)"
