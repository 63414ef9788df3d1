"""SQuAD-style JSON (1.1, 2.0, XQuAD): an article is a document; articles are parsed one by one, never the
whole file.
"""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hmtl_plugin.errors import UserError
from hmtl_plugin.preparation.readers.text import check_surrogates, tidy

_BLOCK_BYTES = 1 << 20
_DATA = re.compile(r'"data"\s*:\s*\[')
_GAP = re.compile(r"[\s,]*")


class _Stream:
    """A window of decoded text over a file that moves forward as it is used up."""

    def __init__(self, path: str) -> None:
        self.path, self.text, self.position, self.ended = path, "", 0, False
        self._file = Path(path).open("rb")  # noqa: SIM115 - closed by `articles`
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._read = 0

    def more(self) -> bool:
        """Read another block; False at the end of the file."""
        block = self._file.read(max(_BLOCK_BYTES, len(self.text) - self.position))
        pending = len(self._decoder.getstate()[0])
        try:
            new = self._decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise UserError(f"{self.path}: not UTF-8 at byte {self._read - pending + error.start}") from error
        self._read += len(block)
        self.text = self.text[self.position :] + new
        self.position = 0
        self.ended = not block
        return bool(block)

    def close(self) -> None:
        self._file.close()


def articles(path: str) -> Iterator[dict[str, Any]]:
    """The articles of a SQuAD file; `UserError` where the file is not of that form."""
    stream = _Stream(path)
    try:
        yield from _articles(stream)
    finally:
        stream.close()


def _articles(stream: _Stream) -> Iterator[dict[str, Any]]:
    while stream.more() and not (match := _DATA.search(stream.text)) and len(stream.text) < 1 << 24:
        pass
    match = _DATA.search(stream.text)
    if not match:
        raise UserError(f'{stream.path}: not a SQuAD file: it has no "data" list; choose another --format')
    stream.position = match.end()
    decoder = json.JSONDecoder()
    while True:
        gap = _GAP.match(stream.text, stream.position)
        stream.position = gap.end() if gap else stream.position
        if stream.position >= len(stream.text):
            if not stream.more():
                raise UserError(f"{stream.path}: the JSON ends in the middle; the file is truncated")
            continue
        if stream.text[stream.position] == "]":
            return
        try:
            article, end = decoder.raw_decode(stream.text, stream.position)
        except (ValueError, RecursionError) as error:
            if isinstance(error, ValueError) and stream.more():
                continue
            raise UserError(f"{stream.path}: not JSON or truncated: {error}") from error
        check_surrogates(stream.text[stream.position : end], article, lambda: stream.path)
        stream.position = end
        if not isinstance(article, dict) or not isinstance(article.get("paragraphs"), list):
            raise UserError(f'{stream.path}: not a SQuAD file: an article has no "paragraphs" list')
        yield article


def article_units(article: dict[str, Any], path: str) -> Iterator[tuple[str, list[str]]]:
    """(paragraph, its questions) of an article, tidy, in order."""
    for paragraph in article["paragraphs"]:
        if not isinstance(paragraph, dict) or not isinstance(paragraph.get("context"), str):
            raise UserError(f'{path}: not a SQuAD file: a paragraph has no "context"')
        if not isinstance(entries := paragraph.get("qas", []), list):
            raise UserError(f'{path}: not a SQuAD file: "qas" of a paragraph is no list')
        questions = [
            tidy(qa["question"]) for qa in entries if isinstance(qa, dict) and isinstance(qa.get("question"), str)
        ]
        yield tidy(paragraph["context"]), [question for question in questions if question]
