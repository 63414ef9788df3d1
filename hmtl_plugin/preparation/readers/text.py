"""Files as UTF-8 text in bounded pieces, and the cleaning that every format shares.

Only "\\n" ends a line, or "\\r" in a file whose beginning has no other end of a line: U+2028, U+0085 and their kin
inside a line are white space, as for sentencepiece.
Cleaning turns control characters and every run of white space into one space, so a line is what
`fairseq-preprocess` would see as well.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from hmtl_plugin.errors import UserError

SPAN_BYTES = (
    1 << 21
)  # text handed to a worker at once: large enough to hide the hand-over, small enough to stay in cache
MAX_FILES_A_TASK = 256
_BOM = b"\xef\xbb\xbf"
_SCAN_BYTES = 1 << 16
_FAR = 1 << 20
_ASCII = bytes(range(128))
_CONTROL_TO_SPACE = bytes(32 if (i < 32 and i != 10) or i == 127 else i for i in range(256))
# Beyond ASCII: control characters and white space (what `str.split` takes for it), and the byte order mark.
_ODD_SPACE = re.compile(
    b"\xc2[\x80-\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80|\xef\xbb\xbf"
)


@dataclass(frozen=True)
class Span:
    """Bytes ``start..end`` of a file, cut at line ends. `first` and `last` say whether the file begins and
    ends here, `cr` whether its lines end in a carriage return alone.
    """

    path: str
    start: int
    end: int
    first: bool
    last: bool
    cr: bool = False

    def bytes(self) -> bytes:
        """The span's bytes, every line ending in a line feed."""
        data = read_bytes(self.path, self.start, self.end)
        return data.replace(b"\r", b"\n") if self.cr else data

    def read(self) -> str:
        """The span's text; `UserError` naming file and byte when it is not UTF-8."""
        return decode(self.bytes(), self.path, self.start)

    def read_tidy(self) -> str:
        """`read`, made tidy: what makes no text before makes none after."""
        data = self.bytes()
        try:
            return tidy_bytes(data).decode("utf-8")
        except UnicodeDecodeError:
            return decode(data, self.path, self.start)  # names the byte


def read_bytes(path: str, start: int, end: int) -> bytes:
    """Bytes ``start..end`` of a file; `UserError` when it cannot be read or has become shorter."""
    try:
        with open(path, "rb") as file:
            file.seek(start)
            data = file.read(end - start)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) != end - start:
        raise UserError(f"{path}: became shorter while it was read; run again when nothing writes to it")
    return data


