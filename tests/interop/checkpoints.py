"""Checkpoints with random weights, as a run of fairseq-train would leave them."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from hmtl_plugin.checkpoints import build_model
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertConfig
from hmtl_plugin.tasks import PRETRAINING
from hmtl_plugin.tasks.glue import GlueConfig
from hmtl_plugin.tasks.pretraining import HmtlPretrainingConfig
from hmtl_plugin.tasks.squad import SquadConfig
from hmtl_plugin.tokenizers.base import Tokenizer
from hmtl_plugin.tokenizers.vocabulary_state import vocabulary_state

_SIZES = {
    "encoder_layers": 3,
    "encoder_embed_dim": 32,
    "encoder_ffn_embed_dim": 48,
    "encoder_attention_heads": 4,
    "max_positions": 96,
}


def save_checkpoint(
    folder: Path,
    tokenizer: Tokenizer,
    hierarchy: str = "nsp@-1,mlm@-1",
    transfer: str = "",
    head: str = "",
    task: dict[str, Any] | None = None,
    **model: Any,
) -> Path:
    """A checkpoint of pre-training, or with ``head`` (a GLUE task, or ``squad``) of fine-tuning; returns the folder."""
    configs = {"": HmtlPretrainingConfig, "squad": SquadConfig}
    task_config = _plain(configs.get(head, GlueConfig)) | (task or {})
    task_config["_name"] = {"": PRETRAINING, "squad": "squad"}.get(head, "glue")
    model_config = (
        _plain(HierarchicalBertConfig)
        | _SIZES
        | {"hierarchy": hierarchy, "transfer": transfer, "_name": "hmtl_bert"}
        | model
    )
    config = {"_name": None, "common": {"seed": 1}, "model": model_config, "task": task_config}
    dictionary = tokenizer.dictionary()
    torch.manual_seed(1)
    built, _ = build_model(config, dictionary, head)
    with torch.no_grad():
        for parameter in built.parameters():  # no zero biases, no layer norms that do nothing
            parameter.add_(0.05 * torch.randn_like(parameter))
    state = {
        "cfg": config,
        "model": built.state_dict(),
        "task_state": {**vocabulary_state(dictionary, tokenizer), **({"head": head} if head else {})},
        "optimizer_history": [{"num_updates": 7, "optimizer_name": "HmtlAdamW", "lr_scheduler_state": {"best": None}}],
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
    }
    folder.mkdir(parents=True)
    torch.save(state, folder / "model.pt")
    return folder


def _plain(kind: Any) -> dict[str, Any]:
    found = OmegaConf.to_container(OmegaConf.structured(kind), enum_to_str=True, throw_on_missing=False)
    assert isinstance(found, dict)
    return {str(name): "" if value == "???" else value for name, value in found.items()}
