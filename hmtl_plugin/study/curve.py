"""From the log of a pre-training (`--log-format json`): its learning curve and its speed."""

import json
import re
import statistics
from pathlib import Path
from typing import Any

_PARAMETERS = re.compile(r"num\. shared model params: ([\d,]+)")
_KEPT = re.compile(r"^valid_(?!best_)(\w+_(?:loss|accuracy|auc))$")


def learning_curve(log: Path) -> dict[str, list[float]]:
    """Values on the validation split by update: ``updates``, ``mlm_loss`` (nats), ``nsp_accuracy`` (percent) ...

    What a run that was killed logged again after it resumed counts once.
    """
    points: dict[int, dict[str, float]] = {}
    for entry in _entries(log):
        if "valid_num_updates" in entry:
            values = {found[1]: float(value) for key, value in entry.items() if (found := _KEPT.match(key))}
            points[int(entry["valid_num_updates"])] = values
    updates = sorted(points)
    names = dict.fromkeys(name for update in updates for name in points[update])
    return {"updates": [float(u) for u in updates]} | {
        name: [points[update].get(name, float("nan")) for update in updates] for name in names
    }


def cost(log: Path) -> dict[str, float | None]:
    """Parameters (heads included), tokens a second (median of the log's intervals), seconds of training, resumed parts
    included.
    """
    rates = [float(entry["wps"]) for entry in _entries(log) if "wps" in entry and float(entry["wps"]) > 0]
    # of an epoch's line "train_wall" is the whole process's time: it has the epoch's under another name
    walls = [float(e["train_wall"]) for e in _entries(log) if "train_wall" in e and "train_train_wall" not in e]
    found = _PARAMETERS.search(log.read_text(encoding="utf-8", errors="replace"))
    return {
        "parameters": float(found[1].replace(",", "")) if found else None,
        "tokens_per_second": statistics.median(rates) if rates else None,
        "training_seconds": sum(walls) if walls else None,
    }


def _entries(log: Path) -> list[dict[str, Any]]:
    """The log's JSON; a line of it begins with time, level and name."""
    entries = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        begin = line.find("{")
        try:
            entry = json.loads(line[begin:]) if begin >= 0 else None
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries
