"""Names as labels: without characters that break a file, short enough for their place, safe as names of files."""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

FONT = "DejaVu Sans"  # comes with matplotlib, so measures are the same on every machine
ELLIPSIS = "…"
MARGIN = 0.12  # inches around a figure


def plain(text: str) -> str:
    """The text on one line without control characters and broken surrogates, which neither XML nor UTF-8 can hold."""
    return "".join(_harmless(character) for character in text)


def _harmless(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cc", "Zl", "Zp"):
        return " "
    return "\N{REPLACEMENT CHARACTER}" if category == "Cs" or ord(character) & 0xFFFE == 0xFFFE else character


@lru_cache(maxsize=4096)
def text_width(text: str, points: float, bold: bool = False) -> float:
    """Width in inches, with a little to spare: pictures round each letter to pixels."""
    font = FontProperties(family=FONT, size=points, weight="bold" if bold else "normal")
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return 1.03 * float(width) / 72


def shorten(text: str, inches: float, points: float, bold: bool = False) -> str:
    """The text, its middle replaced by an ellipsis where it is too wide: names of runs differ at their ends."""
    text = plain(text)
    if text_width(text, points, bold) <= inches:
        return text
    low, high = 1, len(text)  # characters kept: low fits (or has to), high does not
    while high - low > 1:
        keep = (low + high) // 2
        low, high = (keep, high) if text_width(_without_middle(text, keep), points, bold) <= inches else (low, keep)
    return _without_middle(text, low)


def _without_middle(text: str, keep: int) -> str:
    head = keep // 3
    return text[:head] + ELLIPSIS + text[len(text) - (keep - head) :]


def distinct(names: Iterable[str], inches: float, points: float) -> dict[str, str]:
    """A label for each name, shortened where two of them stay different, else numbered."""
    labels: dict[str, str] = {}
    for number, name in enumerate(names, start=1):
        label = shorten(name, inches, points)
        labels[name] = label if label not in labels.values() else f"{label} ({number})"
    return labels


def wrap(text: str, inches: float, points: float, lines: int = 3) -> str:
    """The text on a few lines; words that are wider than a line are cut into parts."""
    parts: list[str] = []
    for word in plain(text).split():
        while text_width(word, points) > inches and len(word) > 1:
            fits = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or text_width(word[:n], points) <= inches)
            parts.append(word[:fits])
            word = word[fits:]
        parts.append(word)
    rows: list[str] = []
    for part in parts:
        if rows and text_width(f"{rows[-1]} {part}", points) <= inches:
            rows[-1] += f" {part}"
        else:
            rows.append(part)
    if len(rows) > lines:
        rows = [*rows[: lines - 1], rows[lines - 1][:-1] + ELLIPSIS]
    return "\n".join(rows)


def slugs(names: Iterable[str]) -> dict[str, str]:
    """A part of a file name for each name: ASCII letters, digits and dashes, all different even where case does not
    count.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        base = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[-60:].strip("-") or "unnamed"
        slug, number = base, 1
        while slug.lower() in taken:
            number += 1
            slug = f"{base}-{number}"
        taken.add(slug.lower())
        found[name] = slug
    return found
