"""One training at a time into one folder: an exclusive lock, held until the process that took it ends."""

import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from hmtl_plugin.errors import UserError

logger = logging.getLogger(__name__)

LOCK_NAME = ".lock"

# Kept open until the process ends: closing a file would give its lock back. By process, since a fork copies
# this table and not the locks.
_held: dict[tuple[int, Path], IO[str]] = {}


def hold_save_dir(folder: Path) -> None:
    """Take the lock of ``folder`` (made when missing) for the rest of this process; a second call is free.

    Raises `UserError` naming the holder when another process has it. It is a POSIX record lock: the kernel
    gives it back however the process ends, and data loader workers, which live on for seconds after a killed
    parent, do not inherit it; so a killed run can be resumed at once. A file system without locks gives a
    warning and no protection.
    """
    folder = Path(os.path.realpath(folder))
    if (os.getpid(), folder) in _held:
        return
    file = _take(folder / LOCK_NAME, f"--save-dir {folder}", "give another --save-dir")
    if file is not None:
        _held[os.getpid(), folder] = file


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """While a command has a training of its own in ``folder`` made, measured and cleaned up; the folder itself may come
    and go meanwhile.

    Raises:
        UserError: naming the holder, if another command has it, or a training that such a one has left behind.
    """
    other = "give another --out"
    file = _take(folder.with_name(f".{folder.name}{LOCK_NAME}"), str(folder), other)
    try:
        if (folder / LOCK_NAME).exists() and (training := _take(folder / LOCK_NAME, str(folder), other)) is not None:
            training.close()
        yield
    finally:
        if file is not None:
            file.close()


def _take(path: Path, what: str, other: str) -> IO[str] | None:
    """The file, locked as long as it is open; None where there are no locks.

    Raises:
        UserError: if another process has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - stays open
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX allows both for "held by another process"
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise UserError(
            f"{what}: {holder} is training into this folder already; wait for it, stop it, or {other}"
        ) from None
    except OSError as error:
        file.close()
        logger.warning("%s: no locks here (%s); a second run into it would go unnoticed", path.parent, error)
        return None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file
