"""Options of ``fairseq-train`` by name: which entry of a configuration holds one, and how its value is written."""

import inspect
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from typing import Any

from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.utils import eval_str_list, interpret_dc_type
from fairseq.models import MODEL_DATACLASS_REGISTRY
from fairseq.optim import OPTIMIZER_DATACLASS_REGISTRY
from fairseq.optim.lr_scheduler import LR_SCHEDULER_DATACLASS_REGISTRY
from fairseq.tasks import TASK_DATACLASS_REGISTRY

from hmtl_plugin.errors import UserError

Options = dict[str, Any]
"""Name without dashes -> value; true or false for a flag."""
OPTIMIZER, SCHEDULER = "optimizer", "lr-scheduler"
"""Options that name a class with options of its own."""
ARCHITECTURE = "arch"
CHOICES = {OPTIMIZER: OPTIMIZER_DATACLASS_REGISTRY, SCHEDULER: LR_SCHEDULER_DATACLASS_REGISTRY}
_PLAIN = ("common", "dataset", "optimization", "checkpoint", "distributed_training")
_OURS = {
    "task": (TASK_DATACLASS_REGISTRY, "hmtl_pretraining"),
    "model": (MODEL_DATACLASS_REGISTRY, "hmtl_bert"),
    "criterion": (CRITERION_DATACLASS_REGISTRY, "hmtl"),
}


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: without dashes.
        group: of the configuration, ``config[group][key]``.
        type: as the configuration's dataclass has it.
        default: fairseq's or ours; None where another entry decides.
        table: whose names are its values, of an encoder's parts.
    """

    name: str
    group: str
    type: Any
    default: Any
    table: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        """Its name in configurations."""
        return self.name.replace("-", "_")

    @property
    def choices(self) -> tuple[str, ...]:
        """Its values, where these are names out of a list; else none."""
        kind = interpret_dc_type(self.type)
        if inspect.isclass(kind) and issubclass(kind, Enum):
            return tuple(choice.value for choice in kind)
        return tuple(self.table or ())

    def read(self, value: Any) -> Any:
        """What a configuration holds when the option is given as ``value``, a text or what TOML makes of one.

        Raises:
            UserError: for a value that the option does not take; names neither option nor file.
        """
        kind = interpret_dc_type(self.type)
        if (kind is bool) != isinstance(value, bool):
            raise UserError(f"{value!r}: write true or false" if kind is bool else f"{value!r}: is no flag")
        if kind is bool:
            return value
        if choices := self.choices:
            if value not in choices:
                raise UserError(f"{value!r}: use {', '.join(choices)}")
            return value
        try:
            if typing.get_origin(kind) is list:
                return eval_str_list(str(value), typing.get_args(kind)[0])
            return kind(str(value))
        except (ValueError, SyntaxError):
            raise UserError(f"{value!r} is no {getattr(kind, '__name__', kind)}") from None

    def stored(self, config: Mapping[str, Any]) -> Any:
        """The value in a configuration; the default where it was written before there was such an option."""
        return (config.get(self.group) or {}).get(self.key, self.default)


def find_options(optimizer: str, scheduler: str) -> dict[str, Option]:
    """By name, all options of a pre-training with this optimizer and scheduler, but flags that turn something off."""
    classes = {group: FairseqConfig.__dataclass_fields__[group].type for group in _PLAIN}
    classes |= {group: registry[name] for group, (registry, name) in _OURS.items()}
    found = choice_options(OPTIMIZER, optimizer) | choice_options(SCHEDULER, scheduler)
    for group, config in classes.items():
        found |= _options_of(group, config)
    return found


def choice_options(choice: str, name: str) -> dict[str, Option]:
    """By name, the options that an optimizer or scheduler has of its own; none if fairseq's is too old to list them."""
    config = CHOICES[choice].get(name)
    return _options_of(choice.replace("-", "_"), config) if config is not None else {}


def with_optimizer(options: Options, name: str) -> Options:
    """The options with another optimizer, without those that the one before has and this one has not."""
    dropped = choice_options(OPTIMIZER, options[OPTIMIZER]).keys() - choice_options(OPTIMIZER, name).keys()
    return {key: value for key, value in options.items() if key not in dropped} | {OPTIMIZER: name}


def without_schedule(options: Options) -> Options:
    """The options without the scheduler and what belongs to it."""
    dropped = {SCHEDULER, *choice_options(SCHEDULER, options[SCHEDULER])}
    return {key: value for key, value in options.items() if key not in dropped}


def plain(value: Any) -> Any:
    """A value as one writes it: lists as numbers between commas."""
    return ",".join(map(str, value)) if isinstance(value, list) else value


def as_arguments(options: Mapping[str, Any]) -> list[str]:
    """For a command line; what is false or None is left out."""
    arguments = []
    for name, value in options.items():
        if value is not False and value is not None:
            arguments += [f"--{name}"] if value is True else [f"--{name}", str(plain(value))]
    return arguments


def _options_of(group: str, config: Any) -> dict[str, Option]:
    found = {}
    for field in fields(config):
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        default = default.value if isinstance(default, Enum) else default
        elsewhere = isinstance(default, str) and default.startswith("${")  # as fairseq's parser tells
        if field.name.startswith("_") or default is True or (elsewhere and not field.metadata.get("help")):
            continue
        name = field.name.replace("_", "-")
        default = None if elsewhere or default is MISSING else default
        found[name] = Option(name, group, field.type, default, field.metadata.get("choices"))
    return found
