"""The results store: one JSON line a result in ``results.jsonl``, from which every table, plot and report is made."""

import fcntl
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from hmtl_plugin.publishing import explained

SCHEMA = 1
_PACKAGES = ("fairseq-fixed", "torch", "numpy", "sentencepiece")


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
    """All whole results of a store, in the order written; none if there is no store yet."""
    if not path.exists():
        return []
    results = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            results.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # an empty line, or half a line of a killed writer
    return results


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
