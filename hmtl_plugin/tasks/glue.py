"""Task ``glue``: fine-tuning on sentences and pairs that ``scripts/prepare_glue.py`` binarised."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairseq.data import Dictionary
from fairseq.tasks import register_task

from hmtl_plugin.errors import UserError
from hmtl_plugin.glue.dataset import open_split
from hmtl_plugin.glue.prepare import MANIFEST, read_glue_manifest
from hmtl_plugin.glue.tasks import find_task
from hmtl_plugin.models.finetuned_heads import head_poolings
from hmtl_plugin.tasks.finetuning import FinetuningConfig, FinetuningTask
from hmtl_plugin.tokenizers.base import Tokenizer
from hmtl_plugin.tokenizers.loading import load_tokenizer
from hmtl_plugin.tokenizers.vocabulary_state import read_dictionary


@dataclass
class GlueConfig(FinetuningConfig):
    """Options of the task. Of a pair that is too long the longer sentence is cut."""

    head_pooling: str = field(
        default="cls",
        metadata={
            "help": "what the head sees: cls or first: the state of <s>; mean, max: of the whole text; "
            "others: as --sentence-pooling, for tasks with pairs of sentences only",
            "choices": head_poolings(),
        },
    )


@register_task("glue", dataclass=GlueConfig)
class GlueFinetuningTask(FinetuningTask):
    """One GLUE task.

    Attributes:
        glue: its row in the table of tasks.
    """

    def __init__(self, cfg: GlueConfig, dictionary: Dictionary, tokenizer: Tokenizer, manifest: dict[str, Any]) -> None:
        super().__init__(cfg, dictionary, tokenizer)
        self.manifest = manifest
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
        dictionary = read_dictionary(folder / "input0" / "dict.txt")
        return cls(cfg, dictionary, load_tokenizer(folder), manifest)

    @property
    def head_name(self) -> str:
        """The task's name."""
        return self.glue.name

    def load_dataset(self, split: str, combine: bool = False, **kwargs: Any) -> None:
        """Open a split whose labels are known."""
        folder = self.check_split(split, self.manifest["splits"])
        if not self.manifest["splits"][split]["labelled"]:
            raise UserError(f"{self.cfg.data}: the labels of the split '{split}' are hidden: measure on another")
        seed = self.cfg.seed if split == "train" else None
        dataset = open_split(folder, self.manifest, split, self.cfg.tokens_per_sample, seed)
        for column in dataset.columns:
            column.check_vocabulary(len(self.dictionary))
        self.datasets[split] = dataset
