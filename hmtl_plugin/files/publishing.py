"""Files that appear whole or not at all, written by one process at a time; and what a disk that takes no more is
called.
"""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hmtl_plugin.errors import UserError, no_room

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the exclusive lock on the file ``path``, which is made when missing.

    The kernel gives it back however a process ends. Whoever holds it may remove or rename the file: those who wait
    then lock the file that has its name by now. A file system without locks protects nothing.

    Raises:
        BlockingIOError: if another process has it and we shall not `wait`.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
            if _has_name(file, path):
                yield
                return
        finally:
            os.close(file)


def _has_name(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to be written in the block; at its end it takes the place of ``path``.

    Where the block raises, ``path`` is what it was. A second process that writes the same waits.

    Raises:
        UserError: if it cannot be written, as on a full disk.
    """
    part = path.with_name(f"{path.name}.part")
    with explained(path), locked(part):
        try:
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def write_json(path: Path, content: Any, indent: int | None = 1) -> None:
    """`write_whole` of a value as JSON, in UTF-8; a name of a file that is no text keeps its bytes as JSON's escapes."""
    text = json.dumps(content, indent=indent, ensure_ascii=False) + "\n"
    with write_whole(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """A disk that takes no more, in the words of whoever wrote, becomes a `UserError` that names ``path``."""
    try:
        yield
    except Exception as error:
        if (reason := no_room(error)) is None:
            raise
        raise UserError(f"{path}: cannot be written ({reason}): make room there, or name another place") from error
