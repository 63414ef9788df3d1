"""Tables of the results that fine-tuning recorded.

python scripts/results.py runs/books/results.jsonl runs/flat/results.jsonl

For each pre-training and task the cell of the grid with the best median score over its seeds. The interval is one of
the mean, for other validation rows and other seeds. Scores are percentages.
"""

import argparse
from pathlib import Path
from typing import Any

from hmtl_plugin.errors import UserError
from hmtl_plugin.reporting.finetuning import glue_table, squad_table
from hmtl_plugin.results import read_results
from hmtl_plugin.user_dir import add_option


def main() -> None:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("stores", nargs="+", type=Path, metavar="FILE", help="results.jsonl, or a folder that holds one")
    add_option(p)
    args = p.parse_args()
    stores: dict[Path, list[dict[str, Any]]] = {}
    for path in args.stores:
        store = path / "results.jsonl" if path.is_dir() else path
        if not store.is_file():
            raise UserError(f"{store}: no such store of results: fine-tune first, or give the results.jsonl of a run")
        stores[store.resolve()] = read_results(store)
    lines = _told_apart(stores)
    print(f"GLUE\n\n{glue_table(lines)}\n\nSQuAD\n\n{squad_table(lines)}")


def _told_apart(stores: dict[Path, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """All lines; where stores mean different checkpoints by one name, it has the store's folder added."""
    latest: dict[str, dict[Path, str | None]] = {}
    for store, lines in stores.items():
        for line in lines:
            if "variant" in line:
                latest.setdefault(line["variant"], {})[store] = line.get("checkpoint_sha256")
    shared = {name for name, checkpoints in latest.items() if len(set(checkpoints.values())) > 1}
    return [
        line | ({"variant": f"{line['variant']} ({store.parent})"} if line.get("variant") in shared else {})
        for store, lines in stores.items()
        for line in lines
    ]
