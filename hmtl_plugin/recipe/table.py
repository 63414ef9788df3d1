"""The table of default options, ``recipes/defaults.toml``: a part that all sizes share and one for each."""

import difflib
from collections.abc import Callable
from pathlib import Path

from fairseq.models import ARCH_MODEL_NAME_REGISTRY

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.toml_file import read_toml
from hmtl_plugin.recipe.options import (
    ARCHITECTURE,
    CHOICES,
    OPTIMIZER,
    SCHEDULER,
    Options,
    find_options,
    with_optimizer,
)

DEFAULTS = Path(__file__).resolve().parents[2] / "recipes" / "defaults.toml"
COMMON = "common"
_NEEDED = (ARCHITECTURE, OPTIMIZER, SCHEDULER, "lr", "max-update", "warmup-updates", "max-tokens", "update-freq")

Table = dict[str, Options]
"""Size -> all its options, those of ``[common]`` among them, as a configuration holds them."""


def read_table(path: Path = DEFAULTS) -> Table:
    """Read and check the table.

    Raises:
        UserError: naming the file and the entry, for one that is unknown or missing, or has a value of the wrong kind.
    """
    content = read_toml(path, "give the table of default options")
    for name, part in content.items():
        if not isinstance(part, dict):
            raise UserError(f"{path}: {name}: stands outside of all parts: put it under [{COMMON}]")
    common = content.pop(COMMON, {})
    if not content:
        raise UserError(f"{path}: holds no size: add a part, as [small]")
    return {size: _part(common, own, size, path) for size, own in content.items()}


def part_of(table: Table, size: str, where: str) -> Options:
    """The options of a size.

    Raises:
        UserError: after ``where``, for one that the table does not have.
    """
    if size not in table:
        *others, last = table
        raise UserError(f"{where} {size}: use {' or '.join(filter(None, (', '.join(others), last)))}")
    return dict(table[size])


def _part(common: Options, own: Options, size: str, path: Path) -> Options:
    check_choices(own, lambda choice: f"{path}: {size}.{choice}")
    check_choices(common, lambda choice: f"{path}: {COMMON}.{choice}")
    if OPTIMIZER in common:
        common = with_optimizer(common, str(own.get(OPTIMIZER, common[OPTIMIZER])))
    merged = common | own
    for name in _NEEDED:
        if name not in merged:
            raise UserError(f"{path}: {size}.{name}: missing")
    return read_options(merged, merged[SCHEDULER], lambda name: f"{path}: {size if name in own else COMMON}.{name}")


def check_choices(options: Options, where: Callable[[str], str]) -> None:
    """Refuse an optimizer, scheduler or architecture that there is not.

    Args:
        where: of an option's name, what a message begins with.

    Raises:
        UserError: naming those that there are.
    """
    for choice, known in {**CHOICES, ARCHITECTURE: ARCH_MODEL_NAME_REGISTRY}.items():
        name = options.get(choice)
        if choice in options and (not isinstance(name, str) or name not in known):
            names = [each for each in known if choice != ARCHITECTURE or each.startswith("hmtl_bert")]
            raise UserError(f"{where(choice)}: {name!r}: use {', '.join(names)}")


def read_options(options: Options, scheduler: str, where: Callable[[str], str]) -> Options:
    """The options as a configuration holds them.

    Args:
        options: an optimizer among them; it, a scheduler and an architecture are checked (`check_choices`).
        where: of an option's name, what a message begins with.

    Raises:
        UserError: for an option that ``fairseq-train`` does not have with this optimizer and scheduler, or a wrong
            value.
    """
    known = find_options(options[OPTIMIZER], scheduler)
    read = {}
    for name, value in options.items():
        if name in CHOICES or name == ARCHITECTURE:
            read[name] = value
            continue
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            what = f"with {OPTIMIZER} {options[OPTIMIZER]} and {SCHEDULER} {scheduler}"
            use = f"use {close[0]}, or " if close else ""
            raise UserError(f"{where(name)}: no option of fairseq-train {what}: {use}take it out")
        try:
            read[name] = known[name].read(value)
        except UserError as error:
            raise UserError(f"{where(name)}: {error}") from None
    return read
