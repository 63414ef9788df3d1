"""Does an objective's corruption keep to what all others rely on? Checked on samples before a validation, and under
tests.

Numbers of a validation compare across hierarchies, and targets of one objective tell nothing of another's, only as long
as every corruption leaves alone what is not its own.
"""

import logging
import os
from collections.abc import Collection
from typing import Any

import numpy as np

from hmtl_plugin.corruption.base import Corruption
from hmtl_plugin.corruption.batch import IGNORE, FlatBatch
from hmtl_plugin.corruption.random import BatchRandom
from hmtl_plugin.errors import UserError

logger = logging.getLogger(__name__)

SWITCH = "HMTL_CHECK_OBJECTIVES"
"""Of the environment: with it every corruption is checked, in training too."""


def asked_for() -> bool:
    """Whether the environment has the switch."""
    return SWITCH in os.environ


def check_reserved(objective: Corruption, batch: FlatBatch, reserved_N: Any) -> None:
    """Raise `UserError` if that is no flag for each token."""
    kind, shape = getattr(reserved_N, "dtype", type(reserved_N).__name__), getattr(reserved_N, "shape", ())
    if kind != np.dtype(bool) or shape != batch.tokens_N.shape:
        raise UserError(
            f"objective '{objective.name}': reserve returned {kind} of shape {shape}: "
            f"return a bool for each of the {len(batch.tokens_N)} tokens, or None"
        )


def checked_corruption(
    objective: Corruption, batch: FlatBatch, random: BatchRandom, before_it: Collection[str], still: bool
) -> None:
    """Corrupt, and look at what has changed.

    Args:
        before_it: names of those of lower rank: what both have reserved is the later one's.
        still: no token may change.

    Raises:
        UserError: one line that names the objective, the place and what is wrong with it.
    """
    before, offsets = batch.tokens_N.copy(), batch.offsets.copy()
    known = {name: labels.copy() for name, labels in batch.targets.items()}
    objective.corrupt(batch, random)
    wrong = _wrong(objective, batch, before, offsets, before_it) or _wrong_targets(objective, batch, known)
    if still and not wrong and not np.array_equal(batch.tokens_N, before):
        place = _place(batch, np.flatnonzero(batch.tokens_N != before)[0])
        wrong = (
            f"changed {place}, and none of the first samples of this split, so that it shares their validation view with "
            "others: change tokens more often, or none"
        )
    if wrong:
        raise UserError(f"objective '{objective.name}': corrupt {wrong}")


def check_repeats(objective: Corruption, batch: FlatBatch, again: FlatBatch) -> None:
    """Raise `UserError` if an objective has made two things of the same samples; warn if it has asked nothing of them."""
    same = np.array_equal(batch.tokens_N, again.tokens_N)
    for name in objective.target_names:
        one, other = batch.targets.get(name), again.targets.get(name)
        same = same and (one is other or np.array_equal(one, other, equal_nan=objective.numbers))  # type: ignore[arg-type]
        if one is not None and not ((one == one) if objective.numbers else (one != IGNORE)).any():
            logger.warning(
                f"objective '{objective.name}': none of {len(batch.lengths_B)} samples has a label of {name}"
            )
    if not same:
        raise UserError(
            f"objective '{objective.name}': corrupt gives other tokens or labels for the same samples a second time: take "
            "all draws from its argument random, which depends on the sample alone"
        )


def _wrong(
    objective: Corruption, batch: FlatBatch, before: np.ndarray, offsets: np.ndarray, before_it: Collection[str]
) -> str:
    vocabulary = batch.vocabulary
    if not np.array_equal(batch.offsets, offsets) or len(batch.tokens_N) != len(before):
        return "changed the length of samples: they are to keep it"
    changed_N = batch.tokens_N != before
    at = np.flatnonzero(changed_N & vocabulary.special_V.take(before))
    if len(at):
        return f"changed a special token, {_place(batch, at[0])}: leave those of batch.vocabulary.special_V as they are"
    new = batch.tokens_N[changed_N]
    ends = (vocabulary.pad, vocabulary.bos, vocabulary.eos)
    wrong = np.flatnonzero((new < 0) | (new >= vocabulary.size) | np.isin(new, ends))
    if len(wrong):
        place = _place(batch, np.flatnonzero(changed_N)[wrong[0]])
        return f"wrote the id {new[wrong[0]]}, {place}: write ids of words (batch.vocabulary.replacements) or the mask"
    own_N = batch.reserved.get(objective.name, np.zeros(len(before), dtype=bool))
    for name, reserved_N in batch.reserved.items():
        at = np.flatnonzero(changed_N & reserved_N & ~own_N if name in before_it else changed_N & reserved_N)
        if name != objective.name and len(at):
            return f"changed a token that {name} has reserved, {_place(batch, at[0])}: leave those of batch.reserved"
    return ""


def _wrong_targets(objective: Corruption, batch: FlatBatch, known: dict[str, np.ndarray]) -> str:
    for name, labels in known.items():
        if name not in batch.targets or not np.array_equal(
            batch.targets[name], labels, equal_nan=labels.dtype.kind == "f"
        ):
            return f"changed the target {name}, which is not its own"
    written = [name for name in objective.target_names if name in batch.targets]
    if not written and objective.pairing is None:  # pairs bring theirs along, where the text gives pairs
        return f"wrote no target: write batch.targets['{objective.target_names[0]}']"
    for name, labels in batch.targets.items():
        if name in known and name not in objective.target_names:
            continue
        if not isinstance(labels, np.ndarray) or labels.ndim != 1:
            return f"wrote labels of {name} as {type(labels).__name__}: write a numpy array of one dimension"
        if name not in objective.target_names:
            return f"wrote the target {name}, which is none of its target_names {', '.join(objective.target_names)}"
        sizes = {"token": len(batch.tokens_N), "sentence": len(batch.lengths_B)}
        if len(labels) not in sizes.values():
            return f"wrote {len(labels)} labels of {name}: write one a token, or one a sample"
        if name == objective.target_names[0] and len(labels) != sizes[objective.scope]:
            asked = "token" if objective.scope == "token" else "sample"
            return f"wrote {len(labels)} labels of {name}: it asks of each {asked}, of which there are {sizes[objective.scope]}"
        if (labels.dtype.kind == "f") != objective.numbers:
            kind = "numbers (float), NaN" if objective.numbers else f"classes (whole numbers), {IGNORE}"
            return f"wrote labels of {name} as {labels.dtype}: they are {kind} where there is none"
        if objective.numbers:
            if np.isinf(labels).any():
                return f"wrote an infinite label of {name}: write numbers, NaN where there is none"
            continue
        most = batch.vocabulary.size if objective.num_labels is None else objective.num_labels
        wrong = np.flatnonzero((labels != IGNORE) & ((labels < 0) | (labels >= most)))
        if len(wrong):
            classes = "" if objective.num_labels is None else f"num_labels is {most}, so "
            return (
                f"wrote the label {labels[wrong[0]]} of {name}: {classes}write 0 to {most - 1}, or {IGNORE} where there "
                "is none"
            )
    return ""


def _place(batch: FlatBatch, at: int) -> str:
    return f"token {batch.position_N[at]} of sample {batch.index_B[batch.sample_N[at]]}"
