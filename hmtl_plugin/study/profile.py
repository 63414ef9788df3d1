"""Profiles: how large a study is and what it runs, a TOML file each (``recipes/profiles``).

Read by hand and not by omegaconf, which takes '10' for 10, resolves ``${...}`` and names no item of a list in errors.
"""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.toml_file import read_toml
from hmtl_plugin.finetuning.grid import parse_grid
from hmtl_plugin.recipe.options import OPTIMIZER, Options, plain, with_optimizer, without_schedule
from hmtl_plugin.recipe.table import check_choices, part_of, read_options, read_table

# options of fairseq-train that the study gives itself, and what decides them
_STUDYS_OWN = {
    "autocast": "'autocast' of the profile",
    "num-workers": "'workers' of the profile",
    "seed": "'seeds' of [[plan]]",
    "hierarchy": "the variant (recipes/variants.tsv)",
    "transfer": "the variant (recipes/variants.tsv)",
    "task-weighting": "the variant (recipes/variants.tsv)",
    "max-update": "'updates' of [pretraining]",
    "total-num-update": "'updates' of [pretraining]",
    "warmup-updates": "'warmup' of [pretraining]",
    "update-freq": "'batches' of [pretraining]",
    "lr-scheduler": "the study (polynomial_decay for all)",
}
DEFAULT_OPTIMIZER = "hmtl_adamw"
"""Of profiles that name neither one nor a recipe."""
_SCHEDULER_OF_ALL = "polynomial_decay"
_AT_LEAST_ONE = ("updates", "batches", "curve_points", "valid_samples", "seeds", "tokens", "vocab_size")


@dataclass(frozen=True)
class Block:
    """Variants times seeds. Blocks run in the order of the profile, within one all variants of a seed before the next
    seed.
    """

    variants: list[str]
    seeds: list[int]


@dataclass(frozen=True)
class Text:
    """Pre-training text and its tokenizer.

    Attributes:
        exclude_min_words: evaluation sentences shorter than this do not exclude a document.
    """

    vocab_size: int
    valid_fraction: float = 0.05
    exclude_min_words: int = 4


@dataclass(frozen=True)
class Pretraining:
    """One budget for all variants.

    Attributes:
        updates: of `fairseq-train`; warmup: those in which the learning rate rises.
        batches: of ``max-tokens`` in an update, on however many devices.
        curve_points: validations on the way.
        valid_samples: of each validation view, in the evaluation at the end.
        options: of `fairseq-train`, without dashes; true for a flag.
        recipe: a part of ``recipes/defaults.toml`` whose options hold where ``options`` has no others; `read_profile`
            puts them all into ``options``.
    """

    updates: int
    warmup: int
    options: Options
    batches: int = 1
    curve_points: int = 12
    valid_samples: int = 1000
    recipe: str = ""


@dataclass(frozen=True)
class Finetuning:
    """One task.

    Attributes:
        task: RTE, MNLI, SNLI or SQuAD.
        seeds: trainings for each pre-training seed, averaged before anything is compared.
        grid: as for ``finetune_glue.py --grid``, one value each.
        tokens: longest sequence. train_rows, valid_rows: at most (questions of SQuAD); 0: all.
        options: more, for ``finetune_glue.py`` or ``finetune_squad.py``.
        optional: left out without an error where its files are missing.
    """

    task: str
    grid: list[str]
    seeds: int = 1
    tokens: int = 128
    train_rows: int = 0
    valid_rows: int = 0
    options: list[str] = field(default_factory=list)
    optional: bool = False


@dataclass(frozen=True)
class Probing:
    """Probes of every layer.

    Attributes:
        rows: at most, of tr, va and te; 0: all.
    """

    pooling: str = "mean"
    probe: str = "logistic"
    rows: list[int] = field(default_factory=lambda: [0, 0, 0])


@dataclass(frozen=True)
class Profile:
    """A study's size.

    Attributes:
        plan: what runs, in this order.
        jobs: runs side by side on a CPU; 0: one a core.
        autocast: precision of forward passes, see `precision`; probing features are fp32.
        workers: processes that make batches, for each training.
        toy: without --data, small made-up tasks are used.
        keep_checkpoints: keep every pre-trained model.
        differs: what differs from the paper's setting, beyond what differs in every profile.
    """

    name: str
    why: str
    plan: list[Block]
    text: Text
    pretraining: Pretraining
    finetuning: list[Finetuning]
    probing: Probing
    jobs: int = 0
    autocast: str = "auto"
    workers: int = 0
    toy: bool = False
    keep_checkpoints: bool = True
    differs: str = ""


