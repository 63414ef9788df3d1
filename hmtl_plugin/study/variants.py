"""The table of variants: what a study compares, a line each (``recipes/variants.tsv``)."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hmtl_plugin.criterions.weighting import WEIGHTINGS
from hmtl_plugin.errors import UserError
from hmtl_plugin.hierarchy import Hierarchy, HierarchyError
from hmtl_plugin.models.transfer import OPERATORS
from hmtl_plugin.objectives.base import known_objectives

COLUMNS = ("name", "hierarchy", "transfer", "weighting", "options", "against", "why")
_NONE = "-"
_LAYERS = 12  # any depth that has a layer for every percentage


@dataclass(frozen=True)
class Variant:
    """One way to pre-train.

    Attributes:
        hierarchy: layers in percent of the depth; empty: no pre-training, weights as initialised.
        transfer, weighting: as on the command line of `fairseq-train`.
        options: what else it is told of this variant alone.
        why: what it is compared for, one line.
        against: the variant that lacks just what this one adds, with which it is compared beside flat BERT; empty: flat
            BERT alone.
        checkpoint: of a model that others published; it is fine-tuned and probed, not pre-trained.
    """

    name: str
    hierarchy: str
    transfer: str
    weighting: str
    options: tuple[str, ...]
    why: str
    checkpoint: str = ""
    against: str = ""

    @property
    def trained(self) -> bool:
        """Whether the study pre-trains it."""
        return bool(self.hierarchy)


def reference(name: str, checkpoint: str) -> Variant:
    """A published checkpoint as a row of the study; `UserError` for a name that no file can have."""
    _check_name(name, f"--reference {name}={checkpoint}")
    return Variant(name, "", "", "", (), "published checkpoint, pre-trained elsewhere", checkpoint)


def read_variants(path: Path) -> dict[str, Variant]:
    """All lines of the table, by name, in its order.

    Raises:
        UserError: naming the line, for a table that cannot be read or a hierarchy that cannot be.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: name a table of variants") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}: convert the file") from None
    if not lines or tuple(lines[0].split("\t")) != COLUMNS:
        raise UserError(f"{path}, line 1: the columns must be {', '.join(COLUMNS)}, separated by tabs")
    variants: dict[str, Variant] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip() or line.startswith("#"):
            continue
        where = f"{path}, line {number}"
        variant = _variant(line.split("\t"), where)
        if variant.name in variants:
            raise UserError(f"{where}: '{variant.name}' comes twice: rename one")
        variants[variant.name] = variant
    for variant in variants.values():
        if variant.against and variant.against not in variants:
            raise UserError(
                f"{path}: '{variant.name}' stands against '{variant.against}', which the table does not have"
            )
    return variants


def choose(variants: dict[str, Variant], names: Sequence[str], where: str) -> list[Variant]:
    """The named ones; `UserError` for a name that is not in the table."""
    unknown = [name for name in names if name not in variants]
    if unknown:
        raise UserError(f"{where}: no variant '{unknown[0]}': use {', '.join(variants)}")
    return [variants[name] for name in names]


def _check_name(name: str, where: str) -> None:
    if not name or not all(c.isalnum() or c in "-_." for c in name):
        raise UserError(f"{where}: '{name}' is no name: use letters, digits, -, _ and .")


def _variant(cells: Sequence[str], where: str) -> Variant:
    if len(cells) != len(COLUMNS):
        raise UserError(f"{where}: {len(cells)} columns, not {len(COLUMNS)}: write {_NONE} for nothing")
    name, hierarchy, transfer, weighting, options, against, why = (
        "" if cell.strip() == _NONE else cell.strip() for cell in cells
    )
    _check_name(name, where)
    if hierarchy:
        try:
            Hierarchy.parse(hierarchy, transfer).validate(_LAYERS, known_objectives(), OPERATORS)
        except HierarchyError as error:
            raise UserError(f"{where}: {error}") from None
        if weighting not in WEIGHTINGS:
            raise UserError(f"{where}: weighting '{weighting}': use {' or '.join(WEIGHTINGS)}")
    try:
        return Variant(name, hierarchy, transfer, weighting, tuple(shlex.split(options)), why, against=against)
    except ValueError as error:
        raise UserError(f"{where}: options {options}: {error}") from None
