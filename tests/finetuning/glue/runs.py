"""Fine-tuning runs for the tests of GLUE: the script in this process, and what it leaves."""

import csv
import json
import statistics
from pathlib import Path
from typing import Any

from hmtl_plugin.errors import UserError
from tests.commands.running import run_script
from tests.training.runs import PLUGIN, train

GRID = ["--grid", "lr=1e-3,1e-2", "batch-size=16", "epochs=2"]
CELLS = [f"lr={lr},batch-size=16,epochs=2,autocast=none" for lr in ("1e-3", "1e-2")]
RUNS = [f"{cell}/seed{seed}" for cell in CELLS for seed in (1, 2)]
STS_CELL = "lr=3e-2,batch-size=16,epochs=4,autocast=none"
FINISHED = {"RTE": RUNS, "STS-B": [f"{STS_CELL}/seed1"]}
DOCUMENTED = (
    "schema kind run checkpoint checkpoint_sha256 variant hierarchy transfer seed task split layer pooling metrics hyper "
    "seconds versions commit command"
).split()


class Trainer:
    """Stands in for `fairseq_train`: the same in this process, without seconds of imports.

    Attributes:
        runs: CELL/seedN of every training; first_epochs: where each began.
        stop_after: ends a training after so many epochs as Ctrl-C does; 0 for never.
    """

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.first_epochs: list[int] = []
        self.stop_after = 0

    def __call__(self, options: list[str], folder: Path, processes: int, on_update: Any) -> None:
        self.runs.append(f"{folder.parent.name}/{folder.name}")
        stop = ["--max-epoch", str(self.stop_after)] if self.stop_after else []
        try:
            lines = train([*options, "--user-dir", PLUGIN, "--cpu", "--save-dir", str(folder), *stop])
        except SystemExit as error:
            raise UserError(str(error.code).removeprefix("error: ")) from None
        with (folder / "train.log").open("a") as log:
            log.writelines(json.dumps(line) + "\n" for line in lines)
        self.first_epochs.append(int(lines[0]["epoch"]))
        if stop:
            raise KeyboardInterrupt


def finetune(start: Path, glue: Path, *arguments: str | Path) -> None:
    """The script in this process; ``arguments`` begin with the tasks."""
    options = ["--glue-dir", glue, "--workers", "1", "--autocast", "none"]
    run_script("finetune_glue", start.parent, *arguments, *options)


def records(start: Path, task: str = "RTE") -> list[dict[str, Any]]:
    store = start.parent / "results.jsonl"
    lines = store.read_text().splitlines() if store.exists() else []
    return [record for record in map(json.loads, lines) if record["task"] == task]


def table(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def cell_of(record: dict[str, Any]) -> str:
    return {1e-3: CELLS[0], 1e-2: CELLS[1], 3e-2: STS_CELL}[record["hyper"]["lr"]]


def best_of(start: Path, task: str) -> str:
    """Which run the records say is to be chosen."""
    scores: dict[str, dict[str, float]] = {}
    for record in records(start, task):
        cell = cell_of(record)
        scores.setdefault(cell, {})[f"{cell}/seed{record['seed']}"] = record["metrics"]["score"]
    best = max(scores.values(), key=lambda seeds: statistics.median(seeds.values()))
    return max(best, key=best.__getitem__)
