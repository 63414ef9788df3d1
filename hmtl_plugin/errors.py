"""Errors a user can fix: one line that names the file, line or option and how to fix it."""

import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path


class UserError(RuntimeError):
    """Something the user gave cannot work; the message is one line and says what to change."""


def run_cli(main: Callable[[], None]) -> None:
    """Run a script's ``main``: a `UserError`, or a file that the system refuses, becomes one line on stderr and exit status 1; Ctrl-C exits 130.

    ``--user-dir DIR`` is taken out of the arguments before, see `user_dir`. A termination signal ends it as an exception does, so that processes it started end with it.
    """
    from hmtl_plugin.user_dir import take_option

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        take_option(sys.argv)
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.filename is None:  # nothing a user could fix
            raise
        sys.exit(f"error: {error.filename}: {error.strerror}: give a path that can be read, or written, there")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def logged_error(log: Path, start: int) -> str | None:
    """Why a command failed, from what it wrote to ``log`` after byte ``start``: our own line of the error, else Python's last."""
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
