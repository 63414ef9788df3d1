"""Corrupting a batch for several objectives at once, so that none tells anything of another's targets."""

from collections.abc import Collection, Iterable

from hmtl_plugin.corruption import contract
from hmtl_plugin.corruption.base import Corruption
from hmtl_plugin.corruption.batch import FlatBatch
from hmtl_plugin.corruption.random import BatchRandom


def corrupt_batch(
    objectives: Iterable[Corruption],
    batch: FlatBatch,
    random: BatchRandom,
    still: Collection[str] = (),
    checked: bool | None = None,
) -> None:
    """Reserve, then corrupt, by rank. So what one reserves does not depend on what another changes, and tells nothing
    about it.

    Args:
        still: names of those that may change no token, because earlier samples showed none that they did.
        checked: whether every corruption is checked (`contract`); None: where the environment has `contract.SWITCH`.

    Raises:
        UserError: naming the objective, if one does what it may not, see `contract`.
    """
    ordered = sorted(objectives, key=lambda objective: objective.rank)
    if checked is None:
        checked = contract.asked_for()
    for objective in ordered:
        reserved_N = objective.reserve(batch, random)
        if reserved_N is not None:
            if checked:
                contract.check_reserved(objective, batch, reserved_N)
            batch.reserved[objective.name] = reserved_N
    for number, objective in enumerate(ordered):
        if checked or objective.name in still:
            before = [other.name for other in ordered[:number]]
            contract.checked_corruption(objective, batch, random, before, objective.name in still)
        else:
            objective.corrupt(batch, random)
