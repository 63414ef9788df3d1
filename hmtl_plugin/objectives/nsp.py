"""Next-sentence prediction (Devlin et al. 2019): does segment B follow segment A, or is it from another document?

The labels come with the pairs (`hmtl_plugin.data.pairing`): 1 if B follows A, 0 if it is random.
"""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from hmtl_plugin.corruption.batch import FlatBatch
from hmtl_plugin.corruption.random import BatchRandom
from hmtl_plugin.objectives.base import (
    Head,
    HeadConfig,
    Loss,
    Objective,
    PooledHead,
    Targets,
    basic_counters,
    basic_metrics,
    register_objective,
    selected_cross_entropy,
)


class SentencePairObjective(Objective):
    """A binary question about the pair, answered from ``<s>``."""

    @property
    def scope(self) -> Literal["token", "sentence"]:
        return "sentence"

    def corrupt(self, batch: FlatBatch, random: BatchRandom) -> None:
        """Nothing to do: the labels come with the pairs."""

    def build_head(self, config: HeadConfig) -> Head:
        return PooledHead(config, self.name)

    def loss(self, logits: Mapping[str, Tensor], targets: Targets, mean_tokens: float) -> Loss:
        total, *rest = selected_cross_entropy(logits[self.name], targets.get(self.name))
        return Loss(mean_tokens * total, {self.name: basic_counters(total, *rest)})

    def metrics(self, counters: Mapping[str, Tensor]) -> dict[str, float]:
        return basic_metrics(counters[self.name])


@register_objective("nsp")
class NextSentencePrediction(SentencePairObjective):
    """Needs pairs whose second segment is random half of the time."""

    pairing = "nsp"
