"""Sentence distance (after ERNIE 2.0's, Sun et al. 2019): does segment B follow A, is it from elsewhere in the same
document, or from another?

Next-sentence prediction in three classes, of which topic alone tells one from two. The labels come with the pairs
(`hmtl_plugin.data.pairing`).
"""

from collections.abc import Mapping
from typing import ClassVar

from hmtl_plugin.corruption.batch import FlatBatch
from hmtl_plugin.corruption.random import BatchRandom
from hmtl_plugin.objectives.base import Labelling, register_objective
from hmtl_plugin.objectives.nsp import CountedPairs


@register_objective("distance")
class SentenceDistance(CountedPairs, Labelling):
    """Needs pairs whose second segment is random half of the time, and then half of the time of the same document."""

    asks = "sentence"
    pairing = "distance"
    num_labels = 3
    labels = ("other document", "same document", "next")
    titles: ClassVar[Mapping[str, str]] = {"distance": "distance"}
    curves: ClassVar[Mapping[str, str]] = {"distance_accuracy": "distance (% right)"}

    def corrupt(self, batch: FlatBatch, random: BatchRandom) -> None:
        """Nothing to do: the labels come with the pairs."""
