"""Sentence-order prediction (Lan et al. 2020): are two consecutive segments in their order, or swapped?

The labels come with the pairs (`hmtl_plugin.data.pairing`): 1 in order, 0 swapped.
"""

from collections.abc import Mapping
from typing import ClassVar

from hmtl_plugin.corruption.batch import FlatBatch
from hmtl_plugin.corruption.random import BatchRandom
from hmtl_plugin.objectives.base import Labelling, register_objective


@register_objective("sop")
class SentenceOrderPrediction(Labelling):
    """Needs consecutive segments."""

    asks = "sentence"
    pairing = "sop"
    labels = ("exchanged", "in order")
    titles: ClassVar[Mapping[str, str]] = {"sop": "SOP"}
    curves: ClassVar[Mapping[str, str]] = {"sop_accuracy": "SOP (% right)"}

    def corrupt(self, batch: FlatBatch, random: BatchRandom) -> None:
        """Nothing to do: the labels come with the pairs."""
