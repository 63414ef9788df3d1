"""The layout of the package: its parts import only from parts below them, and no file imports itself by a detour."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "hmtl_plugin"
LAYERS = (  # from the ground up; parts of one line do not import each other (docs/architecture.md)
    "errors special_tokens statistics progress",
    "files parallel precision child_process",
    "compat",
    "user_dir",
    "hierarchy results",
    "corruption",
    "tokenizers",
    "data",
    "preparation counting",
    "optim",
    "objectives",
    "glue squad",
    "models",
    "criterions",
    "tasks",
    "checkpoints",
    "evaluation finetuning recipe",
    "hub interop probing",
    "fairseq_hub study",
    "reporting conformance fairseq_hooks",
    "commands",
    "__init__ __main__",
)
LEVEL = {part: level for level, line in enumerate(LAYERS) for part in line.split()}
# Called up, not imported: the package's face loads the hub when it is asked for it, and all where fairseq is loaded.


def modules() -> dict[str, Path]:
    """Dotted name within the package -> file; of a folder that of its ``__init__``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path
    return found


MODULES = modules()


def imported(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports, anywhere in it, for types too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "hmtl_plugin":
            inside = (node.module or "").removeprefix("hmtl_plugin").lstrip(".")
            for alias in node.names:
                whole = f"{inside}.{alias.name}".lstrip(".")
                if whole in MODULES or inside:
                    yield whole if whole in MODULES else inside
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("hmtl_plugin.") for a in node.names if a.name.startswith("hmtl_plugin."))


IMPORTS = {name: set(imported(path)) - {name} for name, path in MODULES.items()}


def part(name: str) -> str:
    return name.partition(".")[0]


def test_every_part_has_a_layer() -> None:
    assert {part(name) for name in MODULES} == set(LEVEL)


@pytest.mark.parametrize("name", IMPORTS)
def test_imports_point_down(name: str) -> None:
    here = part(name)
    up = sorted(other for other in IMPORTS[name] if part(other) != here and LEVEL[part(other)] >= LEVEL[here])
    assert not up, f"{MODULES[name]} imports {', '.join(up)}, which stand above it or beside it"


def test_no_circle() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        raise AssertionError(f"modules import each other: {' -> '.join(error.args[1])}") from None


def test_fairseq_is_imported_by_way_of_compat() -> None:
    """Which makes that quiet. A package imports `compat` in its ``__init__``, a module beside them something that does."""
    for name, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        first = next((n for n, line in enumerate(text.splitlines()) if line.lstrip().startswith("from fairseq")), None)
        if first is None or name == "compat":
            continue
        guard = MODULES[part(name)].read_text(encoding="utf-8") if "." in name or path.name == "__init__.py" else ""
        before = "\n".join(text.splitlines()[:first])
        guarded = any(line in guard for line in ("import compat", "compat,  #", "import tasks"))
        assert guarded or "isort: split" in before or "if TYPE_CHECKING:" in before, path
