"""Masked language modelling (Devlin et al. 2019): token, whole-word and n-gram masking, 80/10/10.

Of the chosen tokens 80 % become ``<mask>``, 10 % a random piece, 10 % stay; the head predicts what stood there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from fairseq.dataclass import ChoiceEnum
from torch import Tensor, nn
from torch.nn import functional as F

from hmtl_plugin.corruption.batch import IGNORE, FlatBatch
from hmtl_plugin.corruption.random import BatchRandom
from hmtl_plugin.corruption.words import find_words
from hmtl_plugin.errors import UserError
from hmtl_plugin.objectives.base import (
    Head,
    HeadConfig,
    Loss,
    Objective,
    ObjectiveOptions,
    Targets,
    basic_counters,
    basic_metrics,
    hidden_layer,
    register_objective,
)
from hmtl_plugin.objectives.measure import (
    BASELINE,
    COUNTS,
    LOSS,
    NEIGHBOURS,
    VALUE,
    Measure,
    Sampling,
    Seen,
    Sums,
    ratio,
    with_ones,
)

if TYPE_CHECKING:  # it counts for objectives, and knows them
    from hmtl_plugin.counting.training_text import TrainingText

MASKED_SHARE, REPLACED_SHARE = 0.8, 0.1
ALIGNMENT, _IMPOSSIBLE = 64, -1e4  # a logit that half precision holds
# A span of n words is drawn with probability proportional to 1/n, n up to 3: P(n > 0), P(n > 1), P(n > 2).
_SPAN_LONGER = np.array([1.0, 5 / 11, 2 / 11])
# Share of words that spans cover when each word begins one with probability q; inverted by interpolation.
_START_GRID = np.linspace(0.0, 1.0, 1001)
_COVER_GRID = 1 - np.prod(1 - _START_GRID[:, None] * _SPAN_LONGER, axis=1)


class MaskedLMHead(Head):
    """Dense, activation and layer norm, then the input embedding (or a matrix of its own) with a bias of its own."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.dense = hidden_layer(config)
        self.activation = config.activation
        self.layer_norm = nn.LayerNorm(config.hidden, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden, config.vocabulary, bias=False) if config.untied_output else None
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))

    def transform(self, x: Tensor) -> Tensor:
        return self.layer_norm(self.activation(self.dense(x)))

    def classify(self, z: Tensor, embedding_VH: Tensor, first_B: Tensor) -> dict[str, Tensor]:
        matrix_VH = embedding_VH if self.decoder is None else self.decoder.weight
        if self.training and z.is_cuda:
            return {"mlm": aligned_linear(z, matrix_VH, self.bias)}
        return {"mlm": F.linear(z, matrix_VH, self.bias)}


def aligned_linear(z: Tensor, matrix_VH: Tensor, bias_V: Tensor) -> Tensor:
    """(M, V') logits of ``z`` (M, H): of the V words, and of as many impossible ones (probability 0) as make a multiple
    of 64.

    Fast matrix kernels of GPUs want rows of a multiple of 16 bytes, and neither BERT's 30,522 words nor a dictionary
    with ``<mask>`` behind it give them.
    """
    missing = -matrix_VH.shape[0] % ALIGNMENT
    if not missing:
        return F.linear(z, matrix_VH, bias_V)
    return F.linear(z, F.pad(matrix_VH, (0, 0, 0, missing)), F.pad(bias_V, (0, missing), value=_IMPOSSIBLE))


@dataclass(frozen=True)
class MaskedLMOptions(ObjectiveOptions):
    """Which tokens are predicted."""

    mask_prob: float = field(default=0.15, metadata={"help": "share of the maskable tokens that are predicted"})
    mask_scheme: ChoiceEnum(["token", "word", "ngram"]) = field(  # type: ignore[valid-type]
        default="token", metadata={"help": "mask single pieces, whole words, or runs of one to three words"}
    )

    def check(self) -> None:
        if not 0 < self.mask_prob < 1:
            raise UserError(f"--mask-prob {self.mask_prob}: use a share above 0 and below 1")


