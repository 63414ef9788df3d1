"""Task ``glue``: fine-tuning on sentences and pairs that ``scripts/prepare_glue.py`` binarised."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from fairseq.data import Dictionary
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.tasks import register_task
from omegaconf import II, MISSING

from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.tokenizer import FILE_NAME, Tokenizer
from hmtl_plugin.errors import UserError
from hmtl_plugin.finetuning.glue.dataset import SentenceDataset
from hmtl_plugin.finetuning.glue.prepare import MANIFEST, read_glue_manifest
from hmtl_plugin.finetuning.glue.tasks import find_task
from hmtl_plugin.models.pooling import POOLINGS
from hmtl_plugin.models.sentence_head import SentenceHead
from hmtl_plugin.precision import AUTOCAST
from hmtl_plugin.tasks.steps import AutocastTask
from hmtl_plugin.vocabulary_state import check_dictionary, vocabulary_state


@dataclass
class GlueConfig(FairseqDataclass):
    """Options of the task."""

    data: str = field(default=MISSING, metadata={"help": "folder of a task, as scripts/prepare_glue.py wrote it"})
    tokens_per_sample: int = field(default=128, metadata={"help": "longest row; of a pair the longer sentence is cut"})
    head_layer: int = field(
        default=-1, metadata={"help": "layer that feeds the head: 1 to L, or from the top, -1 being L"}
    )
    head_pooling: ChoiceEnum(list(POOLINGS)) = field(  # type: ignore[valid-type]
        default="cls", metadata={"help": "what the head sees: the state of <s>, or mean or maximum over the text"}
    )
    head_dropout: float = field(default=0.1, metadata={"help": "dropout in the head"})
    autocast: ChoiceEnum(list(AUTOCAST)) = field(  # type: ignore[valid-type]
        default="none", metadata={"help": "bf16: forward passes in bfloat16; auto: if CPU or GPU computes in it"}
    )
    seed: int = II("common.seed")


@register_task("glue", dataclass=GlueConfig)
class GlueFinetuningTask(AutocastTask):
    """One GLUE task.

    Attributes:
        glue: its row in the table of tasks.
    """

    cfg: GlueConfig

    def __init__(self, cfg: GlueConfig, dictionary: Dictionary, tokenizer: Tokenizer, manifest: dict[str, Any]) -> None:
        super().__init__(cfg)
        if cfg.tokens_per_sample < 8:
            raise UserError(f"--tokens-per-sample {cfg.tokens_per_sample}: use 8 or more")
        self.dictionary, self.tokenizer, self.manifest = dictionary, tokenizer, manifest
        self.glue = find_task(manifest["task"])

    @classmethod
    def setup_task(cls, cfg: GlueConfig, **kwargs: Any) -> "GlueFinetuningTask":
        """Read the folder's manifest, dictionary and tokenizer."""
        folder = Path(cfg.data)
        manifest = read_glue_manifest(folder)
        if manifest is None:
            raise UserError(
                f"{folder}: holds no {MANIFEST}: give the folder of a task that scripts/prepare_glue.py wrote"
            )
        dictionary = Dictionary.load(str(folder / "input0" / "dict.txt"))
        return cls(cfg, dictionary, Tokenizer.load(folder / FILE_NAME), manifest)

    @property
    def source_dictionary(self) -> Dictionary:
        """Symbols of the text."""
        return self.dictionary

    @property
    def target_dictionary(self) -> None:
        """Labels are no symbols."""
        return None

    def max_positions(self) -> int:
        """Rows are cut to this length."""
        return self.cfg.tokens_per_sample

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> torch.nn.Module:
        """The encoder with a fresh sentence head."""
        if cfg.max_positions < self.cfg.tokens_per_sample:
            raise UserError(
                f"--tokens-per-sample {self.cfg.tokens_per_sample} is more than the model's --max-positions "
                f"{cfg.max_positions}: lower the one, or raise the other with --resize-positions"
            )
        model = super().build_model(cfg, from_checkpoint)
        layers = cfg.encoder_layers
        layer = self.cfg.head_layer + layers + 1 if self.cfg.head_layer < 0 else self.cfg.head_layer
        if not 1 <= layer <= layers:
            raise UserError(f"--head-layer {self.cfg.head_layer}: use 1 to {layers}, or -1 to -{layers} from the top")
        head = SentenceHead(cfg.encoder_embed_dim, self.glue.outputs, str(self.cfg.head_pooling), self.cfg.head_dropout)
        model.attach_head(head, layer, self.cfg.seed)
        return model

    def load_dataset(self, split: str, combine: bool = False, **kwargs: Any) -> None:
        """Open a split; one whose labels are hidden serves predictions only."""
        if split not in self.manifest["splits"]:
            raise UserError(f"{self.cfg.data}: has no split '{split}', only {', '.join(self.manifest['splits'])}")
        columns = [Corpus(str(Path(self.cfg.data) / f"input{i}" / split)) for i in range(len(self.glue.text))]
        labels = self._labels(split) if self.manifest["splits"][split]["labelled"] else None
        seed = self.cfg.seed if split == "train" else None
        self.datasets[split] = SentenceDataset(columns, labels, self.cfg.tokens_per_sample, seed)

    def _labels(self, split: str) -> npt.NDArray[Any]:
        prefix = Path(self.cfg.data) / "label" / split
        if self.glue.regression:
            return np.loadtxt(prefix.with_suffix(".label"), dtype=np.float32, ndmin=1)
        return Corpus(str(prefix)).tokens.reshape(-1, 2)[:, 0].astype(np.int64) - Dictionary().nspecial

    def state_dict(self) -> dict[str, Any]:
        """Dictionary and tokenizer as bytes, as pre-training stores them."""
        return vocabulary_state(self.dictionary, self.tokenizer)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Check that the checkpoint's dictionary is the data's.

        Raises:
            UserError: if it is another.
        """
        check_dictionary(state, self.dictionary, self.cfg.data)
