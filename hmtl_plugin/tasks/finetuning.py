"""What the fine-tuning tasks share: a head on a layer of a pre-trained encoder, and how the encoder is adapted."""

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import torch
from fairseq.data import Dictionary
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import II, MISSING

from hmtl_plugin.corruption.vocabulary import MASK
from hmtl_plugin.errors import UserError
from hmtl_plugin.models.adaptation import Adaptation, adapt
from hmtl_plugin.models.config import hold_sequences
from hmtl_plugin.models.finetuned_heads import HEADS
from hmtl_plugin.precision import AUTOCAST
from hmtl_plugin.tasks.steps import AutocastTask
from hmtl_plugin.tokenizers.base import Tokenizer
from hmtl_plugin.tokenizers.vocabulary_state import check_dictionary, vocabulary_state


@dataclass
class FinetuningConfig(FairseqDataclass):
    """Options of every fine-tuning task."""

    data: str = field(default=MISSING, metadata={"help": "folder of prepared data"})
    tokens_per_sample: int = field(default=128, metadata={"help": "longest sequence, special tokens included"})
    head_layer: int = field(
        default=-1, metadata={"help": "layer that feeds the head: 1 to L, or from the top, -1 being L"}
    )
    head_dropout: float = field(default=0.1, metadata={"help": "dropout in the head"})
    freeze_up_to: Optional[int] = field(
        default=None,
        metadata={"help": "freeze the embeddings (0) and the layers up to this one, or from the top, -1 being L"},
    )
    reinit_layers: int = field(
        default=0, metadata={"help": "how many layers, from the head's downwards, start from fresh weights"}
    )
    layer_decay: float = field(
        default=1.0, metadata={"help": "learning rate of a layer over that of the layer above it; the head has --lr"}
    )
    autocast: ChoiceEnum(list(AUTOCAST)) = field(  # type: ignore[valid-type]
        default="none", metadata={"help": "bf16: forward passes in bfloat16; auto: if CPU or GPU computes in it"}
    )
    seed: int = II("common.seed")


class FinetuningTask(AutocastTask):
    """A task with one head on the encoder of a pre-training checkpoint (``--finetune-from-model``)."""

    cfg: Any

    def __init__(self, cfg: Any, dictionary: Dictionary, tokenizer: Tokenizer) -> None:
        super().__init__(cfg)
        if cfg.tokens_per_sample < 8:
            raise UserError(f"--tokens-per-sample {cfg.tokens_per_sample}: use 8 or more")
        self.dictionary, self.tokenizer = dictionary, tokenizer

    @property
    @abstractmethod
    def head_name(self) -> str:
        """Under which checkpoints remember the head; the hub interface asks for it by this name."""

    @property
    def source_dictionary(self) -> Dictionary:
        """Symbols of the text."""
        return self.dictionary

    @property
    def target_dictionary(self) -> None:
        """Labels are no symbols."""
        return None

    def max_positions(self) -> int:
        """Sequences are cut to this length."""
        return int(self.cfg.tokens_per_sample)

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> torch.nn.Module:
        """The encoder with a fresh head, adapted as the options say."""
        hold_sequences(cfg, self.cfg.tokens_per_sample)
        model = super().build_model(cfg, from_checkpoint)
        layers = cfg.encoder_layers
        layer = self.cfg.head_layer + layers + 1 if self.cfg.head_layer < 0 else self.cfg.head_layer
        if not 1 <= layer <= layers:
            raise UserError(f"--head-layer {self.cfg.head_layer}: use 1 to {layers}, or -1 to -{layers} from the top")
        mask = self.dictionary.index(MASK)
        head = HEADS[self.cfg._name](self.head_name, cfg.encoder_embed_dim, self.cfg, mask)
        model.attach_head(head, self.head_name, layer, self.cfg.seed)
        adapt(model, Adaptation(self.cfg.freeze_up_to, self.cfg.reinit_layers, self.cfg.layer_decay))
        return model

    def check_split(self, split: str, splits: dict[str, Any]) -> Path:
        """The data folder, if it has this split; `UserError` otherwise."""
        if split not in splits:
            raise UserError(f"{self.cfg.data}: has no split '{split}', only {', '.join(splits)}")
        return Path(self.cfg.data)

    def state_dict(self) -> dict[str, Any]:
        """Besides, dictionary and tokenizer as bytes, as pre-training stores them, and the name of the head."""
        return super().state_dict() | vocabulary_state(self.dictionary, self.tokenizer) | {"head": self.head_name}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Check that the checkpoint's dictionary is the data's.

        Raises:
            UserError: if it is another.
        """
        check_dictionary(state, self.dictionary, self.cfg.data)
