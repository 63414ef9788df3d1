"""Next-sentence prediction (Devlin et al. 2019): does segment B follow segment A, or is it from another document?

The labels come with the pairs (`hmtl_plugin.data.pairing`): 1 if B follows A, 0 if it is random.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import torch

from hmtl_plugin.corruption.batch import FlatBatch
from hmtl_plugin.corruption.random import BatchRandom
from hmtl_plugin.objectives.base import Labelling, register_objective
from hmtl_plugin.objectives.measure import (
    CLASSES,
    COUNTS,
    SIZES,
    Measure,
    Sampling,
    Seen,
    Sums,
    right_answers,
    with_ones,
)

if TYPE_CHECKING:  # they count for objectives, and know them
    from hmtl_plugin.counting.pairs import PairCounts
    from hmtl_plugin.counting.training_text import TrainingText


class CountedPairs:
    """An objective's part that measures right answers beside those that counting gives: `PairCounts`."""

    counted: ClassVar[str] = (
        "less than counting the pieces that two segments share does, so whatever models of this size make of what "
        "segments are about, it is less than these counts give."
    )

    def measure(self, target: str) -> Measure:
        """Right answers."""
        return replace(CLASSES, sums=_sums)

    def count(self, text: "TrainingText", sampling: Sampling) -> "PairCounts | None":
        """Labels by the pieces that segments share; None for a text of one document."""
        return text.pairs(sampling.pairing, sampling.corrupting, sampling.seed)


@register_objective("nsp")
class NextSentencePrediction(CountedPairs, Labelling):
    """Needs pairs whose second segment is random half of the time."""

    asks = "sentence"
    pairing = "nsp"
    labels = ("random", "next")
    titles: ClassVar[Mapping[str, str]] = {"nsp": "NSP"}
    curves: ClassVar[Mapping[str, str]] = {"nsp_accuracy": "NSP (% right)"}

    def corrupt(self, batch: FlatBatch, random: BatchRandom) -> None:
        """Nothing to do: the labels come with the pairs."""


def _sums(seen: Seen, counted: "PairCounts | None") -> Sums:
    """Right answers: the model's, and where there are counts theirs and those that the sizes of segments give."""
    sums = right_answers(seen)
    if counted is not None:
        answers = counted.follows(seen.tokens_BT[seen.positions_M].numpy())
        for name, answer_M in zip((COUNTS, SIZES), answers, strict=True):
            sums[name] = with_ones(torch.from_numpy(answer_M) == seen.labels_M)
    return sums
