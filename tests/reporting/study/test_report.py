"""The report's files: what they say, that they are equal for equal records, that half a study makes one too."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.reporting.study.collect import read_study
from hmtl_plugin.reporting.study.contents import HTML, MARKDOWN, VALUES, Report
from hmtl_plugin.reporting.study.report import write_report
from tests.commands.running import run_script
from tests.reporting.study.made_up import write_study

pytest.importorskip("matplotlib")
EFFECTS = {"random": -3.0, "flat": 0.0, "shift-lowest": 0.5, "hierarchy": 1.0}


def _written(study: Path, out: Path) -> dict[str, bytes]:
    write_report(read_study(study), out)
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_equal_records_give_equal_files(tmp_path: Path) -> None:
    """In whatever order the runs were recorded."""
    first = _written(write_study(tmp_path / "a", EFFECTS), tmp_path / "first")
    backwards = dict(reversed(EFFECTS.items()))
    write_study(tmp_path / "b", backwards)
    (tmp_path / "b" / "study.json").write_bytes((tmp_path / "a" / "study.json").read_bytes())
    assert _written(tmp_path / "b", tmp_path / "second") == first


def test_markdown_shows_every_variant_and_says_what_did_not_run(tmp_path: Path) -> None:
    text = _written(write_study(tmp_path / "s", EFFECTS), tmp_path / "out")[MARKDOWN].decode()
    rows = {
        row.split("|")[1].strip(): row for row in text.split("## Differences")[0].splitlines() if row.startswith("|")
    }
    assert "not run" in rows["never-run"]
    assert re.search(r"56\.\d ± 3\.\d", rows["flat"]) or re.search(r"\d\d\.\d ± \d\.\d", rows["flat"])
    assert "descriptive" in text
    assert "| 7 |" in text  # excluded documents
    assert "SNLI: no files were given" in text
    assert "0123456789ab" in text


def test_six_seeds_have_p_values(tmp_path: Path) -> None:
    text = _written(write_study(tmp_path / "s", EFFECTS, seeds=range(1, 7)), tmp_path / "out")[MARKDOWN].decode()
    assert "descriptive" not in text.split("## Differences")[1].split("## Learning")[0].replace(
        "the row is descriptive", ""
    )
    assert re.search(r"0\.031 \(\d\.\d{3}\)", text)


def test_every_number_of_the_main_table_follows_from_values(tmp_path: Path) -> None:
    out = tmp_path / "out"
    _written(write_study(tmp_path / "s", EFFECTS), out)
    lines = [line.split("\t") for line in (out / VALUES).read_text(encoding="utf-8").splitlines()[1:]]
    rte = [float(value) for variant, measure, _, value, _ in lines if (variant, measure) == ("hierarchy", "RTE")]
    assert len(rte) == 3
    table = (out / MARKDOWN).read_text(encoding="utf-8").split("## Main measures")[1]
    row = next(row for row in table.splitlines() if row.startswith("| hierarchy"))
    assert f"{sum(rte) / 3:.1f} ±" in row


def test_html_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    page = _written(write_study(tmp_path / "s", EFFECTS), tmp_path / "out")[HTML].decode()
    balance = _Balance()
    balance.feed(page)
    assert balance.open == []
    assert not re.search(r"<script|<link|src=|url\((?!#)", page)
    assert page.count("<svg") == len(Report(read_study(tmp_path / "s")).figures)


class _Balance(HTMLParser):
    """Tags that were opened and not closed."""

    _VOID = frozenset(("meta", "br", "img", "hr", "path", "use", "rect", "circle", "line", "image"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self._VOID:
            assert self.open.pop() == tag


@pytest.mark.parametrize(
    "skip", [("evaluate", "RTE", "SQuAD", "probe"), ("pretrain", "evaluate", "RTE", "SQuAD", "probe")]
)
def test_a_study_just_begun_has_a_report(tmp_path: Path, skip: tuple[str, ...]) -> None:
    study = write_study(tmp_path / "s", {"flat": 0.0}, seeds=[1], skip=[("flat", 1, stage) for stage in skip])
    text = _written(study, tmp_path / "out")[MARKDOWN].decode()
    assert "not finished" in text


def test_the_script_makes_a_folder_that_is_a_study_itself(tmp_path: Path) -> None:
    write_study(tmp_path / "s", EFFECTS)
    run_script("study_report", tmp_path / "s", "--out", tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert {"README.md", "report.html", "values.tsv", "study.json", "records.jsonl.gz"} <= set(before)
    run_script("study_report", tmp_path / "out", "--out", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()} == before


def test_a_report_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    write_study(tmp_path / "s", {"flat": 0.0}, seeds=[1])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^--out .*file.*: give a folder that can be written$"):
        run_script("study_report", tmp_path / "s", "--out", tmp_path / "file")
