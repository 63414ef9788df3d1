"""What a script does before it imports the package, which takes seconds."""

import io
import logging
import sys
from types import TracebackType

from openmp_waiting import choose_waiting


def start_script(threads: bool = False, level: int = logging.WARNING) -> None:
    """Ctrl-C is one line from now on, and fairseq logs from ``level`` on.

    Args:
        threads: whether the script computes with torch, whose OpenMP is then set up by what else the machine does.
    """
    sys.excepthook = _without_interrupt
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
    logging.basicConfig(level=level, format="%(message)s")  # before fairseq, which would log everything
    if threads:
        choose_waiting()


def _without_interrupt(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)
