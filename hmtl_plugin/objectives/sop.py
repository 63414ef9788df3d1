"""Sentence-order prediction (Lan et al. 2020): are two consecutive segments in their order, or swapped?

The labels come with the pairs (`hmtl_plugin.data.pairing`): 1 in order, 0 swapped.
"""

from typing import ClassVar, Literal

from hmtl_plugin.objectives.base import register_objective
from hmtl_plugin.objectives.nsp import SentencePairObjective


@register_objective("sop")
class SentenceOrderPrediction(SentencePairObjective):
    """Needs consecutive segments; measured in a validation view of its own, the common one holds random pairs."""

    pairing = "sop"
    view: ClassVar[Literal["common", "own"]] = "own"
