"""One training at a time into one folder: an exclusive lock, held until the process that took it ends."""

import fcntl
import logging
import os
import socket
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
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder / LOCK_NAME, "a+", encoding="utf-8")  # noqa: SIM115 - stays open
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX allows both for "held by another process"
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise UserError(
            f"--save-dir {folder}: {holder} is training into this folder already; wait for it, stop it, or "
            "give another --save-dir"
        ) from None
    except OSError as error:
        file.close()
        logger.warning("%s: no locks here (%s); a second run into it would go unnoticed", folder, error)
        return
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    _held[os.getpid(), folder] = file
