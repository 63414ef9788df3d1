"""Task ``squad``: answers as spans of their contexts, on what ``scripts/finetune_squad.py`` prepared (SQuAD 1.1 and
2.0).
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from fairseq.data import Dictionary
from fairseq.tasks import register_task

from hmtl_plugin.errors import UserError
from hmtl_plugin.squad.dataset import SquadDataset, SquadSplit
from hmtl_plugin.squad.measure import SquadScorer
from hmtl_plugin.squad.prepare import MANIFEST, read_squad_manifest
from hmtl_plugin.squad.windows import answer_positions, describe
from hmtl_plugin.tasks.finetuning import FinetuningConfig, FinetuningTask
from hmtl_plugin.tokenizers.base import Tokenizer
from hmtl_plugin.tokenizers.loading import load_tokenizer
from hmtl_plugin.tokenizers.vocabulary_state import read_dictionary

logger = logging.getLogger(__name__)


@dataclass
class SquadConfig(FinetuningConfig):
    """Options of the task."""

    tokens_per_sample: int = field(default=384, metadata={"help": "longest sequence: question, window and specials"})
    doc_stride: int = field(default=128, metadata={"help": "tokens between the starts of two windows of one context"})
    max_question_tokens: int = field(default=64, metadata={"help": "longer questions lose their end"})
    max_answer_tokens: int = field(default=30, metadata={"help": "longer spans are no answers"})
    version_2: bool = field(default=False, metadata={"help": "SQuAD 2.0: a question may have no answer"})


@register_task("squad", dataclass=SquadConfig)
class SquadTask(FinetuningTask):
    """Extractive question answering."""

    def __init__(
        self, cfg: SquadConfig, dictionary: Dictionary, tokenizer: Tokenizer, manifest: dict[str, Any]
    ) -> None:
        super().__init__(cfg, dictionary, tokenizer)
        if cfg.max_answer_tokens < 1:
            raise UserError(f"--max-answer-tokens {cfg.max_answer_tokens}: use 1 or more")
        if manifest["version_2"] and not cfg.version_2:
            raise UserError(f"{cfg.data}: has questions without an answer, as SQuAD 2.0: add --version-2")
        self.manifest = manifest
        self._scorers: dict[int, SquadScorer] = {}

    @classmethod
    def setup_task(cls, cfg: SquadConfig, **kwargs: Any) -> "SquadTask":
        """Read the folder's manifest, dictionary and tokenizer."""
        folder = Path(cfg.data)
        manifest = read_squad_manifest(folder)
        if manifest is None:
            raise UserError(f"{folder}: holds no {MANIFEST}: give a folder that recipes/finetune_squad.sh prepared")
        return cls(cfg, read_dictionary(folder / "dict.txt"), load_tokenizer(folder), manifest)

    @property
    def head_name(self) -> str:
        """The same for both versions, so that one can start from the other."""
        return "squad"

    def load_dataset(self, split: str, combine: bool = False, **kwargs: Any) -> None:
        """Open a split and cut its contexts into windows; says what answers no window holds."""
        opened = SquadSplit(self.check_split(split, self.manifest["splits"]) / split)
        for texts in (opened.contexts, opened.questions):
            texts.check_vocabulary(len(self.dictionary))
        windows = opened.windows(self.cfg.tokens_per_sample, self.cfg.doc_stride, self.cfg.max_question_tokens)
        if not self.manifest["splits"][split]["labelled"]:
            raise UserError(f"{self.cfg.data}: the split '{split}' has no answers to train or measure on: leave it out")
        labels = answer_positions(windows, opened.table["begin"], opened.table["end"])
        logger.info(f"{split}: {describe(windows, labels)}")
        seed = self.cfg.seed if split == "train" else None
        self.datasets[split] = SquadDataset(opened, windows, labels, seed)
        if split != "train":
            if len(windows) in self._scorers:
                raise UserError(f"{self.cfg.data}: two validation sets of {len(windows)} windows each; validate on one")
            self._scorers[len(windows)] = SquadScorer(opened, windows, self.cfg.version_2)

    def measure(self, rows_W5: npt.NDArray[np.float64]) -> dict[str, float]:
        """Scores of the validation set with so many windows; see `SquadScorer.measure`."""
        return self._scorers[len(rows_W5)].measure(rows_W5)
