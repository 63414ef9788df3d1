"""Grids of hyperparameters: ``lr=1e-4,3e-4 batch-size=16,32 epochs=3`` is every combination of the values."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hmtl_plugin.errors import UserError
from hmtl_plugin.models.finetuned_heads import head_poolings
from hmtl_plugin.models.pooling import canonical

Cell = Mapping[str, str]  # one combination, in the order of its names


@dataclass(frozen=True)
class GridOption:
    """What a name in a grid sets.

    Attributes:
        flag: of `fairseq-train`.
        kind: reads a value; raises ValueError for what is none.
        positive: whether it must be above 0.
        choices: its values, if these are names; none of numbers.
    """

    flag: str
    kind: Callable[[str], float | str]
    positive: bool = True
    choices: Callable[[], Iterable[str]] = tuple


def _finite(value: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _pooling(value: str) -> str:
    if value not in head_poolings():
        raise ValueError
    return canonical(value)


OPTIONS: Mapping[str, GridOption] = {
    "lr": GridOption("--lr", _finite),
    "batch-size": GridOption("--batch-size", int),
    "epochs": GridOption("--max-epoch", int),
    "weight-decay": GridOption("--weight-decay", _finite, positive=False),
    "dropout": GridOption("--dropout", _finite, positive=False),
    "attention-dropout": GridOption("--attention-dropout", _finite, positive=False),
    "head-dropout": GridOption("--head-dropout", _finite, positive=False),
    "head-layer": GridOption("--head-layer", int, positive=False),
    "head-pooling": GridOption("--head-pooling", _pooling, choices=head_poolings),
    "layer-decay": GridOption("--layer-decay", _finite),
    "freeze-up-to": GridOption("--freeze-up-to", int, positive=False),
    "reinit-layers": GridOption("--reinit-layers", int, positive=False),
}


def parse_grid(texts: Sequence[str], defaults: Mapping[str, str], names: Sequence[str] = tuple(OPTIONS)) -> list[Cell]:
    """All combinations of the values given, the defaults standing where a name is not.

    Args:
        texts: ``name=value,value`` each.
        names: those that are known here.

    Raises:
        UserError: for an unknown name, a value that is none, or a name given twice.
    """
    values: dict[str, list[str]] = {name: [value] for name, value in defaults.items()}
    given: set[str] = set()
    for text in texts:
        name, equals, listed = text.partition("=")
        if name not in names:
            raise UserError(f"--grid {text}: '{name}' is no option of a grid: use {', '.join(names)}")
        if name in given:
            raise UserError(f"--grid {text}: '{name}' is given twice: write {name}=VALUE,VALUE")
        given.add(name)
        values[name] = [_checked(name, value.strip(), text) for value in listed.split(",")] if equals else []
        if not values[name]:
            raise UserError(f"--grid {text}: write {name}=VALUE or {name}=VALUE,VALUE")
        if len(set(map(OPTIONS[name].kind, values[name]))) < len(values[name]):
            raise UserError(f"--grid {text}: the same value twice: each would be trained twice")
    return [dict(zip(values, row, strict=True)) for row in itertools.product(*values.values())]


def _checked(name: str, value: str, text: str) -> str:
    option = OPTIONS[name]
    try:
        number = option.kind(value)
    except ValueError:
        known = f": use {', '.join(choices)}" if (choices := tuple(option.choices())) else ""
        raise UserError(f"--grid {text}: '{value}' is no value of {name}{known}") from None
    if not value or (option.positive and not isinstance(number, str) and number <= 0):
        raise UserError(f"--grid {text}: {name} must be above 0, not '{value}'")
    return value


def cell_options(cell: Cell) -> list[str]:
    """The cell as options of `fairseq-train`."""
    return [part for name, value in cell.items() for part in (OPTIONS[name].flag, value)]


def cell_name(cell: Cell) -> str:
    """The cell as the name of a folder."""
    return ",".join(f"{name}={value}" for name, value in cell.items())


def parse_seeds(text: str) -> list[int]:
    """``1,2,3`` or ``3`` as numbers; `UserError` for what is none or comes twice."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(f"--seeds {text}: write different whole numbers, as in 1,2,3")
    return seeds
