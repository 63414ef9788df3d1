"""Errors a user can mend: one line that names the file, line or option and the mend."""

import signal
import sys
from collections.abc import Callable


class UserError(RuntimeError):
    """Something the user gave cannot work; the message is one line and says what to change."""


def run_cli(main: Callable[[], None]) -> None:
    """Run a script's ``main``: a `UserError` becomes one line on stderr and exit status 1, Ctrl-C exits 130.

    A termination signal ends it as an exception does, so that processes it started end with it.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
