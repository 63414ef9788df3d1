"""Probing sets as files in SentEval's layout, and probing.json beside them."""

import importlib.metadata
import json
from collections import Counter
from pathlib import Path
from typing import Any

from hmtl_plugin.data.manifest import file_sha256
from hmtl_plugin.probing.generation.rows import Rows
from hmtl_plugin.probing.generation.split import SPLITS
from hmtl_plugin.progress import progress_bar

FILE_NAME = "probing.json"
SCHEMA = 1
GENERATOR = 1  # raised when the same text and options give other rows


def write_task(path: Path, rows: Rows) -> None:
    """One row a line, ``split TAB label TAB sentence``: all of tr, then va, then te."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for split, of_split in zip(SPLITS, rows):
            file.writelines(f"{split}\t{label}\t{sentence}\n" for label, sentence in of_split)


def count_labels(rows: Rows) -> dict[str, dict[str, int]]:
    """How often each label occurs in each split."""
    return {
        split: dict(sorted(Counter(row.label for row in of_split).items())) for split, of_split in zip(SPLITS, rows)
    }


def fingerprints(files: list[str], excluded: list[str]) -> list[dict[str, Any]]:
    """Name, size and sha256 of every input."""
    named = [(file, "text") for file in files] + [(file, "exclude") for file in excluded]
    entries = []
    with progress_bar("fingerprints", sum(Path(file).stat().st_size for file, _ in named)) as bar:
        for file, role in named:
            size = Path(file).stat().st_size
            entries.append({"name": Path(file).name, "role": role, "bytes": size, "sha256": file_sha256(file)})
            bar.update(size)
    return entries


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write probing.json: a function of the inputs, the options and the versions alone."""
    versions = {name: importlib.metadata.version(name) for name in ("sentencex", "numpy")}
    content = {"schema": SCHEMA, "generator": GENERATOR, **content, "versions": versions}
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    (folder / FILE_NAME).write_text(text, encoding="utf-8")