def read_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        UserError: naming the file and the entry, for one that is unknown, missing or of the wrong type.
    """
    content = read_toml(path, "name a profile")
    profile: Profile = _build(Profile, {"name": path.stem, **content}, str(path), "")
    options = _all_options(profile.pretraining, path)
    profile = dataclasses.replace(profile, pretraining=dataclasses.replace(profile.pretraining, options=options))
    if profile.probing.rows != [0, 0, 0] and (len(profile.probing.rows) != 3 or min(profile.probing.rows) < 1):
        raise UserError(f"{path}: probing.rows: write [TRAIN, VALID, TEST]")
    if "lr" not in profile.pretraining.options:
        raise UserError(f"{path}: pretraining.options.lr: missing")
    for number, task in enumerate(profile.finetuning):
        several = [text for text in task.grid if "," in text]
        if several:  # results of several cells would be averaged
            raise UserError(f"{path}: finetuning[{number}].grid: '{several[0]}': give one value")
        try:
            parse_grid(task.grid, {})
        except UserError as error:  # now, and not after pre-training
            raise UserError(f"{path}: finetuning[{number}].grid: {str(error).removeprefix('--grid ')}") from None
    tasks = [f.task for f in profile.finetuning]
    if len(set(tasks)) < len(tasks):
        twice = next(task for task in tasks if tasks.count(task) > 1)
        raise UserError(f"{path}: finetuning: '{twice}' comes twice: keep one")
    return profile


def _all_options(settings: Pretraining, path: Path) -> Options:
    """The profile's options over those of its recipe, if it has one, all checked: now, and not after preparing data."""

    def where(name: str) -> str:
        return f"{path}: pretraining.options.{name}"

    for name in settings.options:
        if name in _STUDYS_OWN:
            raise UserError(f"{where(name)}: {_STUDYS_OWN[name]} decides that: take it out")
    check_choices(settings.options, where)
    if not settings.recipe:
        read_options({OPTIMIZER: DEFAULT_OPTIMIZER} | settings.options, _SCHEDULER_OF_ALL, where)
        return settings.options
    recipe = without_schedule(part_of(read_table(), settings.recipe, f"{path}: pretraining.recipe"))
    recipe = {name: plain(value) for name, value in recipe.items() if name not in _STUDYS_OWN}
    if OPTIMIZER in settings.options:
        recipe = with_optimizer(recipe, settings.options[OPTIMIZER])
    read = read_options(recipe | settings.options, _SCHEDULER_OF_ALL, where)
    return {name: plain(value) for name, value in read.items()}


def _build(kind: Any, table: Mapping[str, Any], file: str, where: str) -> Any:
    """A dataclass from a table, its fields checked against their types."""
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name in table:
        if name not in fields:
            raise UserError(f"{file}: {where}{name}: unknown; use {', '.join(fields)}")
    for name, f in fields.items():
        if name not in table and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise UserError(f"{file}: {where}{name}: missing")
    return kind(**{name: _value(hints[name], value, file, f"{where}{name}") for name, value in table.items()})


def _value(hint: Any, value: Any, file: str, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise UserError(f"{file}: {where}: must be a table")
        return _build(hint, value, file, f"{where}.")
    if typing.get_origin(hint) is list:
        (item,) = typing.get_args(hint)
        if not isinstance(value, list) or not value:
            raise UserError(f"{file}: {where}: must be a list with something in it")
        return [_value(item, one, file, f"{where}[{number}]") for number, one in enumerate(value)]
    expected = dict if typing.get_origin(hint) is dict else hint
    number = expected is float and isinstance(value, int) and not isinstance(value, bool)
    if not number and (not isinstance(value, expected) or (expected is int and isinstance(value, bool))):
        raise UserError(f"{file}: {where}: {value!r} is no {expected.__name__}")
    least = 1 if where.rpartition(".")[2] in _AT_LEAST_ONE else 0
    if expected is int and value < least:
        raise UserError(f"{file}: {where}: {value} is too small: at least {least}")
    return value
