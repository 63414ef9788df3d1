"""The ways in which fairseq's users open a checkpoint in Python, to our hub interface.

    HierarchicalBertModel.from_pretrained("runs/books", checkpoint_file="model.pt", data_name_or_path="data/books")
    from_hub_utils(fairseq.hub_utils.from_pretrained("runs/books", "checkpoint_best.pt", "data/books"))

What fairseq would override in a checkpoint's configuration is honoured or refused by name.
"""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from hmtl_plugin.checkpoints import LoadedCheckpoint, load_checkpoint
from hmtl_plugin.errors import UserError
from hmtl_plugin.hub import HierarchicalBert
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertModel

# isort: split
from fairseq import utils


def from_pretrained(
    model_name_or_path: str | Path,
    checkpoint_file: str = "model.pt",
    data_name_or_path: str | Path = ".",
    **overrides: Any,
) -> HierarchicalBert:
    """The hub interface over a checkpoint, called as ``RobertaModel.from_pretrained`` of fairseq is.

    Args:
        model_name_or_path: a run's folder.
        checkpoint_file: within it; where there is no model.pt, that is the checkpoint which the folder means.
        data_name_or_path: folder of the data; its dictionary and tokenizer must be the checkpoint's, and serve where
            that has none. Beginning with a dot: relative to the model's folder.
        overrides: ``user_dir``, ``load_checkpoint_heads`` (they always are) and the options in `checkpoints.OVERRIDES`.

    Raises:
        UserError: naming an override that cannot be honoured, or what is wrong with the checkpoint.
    """
    folder, data = Path(model_name_or_path), str(data_name_or_path)
    if os.pathsep in checkpoint_file:
        raise UserError(f"checkpoint_file={checkpoint_file!r}: several, an ensemble: give one")
    if "user_dir" in overrides:
        utils.import_user_module(argparse.Namespace(user_dir=overrides.pop("user_dir")))
    overrides.pop("load_checkpoint_heads", None)
    named = folder / checkpoint_file
    file = folder if checkpoint_file == "model.pt" and not named.is_file() else named
    beside = folder / data if data.startswith(".") else Path(data)
    if not beside.is_dir():
        raise UserError(f"data_name_or_path={data!r}: {beside} is no folder: give that of the data, or leave it out")
    return HierarchicalBert(load_checkpoint(file, None if data == "." else beside, overrides)).eval()


def from_hub_utils(found: Mapping[str, Any]) -> HierarchicalBert:
    """The hub interface over what ``fairseq.hub_utils.from_pretrained`` gives, which needs the folder of the data.

    Raises:
        UserError: for SQuAD 2.0, whose threshold that leaves out, and for a model of another kind.
    """
    model, task = found["models"][0], found["task"]
    if not isinstance(model, HierarchicalBertModel):
        raise UserError(
            f"from_hub_utils: a model {type(model).__name__}, not hmtl_bert: give a checkpoint of this plugin"
        )
    config = OmegaConf.to_container(found["args"], resolve=True)
    assert isinstance(config, dict)
    if config["task"].get("version_2"):
        raise UserError("from_hub_utils: SQuAD 2.0's threshold is not in it: use HierarchicalBertModel.from_pretrained")
    checkpoint = LoadedCheckpoint(
        Path(config["task"]["data"]),
        {str(name): part for name, part in config.items()},
        model.eval(),
        task.source_dictionary,
        task.tokenizer,
        getattr(task, "objectives", {}),
        model.task_head_name,
        updates=0,
        finetuning={},
        words=getattr(task, "words", True),
    )
    return HierarchicalBert(checkpoint).eval()
