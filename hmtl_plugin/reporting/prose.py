"""Prose of generated Markdown pages, broken at the width of the repository's lines."""

import re
import textwrap

WIDTH = 110  # of 120: tools that count bytes find more in a line with dashes and arrows
_BEFORE_MARKER = re.compile(r"\s+(?=(?:[*+>-]|#+|\d+[.)])\s)")
_TIE = "\0"


def wrapped(text: str, bullet: str = "") -> str:
    """A paragraph in lines of at most `WIDTH` characters; a word, path or link that is longer stays whole.

    No line but the first begins with what Markdown takes for a list, a heading or a quotation.

    Args:
        text: words between blanks; its own line breaks do not count.
        bullet: what the first line begins with, as ``"* "``; the others are indented by its width.
    """
    tied = _BEFORE_MARKER.sub(_TIE, text)
    lines = textwrap.fill(
        tied,
        WIDTH,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines.replace(_TIE, " ")
