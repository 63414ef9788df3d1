"""Errors a user can fix: one line that names the file, line or option and how to fix it."""

import errno
import os
import re
import unicodedata
from pathlib import Path

_CONTROLS = {"Cc", "Cs", "Zl", "Zp"}  # of Unicode: control characters, halves of surrogate pairs, separators of lines
_DIRECTIONS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_THEIRS = (
    "PytorchStreamWriter",
    "unexpected pos",
    "requested and",
    "SafetensorError",
)  # torch's, numpy's, safetensors'


class UserError(RuntimeError):
    """Something the user gave cannot work; the message is one line and says what to change.

    What it quotes may be anything: characters that would break the line or command a terminal are escaped. Of an error
    that torch makes anew from what a data loader worker sent, a traceback in text, the message stays.
    """

    def __init__(self, message: object = "") -> None:
        text = str(message)
        if text.startswith("Caught UserError in "):
            text = text.rstrip("\n").rpartition("UserError: ")[2]
        super().__init__(printable(text))


def printable(text: str) -> str:
    """The text on one line, control characters escaped as Python writes them."""
    if text.isprintable():
        return text
    return "".join(_escaped(c) if unicodedata.category(c) in _CONTROLS or c in _DIRECTIONS else c for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def system_message(error: BaseException) -> str | None:
    """The line for an error of the operating system that a user can fix; None for any other error.

    Libraries say that a disk is full in words of their own: numpy in an `OSError` without number, torch in a
    `RuntimeError`.
    """
    if (reason := no_room(error)) is not None:
        place = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        return f"{place}cannot be written ({reason}): make room there, or name another place"
    if isinstance(error, OSError) and error.filename is not None:
        return printable(f"{error.filename}: {error.strerror}: give a path that can be read, or written, there")
    return None


def no_room(error: BaseException) -> str | None:
    """Why ``error`` says that something could not be written for want of room; None for any other error."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return os.strerror(error.errno)
    text = f"{type(error).__name__}: {error}"
    if not isinstance(error, UserError) and any(words in text for words in _THEIRS):
        return "disk full, or a limit on the size of files"
    return None


def logged_error(log: Path, start: int) -> str | None:
    """Why a command failed, from what it wrote to ``log`` after byte ``start``: our own line of the error, else
    Python's last.
    """
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    ours = [
        found[1] for line in lines if (found := re.match(r"(?:[\w.-]+: )?error: (.+)", line))
    ]  # argparse names the program
    if ours:
        return str(ours[-1])
    theirs = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return theirs[-1].strip() if theirs else None
