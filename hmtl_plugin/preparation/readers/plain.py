"""Formats of running text: sentences, paragraphs, documents, jsonl. One span of a file to its documents."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from hmtl_plugin.errors import UserError
from hmtl_plugin.preparation.readers.text import Span, check_surrogates, line_number, tidy_lines
from hmtl_plugin.preparation.splitting import SentenceSplitter

_BLANK_LINES = re.compile("\n\n+")
_WRAPPED_WIDTH = 100  # a block whose lines are all this short is one hard-wrapped paragraph
_WRAPPED_LINES = 20  # fewer tell nothing of a file


@dataclass(frozen=True)
class TextOptions:
    """How running text is read.

    Attributes:
        format: ``sentences``, ``paragraphs``, ``documents`` or ``jsonl``.
        text_field: jsonl's field that holds the text; nested ones with dots.
        blank_line_ends_document: for sentences and paragraphs; else only the end of a file does.
        language: of the sentence splitter.
    """

    format: str
    text_field: str = "text"
    blank_line_ends_document: bool = True
    language: str = "en"


def read_span(span: Span, options: TextOptions, splitter: SentenceSplitter) -> list[str | None]:
    """The span's documents, each its sentences one a line; None for a record whose text is empty or null.

    A document ends between two elements of the list, not after the last: it may go on in the next span. So
    the first and the last element may be empty, and a file without its last line end loses nothing.
    """
    return [*_READERS[options.format](span, options, splitter)]


def _lines(span: Span) -> list[str]:
    lines = span.read_tidy().split("\n")
    if not lines[-1]:
        lines.pop()  # what stands after the last line end is no blank line
    return lines


def _sentences(span: Span, options: TextOptions, splitter: SentenceSplitter) -> list[str]:
    text = "\n".join(_lines(span))
    if not options.blank_line_ends_document:
        return [_BLANK_LINES.sub("\n", text).strip("\n")]
    return [part.strip("\n") for part in _BLANK_LINES.split(f"\n{text}\n")]  # an empty line is now always "\n\n"


def _paragraphs(span: Span, options: TextOptions, splitter: SentenceSplitter) -> list[str]:
    lines = _lines(span)
    if not options.blank_line_ends_document:
        return [splitter.split_lines(lines)]
    documents: list[str] = []
    paragraphs: list[str] = []
    for line in lines:
        if line:
            paragraphs.append(line)
        else:
            documents.append(splitter.split_lines(paragraphs))
            paragraphs = []
    documents.append(splitter.split_lines(paragraphs))
    return documents


def _documents(span: Span, options: TextOptions, splitter: SentenceSplitter) -> list[str]:
    return [splitter.split_lines(paragraphs_of(span.read()))]


def _jsonl(span: Span, options: TextOptions, splitter: SentenceSplitter) -> list[str | None]:
    documents: list[str | None] = []
    offset = span.start
    span.read()  # refuses what is not UTF-8 with its byte
    for line in span.bytes().split(b"\n"):
        if line.strip():
            record = parse_json_line(line, span.path, offset)
            text = field(record, options.text_field, span.path, offset)
            documents.append(splitter.split_lines(paragraphs_of(text)) or None)
        offset += len(line) + 1
    return [*documents, ""]


_READERS: dict[str, Callable[[Span, TextOptions, SentenceSplitter], Iterable[str | None]]] = {
    "sentences": _sentences,
    "paragraphs": _paragraphs,
    "documents": _documents,
    "jsonl": _jsonl,
}


def paragraphs_of(text: str) -> list[str]:
    """The paragraphs of a document as tidy lines.

    Blank lines separate blocks. A block whose lines are all short is one hard-wrapped paragraph and is
    joined; else every line is a paragraph.
    """
    paragraphs: list[str] = []
    for block in _BLANK_LINES.split("\n".join(tidy_lines(text))):
        lines = [line for line in block.split("\n") if line]
        if len(lines) > 1 and max(map(len, lines)) <= _WRAPPED_WIDTH:
            paragraphs.append(" ".join(lines))
        else:
            paragraphs += lines
    return paragraphs


def looks_wrapped(text: str) -> bool:
    """Whether lines end inside sentences, as those of hard-wrapped text do: the next one goes on in lower case."""
    lines = [line.strip() for line in text.split("\n")]
    inner = [(line, following) for line, following in pairwise(lines) if line and following]
    goes_on = sum(len(line) <= _WRAPPED_WIDTH and following[0].islower() for line, following in inner)
    return len(inner) >= _WRAPPED_LINES and 2 * goes_on > len(inner)


def parse_json_line(line: bytes, path: str, offset: int) -> dict[str, object]:
    """One line of a jsonl file as an object; `UserError` with file and line number when it is none."""
    try:
        text = line.decode("utf-8-sig")
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise UserError(f"{path}: line {line_number(path, offset)} is not JSON ({reason})") from error
    if not isinstance(record, dict):
        raise UserError(f"{path}: line {line_number(path, offset)} is not a JSON object")
    check_surrogates(text, record, lambda: f"{path}: line {line_number(path, offset)}")
    return record


def field(record: dict[str, object], name: str, path: str, offset: int) -> str:
    """The text in a record's field (nested by dots), empty where that is null, as dumps have it; `UserError` naming the
    line and the fields there are.
    """
    value: object = record.get(name, record)
    if value is record:
        for part in name.split("."):
            value = None if value is None else value.get(part, record) if isinstance(value, dict) else record
    if value is None:
        return ""
    if not isinstance(value, str):
        fields = ", ".join(k for k, v in record.items() if isinstance(v, str)) or "none"
        raise UserError(
            f"{path}: line {line_number(path, offset)} has no text in field '{name}'; "
            f"its text fields: {fields} (choose with --text-field)"
        )
    return value
