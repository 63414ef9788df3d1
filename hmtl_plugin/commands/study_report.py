"""The report of a study, finished or not: tables, statistics, figures, one HTML page.

    python scripts/study_report.py study
    python scripts/study_report.py study --out docs/results/study/cpu

STUDY is what scripts/study.py wrote, or a report's own folder, which holds all it is made of: study.json and
records.jsonl.gz.
"""

import argparse
import importlib.util
import shutil
from pathlib import Path

from hmtl_plugin.errors import UserError
from hmtl_plugin.reporting.study.collect import STUDY, read_study
from hmtl_plugin.reporting.study.contents import HTML, Report
from hmtl_plugin.reporting.study.report import write_report
from hmtl_plugin.reporting.study.tables import NOT_RUN, Table
from hmtl_plugin.reporting.text_table import text_table
from hmtl_plugin.study.records import PACKED, pack
from hmtl_plugin.user_dir import add_option


def main() -> None:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("study", type=Path, metavar="STUDY")
    p.add_argument("--out", type=Path, metavar="DIR", help="default: STUDY/report")
    add_option(p)
    args = p.parse_args()
    if not all(importlib.util.find_spec(name) for name in ("matplotlib", "jinja2")):
        raise UserError("a report needs matplotlib and jinja2: pip install matplotlib jinja2")
    study, out = read_study(args.study), args.out or args.study / "report"
    try:
        written = write_report(study, out)
    except OSError as error:
        raise UserError(f"--out {error.filename or out}: {error.strerror}: give a folder that can be written") from None
    if out.resolve() != args.study.resolve():
        shutil.copyfile(args.study / STUDY, out / STUDY)
        planned = {fingerprint for entry in study.plan for fingerprint in entry["stages"].values()}
        pack(args.study, out / PACKED, planned)
    report = Report(study)
    print("\n".join([*report.findings, "", _ran(report.main[0]), "", f"{out / HTML}, {len(written)} files"]))


def _ran(table: Table) -> str:
    """The rows that ran, for a terminal."""
    return text_table(table.header, [row for row in table.rows if NOT_RUN not in row])
