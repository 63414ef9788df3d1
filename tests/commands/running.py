"""Commands run in this process: importing torch and fairseq anew takes seconds."""

import sys
from importlib import import_module
from pathlib import Path


def run_script(name: str, *arguments: str | Path) -> None:
    """The ``main`` of the command behind ``scripts/NAME.py`` with these arguments; its `UserError` is raised."""
    before = sys.argv
    sys.argv = [f"scripts/{name}.py", *map(str, arguments)]
    try:
        import_module(f"hmtl_plugin.commands.{name}").main()
    finally:
        sys.argv = before
