"""Scripts run in this process: importing torch and fairseq anew takes seconds."""

import importlib.util
import sys
from pathlib import Path

from tests.conftest import REPOSITORY


def run_script(name: str, *arguments: str | Path) -> None:
    """The ``main`` of ``scripts/NAME.py`` with these arguments; its `UserError` is raised."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.argv, sys.path
    sys.argv = [f"scripts/{name}.py", *map(str, arguments)]
    sys.path = [str(REPOSITORY / "scripts"), *sys.path]  # as for a script, whose own folder comes first
    try:
        spec.loader.exec_module(module)
        module.main()
    finally:
        sys.argv, sys.path = before