@register_objective("mlm")
class MaskedLanguageModel(Objective):
    """What is masked is drawn on the clean text, so that it is the same whatever other objectives do to the rest."""

    Options = MaskedLMOptions
    sparse = True
    num_labels = None
    titles: ClassVar[Mapping[str, str]] = {"mlm": "MLM perplexity"}
    curves: ClassVar[Mapping[str, str]] = {"mlm_loss": "MLM loss (nats)"}
    counted = NEIGHBOURS
    rank = 100  # after everything that changes which token stands where

    @property
    def scope(self) -> Literal["token", "sentence"]:
        return "token"

    def reserve(self, batch: FlatBatch, random: BatchRandom) -> npt.NDArray[np.bool_]:
        """A share ``mask_prob`` of the maskable tokens: single ones, whole words, or runs of words."""
        maskable_N = ~batch.vocabulary.special_V.take(batch.tokens_N)
        if self.options.mask_scheme == "token":
            return maskable_N & (random.per_token("mlm/choice") < self.options.mask_prob)
        return maskable_N & self._choose_words(batch, random)

    def corrupt(self, batch: FlatBatch, random: BatchRandom) -> None:
        drawn = np.flatnonzero(batch.reserved[self.name])
        fate = random.per_token("mlm/fate", drawn)
        target_N = np.full(len(batch.tokens_N), IGNORE, dtype=np.int64)
        target_N[drawn] = batch.tokens_N.take(drawn)
        masked = drawn[fate < MASKED_SHARE]
        replaced = drawn[(fate >= MASKED_SHARE) & (fate < MASKED_SHARE + REPLACED_SHARE)]
        candidates = batch.vocabulary.replacements
        pick = (random.per_token("mlm/replacement", replaced) * len(candidates)).astype(np.int64)
        batch.tokens_N[masked] = batch.vocabulary.mask
        batch.tokens_N[replaced] = candidates[pick]
        batch.targets["mlm"] = target_N

    def _choose_words(self, batch: FlatBatch, random: BatchRandom) -> npt.NDArray[np.bool_]:
        words, rate = find_words(batch), self.options.mask_prob
        draw_W = random.per_token("mlm/choice", words.start_W)
        if self.options.mask_scheme == "word":
            return words.spread(draw_W < rate)
        begins_W = draw_W < np.interp(rate, _COVER_GRID, _START_GRID)
        span_W = random.per_token("mlm/span", words.start_W)
        segment_W = np.cumsum(words.boundary_W)  # spans stay inside a segment
        covered_W = begins_W.copy()
        for n in (1, 2):
            reaches = begins_W[:-n] & (span_W[:-n] < _SPAN_LONGER[n]) & (segment_W[:-n] == segment_W[n:])
            covered_W[n:] |= reaches
        return words.spread(covered_W)

    def build_head(self, config: HeadConfig) -> Head:
        return MaskedLMHead(config)

    def loss(self, logits: Mapping[str, Tensor], targets: Targets, mean_tokens: float) -> Loss:
        """Cross entropy of the rows of ``logits["mlm"]`` (M, V), which stand at the targets' positions already."""
        rows_MV = logits["mlm"].float()
        target = targets.get("mlm")
        labels_M = target["labels"] if target is not None else rows_MV.new_zeros(0, dtype=torch.long)
        count = torch.full((), float(labels_M.numel()), device=rows_MV.device)
        total = F.cross_entropy(rows_MV, labels_M, reduction="sum")
        return Loss(total / self.options.mask_prob, {"mlm": basic_counters(total, rows_MV, labels_M, count)})

    def metrics(self, counters: Mapping[str, Tensor]) -> dict[str, float]:
        values = basic_metrics(counters["mlm"])
        return values | {"ppl": exp(min(values["loss"], 700.0))}

    def measure(self, target: str) -> Measure:
        """Nats a masked token."""
        return Measure(LOSS, _sums, ratio, lambda sums: float(ratio(sums)))

    def count(self, text: "TrainingText", sampling: Sampling) -> "TrainingText":
        """Pieces by what stands beside them, and as the baseline by how frequent they are."""
        return text


def _sums(seen: Seen, counted: "TrainingText") -> Sums:
    labels_M = seen.labels_M
    left, _, right = seen.neighbours()
    neighbours_M = -np.log(counted.bigrams.between(left, labels_M.numpy(), right))
    return {
        VALUE: with_ones(F.cross_entropy(seen.logits_MC, labels_M, reduction="none")),
        BASELINE: with_ones(-counted.unigram_V[labels_M]),
        COUNTS: with_ones(torch.from_numpy(neighbours_M)),
    }
