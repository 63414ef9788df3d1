"""May a training go on from this checkpoint? What fairseq stores with one and, when it trains on, does not compare."""

import os
from typing import Any

import torch

from hmtl_plugin.compat import load_explained
from hmtl_plugin.errors import UserError
from hmtl_plugin.models.state import RECORD_KEY, decode_record

_FRESH = "to start from its weights only, add --reset-optimizer --reset-lr-scheduler --reset-dataloader --reset-meters"


def check_checkpoint(trainer: Any, path: str, reset_optimizer: bool) -> None:
    """Refuse a checkpoint of another dictionary, and with the state of its optimizer one of another optimizer or other objectives.

    Args:
        trainer: fairseq's, of a task of this plugin.
        reset_optimizer: whether the optimizer's state is left behind.

    Raises:
        UserError: naming what differs.
    """
    if not os.path.isfile(path):
        return
    state = load_explained(path, lambda: torch.load(path, map_location="cpu", weights_only=True, mmap=True))
    trainer.task.load_state_dict(state.get("task_state") or {})
    if reset_optimizer or not state.get("optimizer_history"):
        return
    theirs, ours = state["optimizer_history"][-1].get("optimizer_name"), type(trainer.optimizer).__name__
    if theirs != ours:
        raise UserError(
            f"{path}: was trained with the optimizer {theirs}, this is {ours}: give that --optimizer, or {_FRESH}"
        )
    if RECORD_KEY in state["model"]:
        stored = tuple(decode_record(state["model"][RECORD_KEY]).get("objectives", ()))
        if stored != trainer.get_model().objective_names:  # heads of equal shape would inherit each other's moments
            raise UserError(
                f"{path}: its optimizer's state is of the objectives {', '.join(stored) or 'of another task'}: {_FRESH}"
            )
