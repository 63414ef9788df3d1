"""Damage and oddities: from valid content of a file to content that may be anything but valid."""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

Random = np.random.Generator

_BYTES = (b"\x00", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\r", b"\n", b"\n\n", b"\t", b"\x1b[2J", b"\xe2\x80\xa8", b"\xed\xa0\x80",
          b'"', b"{", b"]", b"-1", b"1e999", b"9" * 40, b"\xf0\x9f\x98\x80", b" " * 50, b"x" * 5000)  # fmt: skip
_VALUES: tuple[Any, ...] = (None, True, False, -1, 0, 10**6, 10**30, 1.5, 1e308, "", "x", "\ud800", "²", "-1", "nan", "a\nb\x1b[2J", "9" * 5000,
                            [], {}, [None], {"a": []}, [[]] * 3, "文" * 100, float("nan"), float("inf"))  # fmt: skip
_DEPTH = 2000


def damaged(content: bytes, random: Random) -> bytes:
    """One or several changes of bytes: bits, blocks, ends."""
    for _ in range(int(random.integers(1, 4))):
        place = int(random.integers(0, len(content) + 1))
        length = int(random.integers(1, 1 + max(1, min(64, len(content)))))
        kind = random.integers(6)
        if kind == 0 and place < len(content):
            changed = bytearray(content)
            changed[place] ^= 1 << int(random.integers(8))
            content = bytes(changed)
        elif kind == 1:
            content = content[:place]
        elif kind == 2:
            content = content[:place] + content[place + length :]
        elif kind == 3:
            content = content[:place] + content[place : place + length] * 2 + content[place + length :]
        elif kind == 4:
            content = content[:place] + _BYTES[random.integers(len(_BYTES))] + content[place:]
        else:
            content = content[:place] + random.bytes(length) + content[place + length :]
    return content


def odd_json(content: bytes, random: Random) -> bytes:
    """A JSON file, or a line of one in a JSON a line, with a value replaced, left out, moved or nested deeply."""
    text = content.decode()
    try:
        return _odd_document(text, random)
    except json.JSONDecodeError:
        lines = text.split("\n")
        number = int(random.integers(len(lines)))
        lines[number] = _odd_document(lines[number] or "{}", random).decode()
        return "\n".join(lines).encode()


def _odd_document(text: str, random: Random) -> bytes:
    document = json.loads(text)
    places: list[tuple[Any, Any]] = [([document], 0)]
    _collect(document, places)
    container, key = places[int(random.integers(len(places)))]
    kind = random.integers(4)
    if kind == 0 and len(places) > 1:
        other, name = places[int(random.integers(len(places)))]
        container[key] = json.loads(json.dumps(other[name]))
    elif kind == 1 and isinstance(container, dict):
        del container[key]
    elif kind == 2 and random.integers(4) == 0:
        container[key] = "DEEP"
    else:
        container[key] = _VALUES[random.integers(len(_VALUES))]
    root = places[0][0][0]
    return json.dumps(root).replace('"DEEP"', "[" * _DEPTH + "]" * _DEPTH).encode()


def _collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        places.append((value, key))
        _collect(inner, places)


def odd_lines(content: bytes, random: Random) -> bytes:
    """A table or a text with cells or lines left out, doubled, swapped or replaced."""
    lines = content.split(b"\n")
    for _ in range(int(random.integers(1, 4))):
        number = int(random.integers(len(lines)))
        cells = lines[number].split(b"\t")
        cell, kind = int(random.integers(len(cells))), random.integers(5)
        if kind == 0:
            del cells[cell]
        elif kind == 1:
            cells.insert(cell, cells[cell])
        elif kind == 2:
            cells[cell] = str(_VALUES[random.integers(len(_VALUES))]).encode(errors="surrogatepass")
        elif kind == 3:
            cells[cell] = _BYTES[random.integers(len(_BYTES))]
        else:
            lines.insert(number, lines[int(random.integers(len(lines)))])
            continue
        lines[number] = b"\t".join(cells)
    return b"\n".join(lines)


def odd_archive(content: bytes, random: Random) -> bytes:
    """A zip archive, as torch saves, with one member damaged and its checksum right: members of little size are
    likelier.
    """
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(target, "w") as archive:
        names = source.namelist()
        weights = np.array([1 / (1 + source.getinfo(name).file_size) ** 0.5 for name in names])
        weights[[name.endswith("data.pkl") for name in names]] = weights.sum()
        chosen = names[int(random.choice(len(names), p=weights / weights.sum()))]
        for name in names:
            member = source.read(name)
            archive.writestr(name, damaged(member, random) if name == chosen else member)
    return target.getvalue()


def odd_text(content: bytes, random: Random) -> bytes:
    """A short text such as an option's value."""
    if random.integers(3):
        return damaged(content, random)[:6000]
    value = str(_VALUES[random.integers(len(_VALUES))]).encode(errors="surrogatepass")
    place = int(random.integers(len(content) + 1))
    return content[:place] + value + content[place + int(random.integers(4)) :]


Mutation = Callable[[bytes, Random], bytes]
