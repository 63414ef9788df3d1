"""Wrapped prose says the same, in lines that fit."""

import re

from hypothesis import given
from hypothesis import strategies as st

from hmtl_plugin.reporting.prose import WIDTH, wrapped

WORD = st.text("ab`/", min_size=1, max_size=30)
MARKERS = st.sampled_from(["*", "-", "+", "#", "1.", "2)", ">"])
MARKER = re.compile(r"\s*([*+>-]|#+|\d+[.)])\s")


@given(st.lists(WORD), st.sampled_from(["", "* "]))
def test_lines_fit_and_say_the_same(words: list[str], bullet: str) -> None:
    lines = wrapped(" ".join(["first", *words]), bullet).split("\n")
    assert " ".join(lines).split() == [*bullet.split(), "first", *words]
    assert max(map(len, lines)) <= WIDTH
    assert all(line.startswith(" " * len(bullet)) for line in lines[1:])


@given(st.lists(st.one_of(WORD, MARKERS)))
def test_no_line_becomes_a_list(words: list[str]) -> None:
    lines = wrapped(" ".join(["first", *words])).split("\n")
    assert " ".join(lines).split() == ["first", *words]
    assert not any(MARKER.match(line) for line in lines[1:])


def test_a_path_longer_than_a_line_stays_whole() -> None:
    path = "/".join(["folder"] * 30)
    assert path in wrapped(f"stands in {path} and there").split("\n")
