"""Running a command: ``python scripts/NAME.py``, ``python -m hmtl_plugin NAME`` and, where the package is installed,
``hmtl-NAME`` are the same.

This module imports neither torch nor fairseq. Before a command imports them, which takes seconds, Ctrl-C becomes one
line, fairseq's log quiet, and the threads of commands that compute are chosen by what else the machine does
(`openmp_waiting`), since OpenMP reads its variables once.
"""

import io
import logging
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import TracebackType

from hmtl_plugin.commands.openmp_waiting import choose_waiting
from hmtl_plugin.errors import UserError, system_message
from hmtl_plugin.user_dir import import_outside, take_option

COMMANDS = {
    "evaluate": True,
    "export_hf": False,
    "export_onnx": False,
    "finetune_glue": True,
    "finetune_squad": True,
    "import_hf": False,
    "list_options": False,
    "make_probing": False,
    "prepare_corpus": False,
    "prepare_glue": False,
    "probe": True,
    "python_prose": False,
    "recipe_options": False,
    "results": False,
    "study": True,
    "study_report": False,
    "try_checkpoint": True,
}
"""Module in this folder -> whether it computes with torch."""


def run_command(name: str) -> None:
    """Import the module of a command and run its ``main`` on ``sys.argv``."""
    set_up_process(threads=COMMANDS[name])
    run_cli(import_module(f"hmtl_plugin.commands.{name}").main)


def set_up_process(threads: bool = False) -> None:
    """What comes before imports that take seconds.

    Args:
        threads: whether the process will compute with torch.
    """
    sys.excepthook = _without_interrupt
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
    logging.basicConfig(level=logging.WARNING, format="%(message)s")  # before fairseq, which would log everything
    if threads:
        choose_waiting()


def run_cli(main: Callable[[], None]) -> None:
    """Run ``main``: a `UserError`, or a file that the system refuses, becomes one line on stderr and exit status 1;
    Ctrl-C exits 130.

    ``--user-dir DIR`` is taken out of the arguments before, and code of the user's own imported, see `user_dir`. A
    termination signal ends it as an exception does, so that processes it started end with it.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        take_option(sys.argv)
        import_outside()  # whatever the command is, also where the environment names it
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        message = system_message(error)
        if message is None:  # ours
            raise
        sys.exit(f"error: {message}")


def _without_interrupt(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


def main() -> None:
    """``python -m hmtl_plugin NAME ...``."""
    name = sys.argv[1].replace("-", "_") if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        asked = name in ("", "_h", "__help")
        message = f"usage: python -m hmtl_plugin COMMAND ...; COMMAND --help explains one: {known}"
        sys.exit(message if asked else f"error: no command {sys.argv[1]}: use one of {known}")
    sys.argv[:2] = [f"hmtl_plugin {sys.argv[1]}"]
    run_command(name)


def console() -> None:
    """``hmtl-NAME ...`` of an installed package: the command is the name by which it was called."""
    run_command(Path(sys.argv[0]).stem.removeprefix("hmtl-").replace("-", "_"))
