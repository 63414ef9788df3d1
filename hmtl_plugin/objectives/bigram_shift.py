"""Bigram shift: have two neighbouring words changed places? SentEval's BShift probe made a pre-training objective.

Words move with all their pieces. What could give the answer away without any knowledge of word order stays where it is:
the first word of a sentence, words with punctuation attached, two equal words. Only words that could have moved carry a
label, and all of these with the same probability, so no score can be earned without knowing word order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from fairseq.dataclass import ChoiceEnum
from torch import Tensor, nn

from hmtl_plugin.corruption.batch import IGNORE, FlatBatch
from hmtl_plugin.corruption.random import BatchRandom
from hmtl_plugin.corruption.words import Words, find_words
from hmtl_plugin.errors import UserError
from hmtl_plugin.objectives import roc
from hmtl_plugin.objectives.base import (
    OF_MODEL,
    Head,
    HeadConfig,
    Loss,
    Objective,
    ObjectiveOptions,
    PooledHead,
    Targets,
    basic_counters,
    basic_metrics,
    hidden_layer,
    register_objective,
    selected_cross_entropy,
)
from hmtl_plugin.objectives.measure import CLASSES, MISPLACED, NEIGHBOURS, Measure, Sampling

if TYPE_CHECKING:  # they count for objectives, and know them
    from hmtl_plugin.counting.bigrams import BigramCounts
    from hmtl_plugin.counting.training_text import TrainingText

HEADS = ("hidden", "linear", "both")
"""Before the scores of words: a layer as the masked-LM head has one; none, so that any linear probe of the states of
the objective's layer, and of means of them, finds what the head knows; or the first, and a linear one that is trained
beside it for the sake of the states (deep supervision, Lee et al. 2015) and scores nothing."""
TOKEN, SENTENCE, READ_OUT = "bigram_shift", "bigram_shift_sentence", "bigram_shift_read_out"


class ShiftTokenHead(Head):
    """Moved / not moved for each token, after dense, activation and layer norm unless `HeadConfig.bigram_head` is
    ``linear``; with ``sentence`` also one label for ``<s>``.
    """

    def __init__(self, config: HeadConfig, sentence: bool) -> None:
        super().__init__()
        hidden = config.bigram_head != "linear"
        self.dense = hidden_layer(config) if hidden else None
        self.activation = config.activation
        self.layer_norm = nn.LayerNorm(config.hidden, eps=config.layer_norm_eps) if hidden else None
        self.out = nn.Linear(config.hidden, 2)
        self.linear = nn.Linear(config.hidden, 2) if config.bigram_head == "both" else None
        self.sentence = PooledHead(config, SENTENCE) if sentence else None

    def transform(self, x: Tensor) -> Tensor:
        if self.dense is None or self.layer_norm is None:
            return x
        z: Tensor = self.layer_norm(self.activation(self.dense(x)))
        return z

    def classify(self, z: Tensor, embedding_VH: Tensor, first_B: Tensor) -> dict[str, Tensor]:
        logits = {TOKEN: self.out(z)}
        if self.sentence is not None:
            z_BH = z.flatten(0, -2).index_select(0, first_B)
            logits |= self.sentence.classify(self.sentence.transform(z_BH), embedding_VH, first_B)
        return logits

    def read_out(self, x: Tensor) -> dict[str, Tensor]:
        return {} if self.linear is None else {READ_OUT: self.linear(x)}


@dataclass(frozen=True)
class BigramShiftOptions(ObjectiveOptions):
    """What changes places, how often, and what is asked of it."""

    bigram_granularity: ChoiceEnum(["token", "sentence", "both"]) = field(  # type: ignore[valid-type]
        default="token",
        metadata={"help": "bigram shift: a label for each word, one for each sample, or both", OF_MODEL: True},
    )
    bigram_rate: float = field(default=0.1, metadata={"help": "bigram shift: share of the words that may move that do"})
    bigram_unit: ChoiceEnum(["word", "piece"]) = field(  # type: ignore[valid-type]
        default="word", metadata={"help": "bigram shift: what changes places"}
    )
    bigram_any_word: bool = field(
        default=False, metadata={"help": "bigram shift: also move first words of sentences and words with punctuation"}
    )

    def check(self) -> None:
        if not 0 < self.bigram_rate < 1:
            raise UserError(f"--bigram-rate {self.bigram_rate}: use a share above 0 and below 1")


@register_objective("bigram_shift")
class BigramShift(Objective):
    """``token``: each word moved or not; ``sentence``: half of the samples carry shifts, one label a sample; ``both``."""

    Options = BigramShiftOptions
    labels = ("in place", "moved")
    titles: ClassVar[Mapping[str, str]] = {TOKEN: "shift", SENTENCE: "shift, sample"}
    curves: ClassVar[Mapping[str, str]] = {
        f"{TOKEN}_auc": "bigram shift (AUC)",
        f"{SENTENCE}_accuracy": "shift, sample (% right)",
    }
    counted = NEIGHBOURS

    @property
    def scope(self) -> Literal["token", "sentence"]:
        return "sentence" if self.options.bigram_granularity == "sentence" else "token"

    @property
    def target_names(self) -> tuple[str, ...]:
        return {"token": (TOKEN,), "sentence": (SENTENCE,), "both": (TOKEN, SENTENCE)}[self.options.bigram_granularity]

    def corrupt(self, batch: FlatBatch, random: BatchRandom) -> None:
        words = find_words(batch, pieces=self.options.bigram_unit == "piece")
        tile = self._tile(self._exchangeable(batch, words), words, random)
        swapped = tile[self._choose(batch, words, tile, random)]
        left, right = words.length_W.take(swapped), words.length_W.take(swapped + 1)
        batch.tokens_N = _exchange(batch.tokens_N, words.start_W.take(swapped), left, right)

        # both words of a tile share a label, so it does not matter which of them a token belongs to now
        label_W = np.full(len(words.start_W), IGNORE)
        label_W[tile] = label_W[tile + 1] = 0
        label_W[swapped] = label_W[swapped + 1] = 1
        if SENTENCE in self.target_names:
            shifted_B = np.full(len(batch.lengths_B), IGNORE)
            shifted_B[words.sample_W[tile]] = 0
            shifted_B[words.sample_W[swapped]] = 1
            batch.targets[SENTENCE] = shifted_B
        if TOKEN in self.target_names:
            batch.targets[TOKEN] = words.spread(label_W)

    def _exchangeable(self, batch: FlatBatch, words: Words) -> npt.NDArray[np.bool_]:
        """(W,) whether word w and the next one may change places."""
        vocabulary, tokens = batch.vocabulary, batch.tokens_N
        allowed_V = ~vocabulary.special_V if self.options.bigram_any_word else vocabulary.plain_V
        allowed_N = allowed_V.take(tokens)
        for reserved_N in batch.reserved.values():  # drawn before and without a look at what moves
            allowed_N &= ~reserved_N
        movable_W = words.every(allowed_N)
        if not self.options.bigram_any_word:
            movable_W &= ~words.sentence_start_W
        movable_W &= ~words.boundary_W
        pair_W = np.zeros(len(movable_W), dtype=bool)
        pair_W[:-1] = movable_W[:-1] & movable_W[1:] & ~words.sentence_start_W[1:]
        # only words that begin with the same piece and are of one length can be equal
        first_W = tokens.take(words.start_W)
        alike = np.flatnonzero(
            (first_W[:-1] == first_W[1:]) & (words.length_W[:-1] == words.length_W[1:]) & pair_W[:-1]
        )
        pair_W[alike[_equal(tokens, words.start_W[alike], words.start_W[alike + 1], words.length_W[alike])]] = False
        return pair_W

    def _tile(self, pair_W: npt.NDArray[np.bool_], words: Words, random: BatchRandom) -> npt.NDArray[np.int64]:
        """First words of the tiles: each run of movable words cut into pairs, beginning at its first or second word.

        Every tile moves with the same probability and words outside have no label, so where a word stands in its run
        and how long the run is tell nothing about whether it moved.
        """
        pair_P = np.flatnonzero(pair_W)
        begins_P = np.diff(pair_P, prepend=-2) > 1
        begins = np.flatnonzero(begins_P)
        # whether the run's tiles begin at its second word
        late = random.per_token("bigram_shift/order", words.start_W.take(pair_P.take(begins))) < 0.5
        run_P = np.cumsum(begins_P) - 1
        place_P = np.arange(len(pair_P)) - (begins - late).take(run_P)
        return pair_P[place_P & 1 == 0]

    def _choose(
        self, batch: FlatBatch, words: Words, tile: npt.NDArray[np.int64], random: BatchRandom
    ) -> npt.NDArray[np.bool_]:
        """Which of the tiles' words change places: ``bigram_rate`` of them."""
        draw = random.per_token("bigram_shift/choice", words.start_W.take(tile))
        swapped = draw < self.options.bigram_rate
        if SENTENCE in self.target_names:
            sample = words.sample_W.take(tile)
            least_B = np.ones(len(batch.lengths_B))  # above every draw
            np.minimum.at(least_B, sample, draw)
            swapped |= draw == least_B.take(sample)  # a sample that carries shifts has one at least
            swapped &= (random.per_sample("bigram_shift/carries") < 0.5).take(sample)
        return swapped

    def build_head(self, config: HeadConfig) -> Head:
        if self.scope == "sentence":
            return PooledHead(config, SENTENCE)
        return ShiftTokenHead(config, sentence=SENTENCE in self.target_names)

    def loss(self, logits: Mapping[str, Tensor], targets: Targets, mean_tokens: float) -> Loss:
        scaled, counters = [], {}
        for name in self.target_names:
            total, selected, labels, count = selected_cross_entropy(logits[name], targets.get(name))
            scaled.append(total if name == TOKEN else mean_tokens * total)
            counters[name] = basic_counters(total, selected, labels, count)
            counters[f"{name}_histogram"] = roc.histogram(selected, labels)
        if READ_OUT in logits:
            scaled.append(selected_cross_entropy(logits[READ_OUT], targets.get(TOKEN))[0])
        return Loss(torch.stack(scaled).sum(), counters)

    def metrics(self, counters: Mapping[str, Tensor]) -> dict[str, float]:
        values: dict[str, float] = {"loss": 0.0}
        for name in self.target_names:
            part = basic_metrics(counters[name])
            part["auc"] = float(roc.area_under_curve(counters[f"{name}_histogram"].double().cpu().numpy()))
            values["loss"] += part["loss"]
            prefix = "sentence_" if name == SENTENCE and len(self.target_names) > 1 else ""
            values |= {f"{prefix}{key}": value for key, value in part.items() if prefix or key != "loss"}
        return values

    def measure(self, target: str) -> Measure:
        """Words as misplaced; samples in right answers."""
        return MISPLACED if target == TOKEN else CLASSES

    def count(self, text: "TrainingText", sampling: Sampling) -> "BigramCounts":
        """How well a word fits between its neighbours."""
        return text.bigrams


def _equal(
    tokens_N: npt.NDArray[np.int64],
    one: npt.NDArray[np.int64],
    other: npt.NDArray[np.int64],
    length: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """Whether the runs of ``length`` tokens at ``one`` and at ``other`` are the same, piece by piece."""
    same = np.ones(len(one), dtype=bool)
    for k in range(int(length.max(initial=0))):
        inside = k < length
        same[inside] &= tokens_N[one[inside] + k] == tokens_N[other[inside] + k]
    return same


def _exchange(
    tokens_N: npt.NDArray[np.int64],
    start: npt.NDArray[np.int64],
    left: npt.NDArray[np.int64],
    right: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Tokens with each run of ``left`` tokens at ``start`` and the ``right`` tokens after it in exchanged order."""
    length = left + right
    offset = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    begin, left, right = (np.repeat(values, length) for values in (start, left, right))
    source = begin + np.where(offset < right, left + offset, offset - right)
    result = tokens_N.copy()
    result[begin + offset] = tokens_N[source]
    return result