def decode(data: bytes, path: str, start: int) -> str:
    """UTF-8 text of `data`, which stands at byte `start` of `path`."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 at byte {start + error.start} (0x{data[error.start]:02x}); "
            "convert the file first, for example with iconv -f latin1 -t utf-8"
        ) from error


def check_readable(paths: Iterable[str]) -> None:
    """`UserError` for a path that is missing, a folder, or not readable; before anything long starts."""
    for path in paths:
        if not os.path.exists(path):
            raise UserError(f"{path}: no such file")
        if os.path.isdir(path):
            raise UserError(f"{path}: is a folder; name the files in it, for example {os.path.join(path, '*.txt')}")
        if not os.access(path, os.R_OK):
            raise UserError(f"{path}: no permission to read it")


def spans(path: str, boundary: bytes = b"\n", skip: int = 0) -> Iterator[Span]:
    """Cut a file into spans of about `SPAN_BYTES`, each ending after a `boundary` where one is near, else
    after a line.

    A byte order mark is left out, and so are the first `skip` bytes (a header). An empty file gives one empty
    span.
    """
    size = Path(path).stat().st_size
    cr = ends_lines_by_cr(path)
    boundary = boundary.replace(b"\n", b"\r") if cr else boundary
    with open(path, "rb") as file:
        start = max(skip, len(_BOM) if file.read(len(_BOM)) == _BOM else 0)
        first = True
        while True:
            end = min(size, start + SPAN_BYTES)
            if end < size:
                end = _cut(file, end, size, boundary)
            yield Span(path, start, end, first, end >= size, cr)
            if end >= size:
                return
            start, first = end, False


def ends_lines_by_cr(path: Path | str) -> bool:
    """Whether the lines of a file end in a carriage return alone, as on old Macs."""
    with open(path, "rb") as file:
        head = file.read(_SCAN_BYTES)
    return b"\r" in head and b"\n" not in head


def first_line(path: Path | str) -> bytes:
    """The first line of a file with its end, or its first 64 KiB."""
    end = b"\r" if ends_lines_by_cr(path) else b"\n"
    with open(path, "rb") as file:
        line, found, _ = file.read(_SCAN_BYTES).partition(end)
    return line + found


def _cut(file: IO[bytes], position: int, size: int, boundary: bytes) -> int:
    """The end of the first `boundary` that ends at `position` or later; after 1 MiB without one, of a line."""
    end_of_line = boundary[-1:]
    line_end = 0
    offset = max(0, position - len(boundary))
    while offset < size:
        file.seek(offset)
        block = file.read(_SCAN_BYTES)
        found = block.find(boundary)
        if found >= 0:
            return offset + found + len(boundary)
        if not line_end and (newline := block.find(end_of_line, max(0, position - 1 - offset))) >= 0:
            line_end = offset + newline + 1
        if line_end and offset - position > _FAR:
            return line_end
        offset += max(1, len(block) - len(boundary) + 1)
    return size


def tasks(all_spans: Iterable[Span]) -> Iterator[list[Span]]:
    """Group spans so that many small files are handed to a worker together."""
    group: list[Span] = []
    size = 0
    for span in all_spans:
        group.append(span)
        size += span.end - span.start
        if size >= SPAN_BYTES or len(group) >= MAX_FILES_A_TASK:
            yield group
            group, size = [], 0
    if group:
        yield group


def tidy_bytes(data: bytes) -> bytes:
    """UTF-8 text with every line (ended by LF only) stripped, and control characters and runs of white space as
    one space. Whole blocks at a time: a few passes in C.
    """
    data = data.translate(_CONTROL_TO_SPACE)
    for odd in set(_ODD_SPACE.findall(data.translate(None, _ASCII))):  # few bytes are left to search
        data = data.replace(odd, b"" if odd == _BOM else b" ")
    if _has_loose_space(data):
        while b"  " in data:
            data = data.replace(b"  ", b" ")
        data = data.replace(b" \n", b"\n").replace(b"\n ", b"\n")
    return data.strip(b" ")


def _has_loose_space(data: bytes) -> bool:
    """Whether a space stands beside another or beside a line end; ten times as quick as to search for the two bytes.

    No other control characters may be left.
    """
    codes = np.frombuffer(data, dtype=np.uint8)
    space_or_end = codes <= 32
    neighbours = np.flatnonzero(space_or_end[1:] & space_or_end[:-1])  # next to none: blank lines
    return bool(((codes[neighbours] == 32) | (codes[neighbours + 1] == 32)).any())


def check_text(text: str, where: str) -> None:
    """`UserError` for what no UTF-8 can hold: half of a surrogate pair, of JSON or of a command line's bytes.

    Args:
        where: the beginning of the message.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{where}: half of a surrogate pair (\\u{ord(text[error.start]):04x}) at character {error.start}; "
                "write characters above U+FFFF as two escapes, or as they are in UTF-8"
            ) from error


def check_surrogates(written: str, value: object, where: Callable[[], str]) -> None:
    """`UserError` for JSON that has half a surrogate pair, which no UTF-8 can hold.

    Args:
        written: the JSON; value: what it means; where: gives the beginning of the message.
    """
    if "\\ud" in written or "\\uD" in written:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{where()}: half of a surrogate pair (\\u{ord(error.object[error.start]):04x}): write characters above U+FFFF "
                "as two escapes, or as they are in UTF-8"
            ) from error


def tidy_lines(text: str) -> list[str]:
    """The lines of `text`, tidy as `tidy_bytes` makes them."""
    return tidy_bytes(text.encode("utf-8")).decode("utf-8").split("\n")


def tidy(text: str) -> str:
    """`text` as one tidy line; its line ends become spaces too."""
    return " ".join(tidy_lines(text)).strip() if "\n" in text else tidy_lines(text)[0]


def line_number(path: str, offset: int) -> int:
    """Number, from 1, of the line that holds byte `offset`; for error messages."""
    number, end = 1, b"\r" if ends_lines_by_cr(path) else b"\n"
    with open(path, "rb") as file:
        while offset > 0:
            block = file.read(min(offset, 1 << 20))
            if not block:
                break
            number += block.count(end)
            offset -= len(block)
    return number
