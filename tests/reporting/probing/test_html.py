"""The HTML report: one whole page that needs nothing else, says what the study says and can be read by everyone."""

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from hmtl_plugin.probing.results import ProbingResults
from hmtl_plugin.reporting.probing import html_tables
from hmtl_plugin.reporting.probing.html import html, write_html
from tests.reporting.probing.studies import Shape, invented

_VOID = {"meta", "br", "hr", "img", "link", "input"}
HOSTILE = "<script>alert(1)</script>\"' onload=x & {{ 7 * 7 }} \udcff\x00"


class Page(HTMLParser):
    """Elements, ids and texts of a page; a tag that is not closed where it should be is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute of <{tag}> twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open, f"<{tag}/> is no HTML"
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def said(self, *tags: str) -> list[str]:
        return [text for tag, text in self.texts if tag in tags]


@pytest.fixture(scope="module")
def study() -> ProbingResults:
    return invented()


@pytest.fixture(scope="module")
def text(study: ProbingResults) -> str:
    return html(study)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_needs_nothing_from_elsewhere(text: str, page: Page) -> None:
    assert text.startswith("<!DOCTYPE html>")
    assert set(re.findall(r"https?://[^\"' ]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\bsrc=|@import|<script|<link|javascript:", text)
    assert all(
        target.startswith("#")
        for target in re.findall(r"url\(([^)]*)\)|href=\"([^\"]*)\"", text)
        for target in target
        if target
    )


def test_ids_are_unique_and_every_reference_has_its_target(text: str, page: Page) -> None:
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert max(ids.values()) == 1
    for pattern in (r"url\(#([^)]+)\)", r'href="#([^"]+)"', r'aria-labelledby="([^"]+)"'):
        targets = set(re.findall(pattern, text))
        assert targets and targets <= set(ids)


def test_can_be_read_without_seeing_it(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all("scope" in attributes for attributes in page.all("th"))
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in page.all("svg"))
    assert len(page.all("svg")) == len(page.all("figure")) == len(page.all("figcaption"))
    assert page.all("html") == [{"lang": "en"}]


def test_full_numbers_hold_every_layer(study: ProbingResults, page: Page) -> None:
    cells = Counter(page.said("td"))
    for probed in study.probed.values():
        for value in (*probed.accuracy.tolist(), *probed.low.tolist(), *probed.high.tolist()):
            assert cells[f"{value:.1f}"]
    blocks = [block for pooling in study.poolings for block in html_tables.full_numbers(study, pooling)]
    assert len(blocks) == len(study.probed)
    assert {len(row.texts) for block in blocks for row in block.rows} == {len(html_tables.columns(study))}


def test_sections_stand_for_what_was_run(study: ProbingResults, page: Page) -> None:
    everything = ["heat-maps", "summary", "differences", "curves", "centres", "control", "numbers", "probed", "method"]
    everything.append("legend")
    assert [a["id"] for a in page.all("h2")] == everything
    assert page.all("details") == [{}, {}]
    bare = replace(
        study, baseline=None, differences={}, probed={k: replace(p, control=None) for k, p in study.probed.items()}
    )
    ids = [a["id"] for a in Page(html(bare)).all("h2")]
    assert ids == [name for name in everything if name not in ("differences", "control")]


def test_says_what_the_tests_cannot_tell_and_whose_objective_is_probed(page: Page) -> None:
    said = " ".join(" ".join(page.said("p")).split())
    assert "compare two checkpoints, not two methods" in said and "other seeds of pre-training" in said
    assert "measures that checkpoint's own objective" in said and "left out of averages" in said
    assert "This holds for runs/books-hierarchy." in said


def test_names_do_no_harm(study: ProbingResults) -> None:
    small = invented(Shape(tasks=2, poolings=(HOSTILE,), names=(HOSTILE,)))
    task = replace(small.tasks[0], title=HOSTILE, in_distribution=frozenset([HOSTILE]))
    hostile = replace(small, tasks=(task, small.tasks[1]), settings={HOSTILE: {HOSTILE: [HOSTILE]}})
    written = html(hostile)
    parsed = Page(written)
    assert not parsed.all("script") and "49" not in parsed.said("dt", "dd", "th", "h3")
    assert not [attributes for _, attributes in parsed.elements if "onload" in attributes]
    assert "<script" not in written and "\x00" not in written
    assert len({a["id"] for _, a in parsed.elements if "id" in a}) == sum("id" in a for _, a in parsed.elements)


def test_half_done_work_shows_as_gaps(study: ProbingResults) -> None:
    first = dict(list(study.probed.items())[:7])
    half = Page(html(replace(study, probed=first, differences={})))
    assert half.said("span").count("not probed") > 100
    nothing = Page(html(ProbingResults((), (), (), {})))
    assert not nothing.all("figure") and len(nothing.all("h2")) > 5


def test_file_is_the_same_each_time_and_whole(study: ProbingResults, text: str, tmp_path: Path) -> None:
    write_html(study, tmp_path / "deep" / "report.html")
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["report.html"]
    assert (tmp_path / "deep" / "report.html").read_text(encoding="utf-8") == text


def test_settings_of_any_shape_are_shown(study: ProbingResults) -> None:
    settings = {"seeds": [1, 2], "grid": {"l2": [1e-4, 0.5], "deep": {"er": "yes it is"}}, "amp": False, "none": None}
    said = Page(html(replace(study, tasks=(), settings=settings))).said("dt", "dd", "code")
    assert [text for text in said if text in {"seeds", "1, 2", "0.0001, 0.5", "er", "yes it is", "no", "none"}] == [
        *("seeds", "1, 2", "0.0001, 0.5", "er", "yes it is", "no", "none", "none")
    ]


def test_verdicts_follow_the_intervals(study: ProbingResults) -> None:
    for pooling in study.poolings:
        for task, row in zip(study.tasks, html_tables.summary(study, pooling)):
            own = study.probed["untrained", task.name, pooling]
            for encoder, entry in zip(study.encoders, row.cells):
                probed = study.probed[encoder.name, task.name, pooling]
                assert entry is not None
                assert entry.main == f"{probed.accuracy[probed.best]:.1f}"
                assert entry.note.endswith(f"layer {probed.best}" if probed.best else "embeddings")
                low = probed.low[probed.best]
                beats_untrained = encoder.kind != "untrained" and low > own.high[own.best]
                above = html_tables.UNTRAINED if beats_untrained else html_tables.MAJORITY
                assert entry.verdict == (above if low > task.majority else html_tables.NEITHER)


def test_averages_leave_out_own_objectives_and_tasks_that_an_encoder_lacks(study: ProbingResults) -> None:
    count, means = html_tables.averages(study, "cls")
    assert count == len(study.tasks) - 1 and len(means) == len(study.encoders)
    probed = {key: value for key, value in study.probed.items() if key != ("untrained", study.tasks[0].name, "cls")}
    assert html_tables.averages(replace(study, probed=probed), "cls")[0] == count - 1
    assert html_tables.averages(replace(study, probed={}), "cls") == (0, ())
    first = study.encoders[0].name  # has no such pooling at all: the others' averages stay
    without = {key: found for key, found in study.probed.items() if key[0] != first or key[2] != "cls"}
    assert html_tables.averages(replace(study, probed=without), "cls") == (count, ("–", *means[1:]))
