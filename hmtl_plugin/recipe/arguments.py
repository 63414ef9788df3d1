"""The arguments with which a recipe calls ``fairseq-train``: of the table, of the run that goes on, of the user."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hmtl_plugin.errors import UserError
from hmtl_plugin.recipe.begun import Begun, read_begun
from hmtl_plugin.recipe.given import OPTIONS_OF, Given
from hmtl_plugin.recipe.options import (
    ARCHITECTURE,
    OPTIMIZER,
    SCHEDULER,
    Options,
    as_arguments,
    find_options,
    with_optimizer,
    without_schedule,
)
from hmtl_plugin.recipe.table import Table, check_choices, part_of

LAST = "checkpoint_last.pt"
LENGTH, WARMUP, TOTAL = "max-update", "warmup-updates", "total-num-update"
_SHORT = 20000  # updates of a run that is validated and saved 20 times
_INTERVAL = 1000  # updates between two times of a longer one


@dataclass(frozen=True)
class Arguments:
    """For ``fairseq-train``.

    Attributes:
        arguments: without the program, the data and ``--save-dir``.
        note: a line for the user where a run's own options take the place of the table's, else empty.
    """

    arguments: list[str]
    note: str


def recipe_arguments(size: str, run: Path, arguments: Sequence[str], table: Table) -> Arguments:
    """The options of a size for a run, those of its checkpoint where it has been begun, and the user's, which win.

    The table's schedule follows ``--max-update``; with an ``--lr-scheduler`` in ``arguments`` it is left out.
    Validation and saving intervals are counted in updates, because a small corpus has hundreds of epochs. A model given
    by ``--finetune-from-model`` keeps its architecture; its position table is resized if ``--max-positions`` is given.

    Args:
        run: the folder for checkpoints; ``--save-dir`` in ``arguments`` wins.
        arguments: options of ``fairseq-train``, ``--no-NAME`` for a flag of the table, ``--options-of RUN``.

    Raises:
        UserError: for a size that is not in the table, a wrong ``--max-update``, a checkpoint that cannot be read, or a
            value that is not among an option's choices.
    """
    part = part_of(table, size, "SIZE")
    given = Given(arguments, [name for name, value in part.items() if isinstance(value, bool)])
    _check_names(given, part)
    updates = given.updates()
    options = _scheduled(part, updates or part[LENGTH])
    begun, resize = _begun(Path(given.value("save-dir") or run), given)
    taken = begun.options(options) if begun else {}
    longer = begun and begun.whole and updates not in (None, begun.config["optimization"]["max_update"])
    if longer and SCHEDULER not in taken:
        taken = {name: value for name, value in taken.items() if name not in (LENGTH, WARMUP, TOTAL)}
    options = _together(options, taken, given)
    updates = updates or options[LENGTH]
    interval = max(updates // 20, min(updates, 20)) if 0 < updates <= _SHORT else _INTERVAL
    options |= {"validate-interval-updates": interval, "save-interval-updates": interval, "resize-positions": resize}
    options = {name: value for name, value in options.items() if name not in given}
    note = begun.note({name: taken[name] for name in taken if name in options}) if begun else ""
    return Arguments([*as_arguments(options), *given.arguments], note)


def _check_names(given: Given, part: Options) -> None:
    """Refuse a value that is not among an option's choices; argparse would print 150 lines of usage first."""
    chosen = {name: given.value(name) or "" for name in (OPTIMIZER, SCHEDULER, ARCHITECTURE) if name in given}
    check_choices(chosen, lambda name: f"--{name}")
    known = find_options(str(chosen.get(OPTIMIZER, part[OPTIMIZER])), str(chosen.get(SCHEDULER, part[SCHEDULER])))
    for name, option in known.items():
        value = given.value(name)
        if value is not None and option.choices:
            try:
                option.read(value)
            except UserError as error:
                raise UserError(f"--{name}: {error}") from None


def _scheduled(part: Options, updates: int) -> Options:
    """A size's options for so many updates, the warm-up being the same share of them."""
    warmup = part[WARMUP] * updates // part[LENGTH]
    return part | {LENGTH: updates, WARMUP: warmup, TOTAL: updates}


def _together(options: Options, taken: Options, given: Given) -> Options:
    """The defaults and what is taken from a run, fit for the optimizer and the scheduler that the user gives."""
    if OPTIMIZER in taken:
        options = with_optimizer(options, taken[OPTIMIZER])
    if SCHEDULER in taken:
        options = without_schedule(options)
    options = options | taken
    if OPTIMIZER in given:
        options = with_optimizer(options, str(given.value(OPTIMIZER)))
    if SCHEDULER in given:
        options = without_schedule(options)
    return options


def _begun(run: Path, given: Given) -> tuple[Begun | None, bool]:
    """What fairseq will load, as it chooses, or whose options are asked for; and whether positions are to be resized.

    fairseq takes the run's last checkpoint or ``--restore-file``, and where there is none ``--finetune-from-model``.
    """
    restored = given.value("restore-file") or LAST
    file = run / LAST if restored == LAST else Path(restored)
    if file.is_file():
        whole = "reset-optimizer" not in given
        return read_begun(file, str(run if restored == LAST else file), whole), False
    model, other = given.value("finetune-from-model"), given.value(OPTIONS_OF)
    start = read_begun(Path(model), model, False) if model else None
    return read_begun(Path(other), other, True) if other else start, start is not None and _other_length(start, given)


def _other_length(start: Begun, given: Given) -> bool:
    """Whether the user asks for another number of positions than the table of a model has that a run starts from."""
    rows, positions = start.position_rows, given.value("positions")
    return rows is not None and given.value("max-positions") not in (None, str(rows)) and positions in (None, "learned")
