"""The checkpoint that fine-tuning starts from, and what `fairseq-train` must be told of it."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hmtl_plugin.checkpoints import find_checkpoint, plain_config, read_state
from hmtl_plugin.data.manifest import file_sha256
from hmtl_plugin.errors import UserError
from hmtl_plugin.models.config import CARRIED, RECORDED, EncoderConfig, flag, option_name
from hmtl_plugin.tasks import PRETRAINING

_LEARNING_RATES = ((768, "3e-5"), (512, "1e-4"), (256, "3e-4"), (0, "1e-3"))  # from this width on


@dataclass(frozen=True)
class PretrainedCheckpoint:
    """A checkpoint of this project.

    Attributes:
        path: the file; sha256: its fingerprint.
        model: the model's configuration.
        hierarchy, transfer: of pre-training; empty for a checkpoint that was fine-tuned already.
        head: what that was on; empty for a pre-training checkpoint.
        pooling: what its objectives about sentences read of a text, or its head if it was fine-tuned.
    """

    path: Path
    sha256: str
    model: dict[str, Any]
    hierarchy: str
    transfer: str
    head: str = ""
    pooling: str = "first"

    @classmethod
    def find(cls, path: str | Path) -> "PretrainedCheckpoint":
        """Read the configuration in a checkpoint file or a folder's checkpoint.

        Raises:
            UserError: if it is no checkpoint of this project.
        """
        file = find_checkpoint(path)
        state = read_state(file)
        config = plain_config(state, file)
        pretrained = config["task"]["_name"] == PRETRAINING
        model = config["model"]
        return cls(
            file,
            file_sha256(file),
            model,
            str(model["hierarchy"]) if pretrained else "",
            str(model["transfer"]) if pretrained else "",
            "" if pretrained else str((state.get("task_state") or {}).get("head", "")),
            str(model.get("sentence_pooling", "first") if pretrained else config["task"].get("head_pooling", "first")),
        )

    @property
    def layers(self) -> int:
        """L."""
        return int(self.model["encoder_layers"])

    def options(self, max_tokens: int, resize_positions: bool) -> list[str]:
        """Options of `fairseq-train` that build the same encoder and load it, for sequences of ``max_tokens``.

        Raises:
            UserError: if these are longer than the encoder's and may not be resized.
        """
        values = dict(self.model)
        has_table = EncoderConfig.of(SimpleNamespace(**values), 0).has_position_table
        if resize_positions and not has_table:
            raise UserError(f"--resize-positions: the positions of {self.path} are no table: leave it out")
        if max_tokens > values["max_positions"]:
            if has_table and not resize_positions:
                raise UserError(
                    f"--tokens-per-sample {max_tokens} is more than the {values['max_positions']} positions of {self.path}: "
                    f"give --tokens-per-sample {values['max_positions']}, or --resize-positions for longer sequences"
                )
            values["max_positions"] = max_tokens
        options = ["--arch", "hmtl_bert", "--finetune-from-model", str(self.path)]
        for option in EncoderConfig.options(RECORDED, CARRIED):
            value = values.get(option_name(option), option.default)
            if isinstance(option.default, bool):
                options += [flag(option)] if value else []
            elif option_name(option) in values or value != option.default:
                options += [flag(option), str(value)]
        return options + (["--resize-positions"] if resize_positions else [])

    def default_learning_rate(self) -> str:
        """BERT's for its own widths, more for narrower encoders (see docs/results.md for the narrowest)."""
        width = int(self.model["encoder_embed_dim"])
        return next(rate for least, rate in _LEARNING_RATES if width >= least)
