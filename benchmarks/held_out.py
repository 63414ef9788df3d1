"""One set of held-out samples on which every system's masked LM is measured, and what counts of neighbours reach there.

The samples are those of ``fairseq-train``'s validation and of `scripts/evaluate.py`: the common view, which no
hierarchy changes, in its first epoch; which of them is drawn at random with a fixed seed.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import hmtl_plugin.objectives  # noqa: F401  registers the objectives
from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.counting.training_text import TrainingText
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.splits import SequenceOptions, open_split
from hmtl_plugin.objectives.base import build_objectives

TOKENS = 2048  # of a batch: as little memory as a training batch takes
Sample = Mapping[str, Any]


class HeldOut:
    """Some samples of the validation split with 15 % of their pieces masked (80/10/10), as batches of our loader.

    Args:
        folder: binarised data with the splits train and valid.
        options: how sequences are made.
        samples: how many, or all that there are.

    Raises:
        UserError: if the data cannot be opened.
    """

    def __init__(self, folder: Path, vocabulary: Vocabulary, options: SequenceOptions, samples: int) -> None:
        self.folder, self.vocabulary = folder, vocabulary
        objectives = build_objectives(("mlm",))
        data = open_split(folder, "valid", objectives, vocabulary, options, training=False, seed=0)
        data.set_epoch(1)
        chosen = np.random.default_rng(0).permutation(len(data))[:samples]
        by_length = chosen[np.argsort(data.sizes[chosen], kind="stable")]
        self.batches: list[Sample] = [
            data.collater(batch.tolist()) for batch in data.batch_by_size(by_length, max_tokens=TOKENS)
        ]
        self.samples = len(chosen)

    def loss(self, logits: Callable[[Sample], Tensor]) -> float:
        """Mean cross entropy of the masked pieces, in nats.

        ``logits`` gives (M, V) of a batch, in the order of its mlm positions.
        """
        total = torch.zeros((), dtype=torch.double)
        for sample in self.batches:
            total += F.cross_entropy(logits(sample).float(), self._labels(sample), reduction="sum")
        return float(total) / self._masked

    def loss_of_counts(self) -> float:
        """The same of `hmtl_plugin.counting.bigrams` of the training split, which know the pieces on both sides."""
        counts = TrainingText(Corpus(str(self.folder / "train"), eos=self.vocabulary.eos), self.vocabulary)
        total = 0.0
        for sample in self.batches:
            tokens = sample["net_input"]["src_tokens"].flatten().numpy()
            positions, labels = sample["targets"]["mlm"]["positions"].numpy(), self._labels(sample).numpy()
            between = counts.bigrams.between(tokens[positions - 1], labels, tokens[positions + 1])
            total -= float(np.log(between).sum())
        return total / self._masked

    @property
    def _masked(self) -> int:
        return sum(len(self._labels(sample)) for sample in self.batches)

    @staticmethod
    def _labels(sample: Sample) -> Tensor:
        labels: Tensor = sample["targets"]["mlm"]["labels"]
        return labels
