"""The results store: one JSON line a result in ``results.jsonl``, from which every table, plot and report is made."""

import base64
import fcntl
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.publishing import explained
from hmtl_plugin.files.shape import COUNT, Check, Shape, misfit, optional

SCHEMA = 1
_PACKAGES = ("fairseq-fixed", "torch", "numpy", "sentencepiece")
_TEXT = (str, type(None))
_VALUE = Check("a number", lambda value: isinstance(value, float) or (type(value) is int and abs(value) < 1 << 63))
_VALUE_OR_NONE = Check("a number or null", lambda value: value is None or _VALUE.holds(value))
_BITS = Check("base64", lambda value: isinstance(value, str) and _decodes(value))
_FINETUNED: dict[Any, Shape] = {
    "variant": str,
    "task": str,
    "seed": int,
    "checkpoint_sha256?": _TEXT,
    "hyper": {str: object},
    "metrics": {"score": _VALUE, "low": _VALUE, "high": _VALUE, str: _VALUE_OR_NONE},
}
_PRETRAINED: dict[Any, Shape] = {
    "task": str,
    "checkpoint_sha256?": _TEXT,
    "split?": str,
    "hyper?": {str: object},
    "metrics": {
        "target?": str,
        "metric": str,
        "value": _VALUE,
        "low?": _VALUE,
        "high?": _VALUE,
        "baseline": _VALUE,
        "samples?": COUNT,
        "counts?": _VALUE_OR_NONE,
        "bigrams?": _VALUE_OR_NONE,
        "sizes?": _VALUE_OR_NONE,
    },
}
_BASELINE: dict[Any, Shape] = {
    "unit?": str,
    "role": str,
    "variant": str,
    "task": str,
    "seed?": int,
    "layers?": COUNT,
    "items?": _BITS,
    "data": {"rows": [COUNT], "classes": COUNT},
    "metrics": {"accuracy": _VALUE},
}
_PROBED: dict[Any, Shape] = _BASELINE | {
    "seed": int,
    "layer": COUNT,
    "layers": COUNT,
    "items": _BITS,
    "pooling": str,
    "hyper": {str: (str, bool, int, float)},
    "encoder": str,
    "fingerprint": str,
    "checkpoint": _TEXT,
    "transfer": str,
    "placements": [list],
    "metrics": {"accuracy": _VALUE, "valid_accuracy": _VALUE},
}
_STAGE: dict[Any, Shape] = {"fingerprint": str, "lines?": COUNT}
_SHAPES = {"pretrain": _PRETRAINED, "glue": _FINETUNED, "squad": _FINETUNED, "stage": _STAGE}
_AGAIN = "remove the line, or give the store as it was written"


def append_results(path: Path, results: list[dict[str, Any]]) -> None:
    """Append results under a lock: several processes may write to one store, and a kill leaves whole lines only.

    Each result gets ``schema``, ``versions``, ``commit`` and ``command`` of this process.
    """
    shared = {"schema": SCHEMA, "versions": versions(), "commit": commit(), "command": " ".join(sys.argv)}
    lines = "".join(json.dumps({**shared, **result}, ensure_ascii=False) + "\n" for result in results)
    path.parent.mkdir(parents=True, exist_ok=True)
    with explained(path), open(path, "ab") as store:
        fcntl.flock(store, fcntl.LOCK_EX)
        end = store.seek(0, os.SEEK_END)
        if end and not _ends_a_line(path):
            store.write(b"\n")  # what a killed writer left stays a line of its own, which reading skips
        store.write(lines.encode(errors="replace"))


def read_results(path: Path) -> list[dict[str, Any]]:
    """All whole results of a store, in the order written; none if there is no store yet.

    Raises:
        UserError: for a line that is no result.
    """
    if not path.exists():
        return []
    return list(parse_results(path.read_bytes(), path))


def parse_results(content: bytes, path: Path) -> Iterator[dict[str, Any]]:
    """The whole results among the lines of ``content``, which is that of the store ``path``. Lines of kinds that are
    not ours are given as they are.

    Raises:
        UserError: for a line that is no result.
    """
    for number, line in enumerate(content.decode("utf-8", errors="replace").split("\n"), start=1):
        try:
            result = json.loads(line)
        except (ValueError, RecursionError):
            continue  # an empty line, or half a line of a killed writer
        found = misfit(result, {"kind?": str, "role?": _TEXT})
        if found is None:
            found = misfit(result, optional(_shape_of(result)))
        if found is not None:
            raise UserError(f"{path}: line {number} is no result of this project ({found}): {_AGAIN}")
        yield result


def check_results(results: Iterable[dict[str, Any]]) -> None:
    """Before a table is made of them: each must have all that results of its kind have.

    Raises:
        UserError: naming what one lacks.
    """
    for result in results:
        if (found := misfit(result, _shape_of(result))) is not None:
            named = " ".join(str(result[name]) for name in ("kind", "variant", "task") if name in result)
            raise UserError(f"a result ({named}) is not whole, {found}: {_AGAIN}")


def _decodes(text: str) -> bool:
    try:
        base64.b64decode(text)
    except ValueError:
        return False
    return True


def _shape_of(result: dict[str, Any]) -> Shape:
    kind = result.get("kind")
    if kind == "probe":
        return _BASELINE if result.get("role") == "baseline" else _PROBED
    return _SHAPES.get(str(kind), {})


def versions() -> dict[str, str]:
    """Python and the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        found[package] = importlib.metadata.version(package)
    return found


def commit() -> str | None:
    """The project's commit, with ``+`` if files differ from it; None outside a git checkout."""
    folder = Path(__file__).parent
    git = ["git", "-C", str(folder)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if status.stdout.strip() else "")


def _ends_a_line(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
