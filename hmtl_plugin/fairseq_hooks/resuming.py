"""May a training go on from this checkpoint, and on as many threads as before?

What fairseq stores with a checkpoint and, when it trains on, does not compare.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from hmtl_plugin.checkpoints import plain_config
from hmtl_plugin.errors import UserError
from hmtl_plugin.files.checkpoint_file import read_checkpoint
from hmtl_plugin.hierarchy import Hierarchy
from hmtl_plugin.models.config import EncoderConfig
from hmtl_plugin.models.state import RECORD_KEY, decode_record
from hmtl_plugin.parallel import cpu_count

logger = logging.getLogger(__name__)
CHOSEN = {"HMTL_WAITING": "busy, fewer threads"}
"""In the environment where ``OMP_NUM_THREADS`` is not the user's, but of scripts/openmp_waiting.py."""
_BATCHES = (
    ("--max-tokens", "dataset", "max_tokens"),
    ("--batch-size", "dataset", "batch_size"),
    ("processes", "distributed_training", "distributed_world_size"),
)
"""What says where batches end."""
_FRESH = "to start from its weights only, add --reset-optimizer --reset-lr-scheduler --reset-dataloader --reset-meters"


def check_checkpoint(trainer: Any, path: str, reset_optimizer: bool) -> None:
    """Refuse a checkpoint of another dictionary, and with the state of its optimizer one of another optimizer or other
    objectives. What goes on with that state does so on as many threads, `keep_threads`.

    Args:
        trainer: fairseq's, of a task of this plugin.
        reset_optimizer: whether the optimizer's state is left behind.

    Raises:
        UserError: naming what differs.
    """
    if not os.path.isfile(path):
        return
    state = read_checkpoint(path)
    trainer.task.load_state_dict(state.get("task_state") or {})
    if reset_optimizer or state.get("last_optimizer_state") is None:
        return
    theirs, ours = state["optimizer_history"][-1].get("optimizer_name"), type(trainer.optimizer).__name__
    if theirs != ours:
        raise UserError(
            f"{path}: was trained with the optimizer {theirs}, this is {ours}: train on with the options that it was trained with, or {_FRESH}"
        )
    config = plain_config(state, Path(path))
    _say_other_options(config["task"], trainer.task)
    _say_other_batches(state, config, trainer.cfg)
    model = trainer.get_model()
    if RECORD_KEY in state["model"]:  # parts of equal shape would inherit each other's moments
        stored = decode_record(state["model"][RECORD_KEY]).get("objectives")
        options = config["model"]
        hierarchy = Hierarchy.parse(options["hierarchy"], options["transfer"]) if stored else None
        theirs, ours = (_parts(each, model.config) for each in (hierarchy, model.hierarchy))
        if theirs != ours:
            raise UserError(
                f"{path}: its optimizer's state is of {theirs}, this model has {ours}: give the --hierarchy and --transfer "
                f"that it was trained with, or {_FRESH}"
            )
    if not trainer.cuda:
        keep_threads(state.get("task_state") or {}, os.environ)


def _say_other_options(theirs: Mapping[str, Any], task: Any) -> None:
    """In one line, which options of objectives go on with another value: what they ask for is another thing then."""
    names = [each.name for objective in getattr(task, "objectives", {}).values() for each in fields(objective.Options)]
    changed = [
        f"--{name.replace('_', '-')} {getattr(task.cfg, name)} (so far {theirs[name]})"
        for name in names
        if name in theirs and str(theirs[name]) != str(getattr(task.cfg, name))
    ]
    if changed:
        logger.info(f"goes on with {', '.join(changed)}: values before and after do not compare")


def _say_other_batches(state: Mapping[str, Any], config: Mapping[str, Any], ours: Any) -> None:
    """In one line, that a place in the middle of an epoch is another one, as fairseq counts it in batches; where the
    epoch has no such place any more it refuses to go on.
    """
    place = ((state.get("extra_state") or {}).get("train_iterator") or {}).get("iterations_in_epoch", 0)
    if not place or ours.checkpoint.reset_dataloader:
        return
    changed = [
        f"{flag} {now} (so far {before})"
        for flag, group, name in _BATCHES
        if (before := (config.get(group) or {}).get(name)) != (now := getattr(getattr(ours, group), name))
    ]
    if changed:
        logger.info(
            f"goes on after batch {place} of the epoch with {', '.join(changed)}: some of its samples are seen twice or "
            "not at all; --reset-dataloader goes on with the first epoch instead"
        )


def keep_threads(task_state: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    """Give torch the number of threads that the run has had so far, so that it goes on to the same bits.

    The number of this process depends on the machine, and on its load where scripts/openmp_waiting.py has looked at
    it. A user's own ``OMP_NUM_THREADS`` stays, and nobody gets more threads than there are processors. One line of the
    log says what came of a number that is another.

    Args:
        task_state: of the checkpoint; older ones do not have the number.
        environ: the environment.
    """
    before, now = task_state.get("threads"), torch.get_num_threads()
    if before in (None, now):
        return
    chosen = all(environ.get(name) == value for name, value in CHOSEN.items())
    if (environ.get("OMP_NUM_THREADS") and not chosen) or before > cpu_count():
        logger.info(f"this run has had {before} threads so far and goes on with {now}: last bits may differ")
        return
    torch.set_num_threads(before)
    logger.info(
        f"this run goes on with {before} threads, as before, for the same bits; for another number set OMP_NUM_THREADS"
    )


def _parts(hierarchy: Hierarchy | None, config: EncoderConfig) -> str:
    """What a hierarchy adds to an encoder: heads, transfers, and with pre-norm layers the norms where it is read."""
    if hierarchy is None:
        return "no objectives"
    edges = [f"{edge.source}>{edge.target}:{edge.operator}" for edge in hierarchy.transfers]
    mixes = hierarchy.mixes(config.layers)
    plain = {layer for name, layer in hierarchy.layers(config.layers).items() if name not in mixes}
    norms = [f"norm@{layer}" for layer in sorted(plain)] if config.normalize_before else []
    bounds = [f"{name}@mix:{layers[0]}-{layers[-1]}" for name, layers in mixes.items()]
    return " ".join([*hierarchy.objectives, *edges, *norms, *bounds])
