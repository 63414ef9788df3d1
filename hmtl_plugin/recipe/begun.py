"""A training that does not begin from nothing: the options that the checkpoint it takes was trained with."""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq.models import ARCH_CONFIG_REGISTRY

from hmtl_plugin.checkpoints import find_checkpoint, plain_config, read_state
from hmtl_plugin.errors import UserError
from hmtl_plugin.models.config import CARRIED, RECORDED, EncoderConfig, find_positions, option_name
from hmtl_plugin.models.hierarchical_bert import resolve_sizes
from hmtl_plugin.recipe.options import (
    ARCHITECTURE,
    CHOICES,
    OPTIMIZER,
    SCHEDULER,
    Options,
    as_arguments,
    choice_options,
    find_options,
    with_optimizer,
    without_schedule,
)

_MODEL = {option_name(option).replace("_", "-") for option in EncoderConfig.options(RECORDED, CARRIED)}
_MODEL |= {"sentence-pooling", "untied-output", "bigram-head"}
_TRAINING = ("task", "model", "criterion")
"""Groups of a configuration whose options all say what is trained, and how."""
_DERIVED = ("encoder-ffn-embed-dim", "encoder-attention-heads")
"""Follow from the width where they are 0."""
_EACH_TIMES_OWN = {"data", "resize-positions", "load-checkpoint-heads"}
_SHAPE = {"encoder-layers", "encoder-embed-dim"}


@dataclass(frozen=True)
class Begun:
    """What a training takes over.

    Attributes:
        where: for messages.
        config: the configuration of the run that wrote the checkpoint, as plain dictionaries.
        whole: whether that run's training goes on; else only its model does.
    """

    where: str
    config: Mapping[str, Any]
    whole: bool

    def options(self, defaults: Options) -> Options:
        """Where the run differs from the ``defaults``, and from fairseq's for what they do not name.

        That is all that says what was trained and how: of a run that goes on the options of task, model, criterion,
        optimizer and scheduler, and whatever ``defaults`` names; of a model alone those that make it. An option that
        is younger than the checkpoint has the default that it began with.
        """
        theirs = self._choices(defaults) if self.whole else defaults
        known = find_options(theirs[OPTIMIZER], theirs[SCHEDULER])
        options = {
            name: option
            for name, option in known.items()
            if (name in theirs or option.group in _TRAINING if self.whole else name in _MODEL)
            and name not in _EACH_TIMES_OWN
        }
        if self.whole:
            for choice in CHOICES:
                options |= choice_options(choice, theirs[choice])
        theirs = _sizes(theirs) | theirs
        changed = {choice: theirs[choice] for choice in CHOICES if theirs[choice] != defaults[choice]}
        return changed | {
            name: value
            for name, option in options.items()
            if (value := option.stored(self.config)) != theirs.get(name, option.default)
            and not (name in _DERIVED and value == 0)
        }

    def _choices(self, defaults: Options) -> Options:
        """The defaults, with the optimizer and the scheduler of the run."""
        optimizer, scheduler = (_name(self.config, choice) or defaults[choice] for choice in (OPTIMIZER, SCHEDULER))
        options = with_optimizer(defaults, optimizer) if optimizer != defaults[OPTIMIZER] else defaults
        if scheduler != defaults[SCHEDULER]:
            options = without_schedule(options) | {SCHEDULER: scheduler}
        return options

    def note(self, taken: Options) -> str:
        """The line that says which options are not today's defaults; empty without any."""
        named = [
            f"no --{name}" if value is False or value is None else " ".join(as_arguments({name: value}))
            for name, value in taken.items()
        ]
        if not named:
            return ""
        how = ("begun", "goes on with them") if self.whole else ("trained", "the model keeps them")
        sized = ", whatever SIZE says" if _SHAPE & taken.keys() else ""
        return f"{self.where} was {how[0]} with {', '.join(named)}: {how[1]}{sized}"

    @property
    def position_rows(self) -> int | None:
        """Of its table of positions; None where it has no table."""
        model = self.config["model"]
        has_table = find_positions(str(model.get("positions", "learned"))).has_table
        return int(model["max_positions"]) if has_table else None


def read_begun(path: Path, where: str, whole: bool) -> Begun:
    """What a checkpoint file, or that of a folder, says.

    Args:
        whole: the training that wrote it is to go on.

    Raises:
        UserError: if there is none, it is damaged or of another project, or no training wrote it and one is to go on.
    """
    file = find_checkpoint(path)
    config = plain_config(read_state(file), file)
    if whole and not config.get("optimization"):
        raise UserError(f"{file}: holds a model and no training: start from it with --finetune-from-model")
    return Begun(where, config, whole)


def _sizes(options: Options) -> Options:
    """Of the model that ``arch`` and the options make, those that follow from others among them."""
    sizes = Namespace(**{name.replace("-", "_"): value for name, value in options.items() if name in _MODEL})
    ARCH_CONFIG_REGISTRY[options[ARCHITECTURE]](sizes)
    for name in _DERIVED:
        vars(sizes).setdefault(name.replace("-", "_"), 0)
    resolve_sizes(sizes)
    return {name.replace("_", "-"): value for name, value in vars(sizes).items()}


def _name(config: Mapping[str, Any], choice: str) -> str | None:
    """Of the optimizer or scheduler; None where the writer had none, as what imports a model has."""
    return (config.get(choice.replace("-", "_")) or {}).get("_name")
