"""Evaluation files of any format to the set of their sentences: no pre-training document may share one."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from hmtl_plugin.preparation.deduplication import ExcludedSentences
from hmtl_plugin.preparation.readers import squad
from hmtl_plugin.preparation.readers.pairs import KNOWN_COLUMNS
from hmtl_plugin.preparation.readers.plain import paragraphs_of, parse_json_line
from hmtl_plugin.preparation.readers.text import spans, tidy
from hmtl_plugin.preparation.splitting import SentenceSplitter

FORMATS = ("auto", "text", "tsv", "jsonl", "squad")


def read_excluded(
    paths: Iterable[str],
    format: str = "auto",
    language: str = "en",
    minimum_words: int = 1,
    advance: Callable[[int], object] = lambda size: None,
) -> ExcludedSentences:
    """The sentences of evaluation files: every line, cell, paragraph or question as it stands, and split.

    Args:
        format: ``text``, ``tsv``, ``jsonl``, ``squad``, or ``auto``: by extension and first bytes.
        minimum_words: see `ExcludedSentences`.
        advance: told the bytes read.
    """
    excluded = ExcludedSentences(minimum_words)
    splitter = SentenceSplitter(language)
    for path in paths:
        chosen = detect(path) if format == "auto" else format
        batch: set[str] = set()
        for unit in _UNITS[chosen](path):
            batch.add(unit)
            batch.update(splitter.split(unit))
            if len(batch) > 100_000:
                excluded.add(excluded.keys(batch))
                batch = set()
        excluded.add(excluded.keys(batch))
        advance(Path(path).stat().st_size)
    excluded.seal()
    return excluded


def detect(path: str) -> str:
    """Format of an evaluation file by its extension, or its beginning."""
    suffix = Path(path).suffix.lower()
    known = {".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
    if suffix in known:
        return known[suffix]
    with open(path, "rb") as file:
        head = file.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()
    first = head.split(b"\n", 1)[0].strip()
    if first.startswith(b"{"):
        try:
            record = json.loads(first)
        except (ValueError, RecursionError):
            return "squad"
        return "squad" if isinstance(record, dict) and "data" in record else "jsonl"
    if suffix == ".json":
        return "squad"
    return "tsv" if first.count(b"\t") >= 1 else "text"


def _text_units(path: str) -> Iterator[str]:
    for span in spans(path, b"\n\n"):
        text = span.read()
        yield from (tidy(line) for line in text.split("\n"))
        yield from paragraphs_of(text)  # sentences of hard-wrapped text run over line ends


def _tsv_units(path: str) -> Iterator[str]:
    columns: list[int] | None = None
    for span in spans(path):
        for number, line in enumerate(span.read().split("\n")):
            cells = line.rstrip("\r").split("\t")
            if span.first and number == 0:
                known = next((pair for pair in KNOWN_COLUMNS if set(pair) <= set(cells)), None)
                columns = [cells.index(name) for name in known] if known else None
            if columns is None:  # one sentence a row (SST-2), or no header (CoLA): whatever has two words
                yield from (text for cell in cells if " " in (text := tidy(cell)))
            else:
                yield from (tidy(cells[column]) for column in columns if column < len(cells))


def _jsonl_units(path: str) -> Iterator[str]:
    for span in spans(path):
        offset = span.start
        for line in span.bytes().split(b"\n"):
            if line.strip():
                record = parse_json_line(line, path, offset)
                known = next((pair for pair in KNOWN_COLUMNS if set(pair) <= set(record)), None)
                for value in [record[name] for name in known] if known else record.values():
                    if isinstance(value, str):
                        yield tidy(value)
                        yield from paragraphs_of(value)
            offset += len(line) + 1


def _squad_units(path: str) -> Iterator[str]:
    for article in squad.articles(path):
        for paragraph, questions in squad.article_units(article, path):
            yield paragraph
            yield from questions


_UNITS: dict[str, Callable[[str], Iterator[str]]] = {
    "text": _text_units,
    "tsv": _tsv_units,
    "jsonl": _jsonl_units,
    "squad": _squad_units,
}
