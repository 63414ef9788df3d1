"""Where a fine-tuned checkpoint comes from, as the folders of its experiment tell."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hmtl_plugin.checkpoints import LoadedCheckpoint
from hmtl_plugin.finetuning.experiment import MODEL, OUTCOME, PUBLISHED
from hmtl_plugin.finetuning.grid import cell_name
from hmtl_plugin.results import read_results

RESULTS = "results.jsonl"
_LEVELS = 5  # RUN/glue/TASK/CELL/SEED/model.pt


@dataclass(frozen=True)
class Provenance:
    """What is known; empty where nothing is.

    Attributes:
        checkpoint, data: fingerprints of the checkpoint it began with and of the fine-tuning data with its options.
        cell: hyperparameters. metrics: on the validation set.
        hierarchy, transfer: of pre-training.
    """

    checkpoint: str = ""
    data: str = ""
    cell: dict[str, str] = field(default_factory=dict)
    seed: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    hierarchy: str = ""
    transfer: str = ""


def find_provenance(loaded: LoadedCheckpoint) -> Provenance:
    """Of a checkpoint in the folder of its experiment, or of one of its runs."""
    folder = loaded.path.parent
    identity = _read(folder / PUBLISHED)
    if identity:
        run = identity.pop("run", f"{cell_name(identity.get('cell') or {})}/seed{identity.get('seed')}")
        identity.pop("score", None)  # not in the run's own identity, as in earlier versions neither of the two
        outcome = _read(folder / str(run) / OUTCOME)
    else:
        outcome = _read(folder / OUTCOME)
        identity = outcome.get("identity") or {}
    if not loaded.head or loaded.path.name != MODEL or not identity or outcome.get("identity", identity) != identity:
        return Provenance()
    checkpoint = str(identity.get("checkpoint", ""))
    hierarchy, transfer = _pretraining(loaded.path, checkpoint)
    return Provenance(
        checkpoint,
        str(identity.get("data", "")),
        identity.get("cell") or {},
        identity.get("seed"),
        outcome.get("metrics") or {},
        hierarchy,
        transfer,
    )


def _pretraining(path: Path, checkpoint: str) -> tuple[str, str]:
    """Hierarchy and transfer, from the records of what was fine-tuned from the same checkpoint."""
    for folder in list(path.absolute().parents)[:_LEVELS]:
        for line in read_results(folder / RESULTS):
            if line.get("checkpoint_sha256") == checkpoint and line.get("hierarchy"):
                return str(line["hierarchy"]), str(line.get("transfer") or "")
    return "", ""


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
