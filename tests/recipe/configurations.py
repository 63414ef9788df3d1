"""What fairseq makes of arguments, and checkpoints that hold nothing but a configuration."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf

from hmtl_plugin.recipe.arguments import Arguments, recipe_arguments
from hmtl_plugin.recipe.table import read_table

TABLE = read_table()
FIXED = ["data", "--task", "hmtl_pretraining", "--criterion", "hmtl"]


def configuration(arguments: Sequence[str]) -> dict[str, Any]:
    """Of a recipe's arguments, as checkpoints hold it."""
    parsed = options.parse_args_and_arch(options.get_training_parser(), [*FIXED, *arguments])
    return dict(OmegaConf.to_container(convert_namespace_to_omegaconf(parsed)))


def begin(run: Path, config: dict[str, Any], name: str = "checkpoint_last.pt") -> Path:
    """A run with this configuration that has saved a checkpoint; returns the file."""
    run.mkdir(parents=True, exist_ok=True)
    torch.save({"model": {}, "cfg": config}, run / name)
    return run / name


def arguments_of(size: str, run: Path, *given: str) -> Arguments:
    """By the table of this repository."""
    return recipe_arguments(size, run, given, TABLE)
