"""Replaced tokens: does something else stand here than stood in the text? ELECTRA's question (Clark et al. 2020) on the
data side: replacements are drawn by frequency, not by a generator that learns.

A piece that begins a word gives way to one that begins a word, others to others, so that no word falls apart in a way
that no text does. What the masked LM predicts is not touched and not asked for; nothing else moves what is replaced.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from hmtl_plugin.corruption.batch import IGNORE, FlatBatch
from hmtl_plugin.corruption.random import BatchRandom
from hmtl_plugin.errors import UserError
from hmtl_plugin.objectives import roc
from hmtl_plugin.objectives.base import Labelling, ObjectiveOptions, register_objective
from hmtl_plugin.objectives.measure import MISPLACED, NEIGHBOURS, Measure, Sampling

if TYPE_CHECKING:  # they count for objectives, and know them
    from hmtl_plugin.counting.bigrams import BigramCounts
    from hmtl_plugin.counting.training_text import TrainingText

_DRAWS = 6
"""Places of the text that are looked at for a piece of the same kind; a place where all fail stays as it is."""


@dataclass(frozen=True)
class ReplacedTokenOptions(ObjectiveOptions):
    """How much is replaced."""

    rtd_rate: float = field(default=0.1, metadata={"help": "rtd: share of the tokens that are replaced"})

    def check(self) -> None:
        if not 0 < self.rtd_rate < 1:
            raise UserError(f"--rtd-rate {self.rtd_rate}: use a share above 0 and below 1")


@register_objective("rtd")
class ReplacedTokenDetection(Labelling):
    """Every token has a label but special ones and those that another objective has reserved."""

    asks = "token"
    Options = ReplacedTokenOptions
    rank = 50  # what is moved is moved before, what is masked comes after
    labels = ("original", "replaced")
    titles: ClassVar[Mapping[str, str]] = {"rtd": "replaced"}
    curves: ClassVar[Mapping[str, str]] = {"rtd_auc": "replaced tokens (AUC)"}
    counted = NEIGHBOURS

    def reserve(self, batch: FlatBatch, random: BatchRandom) -> npt.NDArray[np.bool_]:
        drawn_N = random.per_token("rtd/choice") < self.options.rtd_rate
        return drawn_N & ~batch.vocabulary.special_V.take(batch.tokens_N)

    def corrupt(self, batch: FlatBatch, random: BatchRandom) -> None:
        free_N = ~batch.vocabulary.special_V.take(batch.tokens_N)
        for name, reserved_N in batch.reserved.items():
            if name != self.name:
                free_N &= ~reserved_N
        chosen = np.flatnonzero(batch.reserved[self.name] & free_N)
        before = batch.tokens_N.take(chosen)
        after = self._draws(batch, random, chosen, before)
        batch.tokens_N[chosen] = after
        label_N = np.where(free_N, 0, IGNORE)
        label_N[chosen[after != before]] = 1
        batch.targets[self.name] = label_N

    def _draws(
        self, batch: FlatBatch, random: BatchRandom, chosen: npt.NDArray[np.int64], before: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """(M,) pieces of the kind of those ``before``, from random places of the text."""
        vocabulary, found = batch.vocabulary, before.copy()
        begins_M, open_M = vocabulary.word_start_V.take(before), np.ones(len(before), dtype=bool)
        for number in range(_DRAWS if len(batch.text) else 0):
            place = (random.per_token(f"rtd/place/{number}", chosen) * len(batch.text)).astype(np.int64)
            drawn = batch.text.take(place).astype(np.int64)
            fits_M = open_M & ~vocabulary.special_V.take(drawn) & (vocabulary.word_start_V.take(drawn) == begins_M)
            found[fits_M] = drawn[fits_M]
            open_M &= ~fits_M
        return found

    def further_counters(self, selected_MC: Tensor, labels_M: Tensor) -> dict[str, Tensor]:
        """For the area under the curve."""
        return {f"{self.name}_histogram": roc.histogram(selected_MC, labels_M)}

    def metrics(self, counters: Mapping[str, Tensor]) -> dict[str, float]:
        area = roc.area_under_curve(counters[f"{self.name}_histogram"].double().cpu().numpy())
        return super().metrics(counters) | {"auc": float(area)}

    def measure(self, target: str) -> Measure:
        return MISPLACED

    def count(self, text: "TrainingText", sampling: Sampling) -> "BigramCounts":
        """How well a token fits between its neighbours."""
        return text.bigrams
