"""Held-out values of every objective with 95 % intervals, beside a trivial baseline (unigrams, the majority, chance)
and counts of the training text.

Samples are those of a view of the evaluation's own, the same for every model of one vocabulary, or those of the
model's training.

Each sample contributes sums (of losses, right answers, or a histogram of scores); values are ratios of sums, and intervals
come from the bootstrap over samples, so that tokens of one sample are never taken for independent.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from fairseq import utils
from fairseq.data import Dictionary
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from hmtl_plugin.checkpoints import LoadedCheckpoint
from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.data.dataset import PretrainingDataset
from hmtl_plugin.data.splits import open_split
from hmtl_plugin.errors import UserError
from hmtl_plugin.objectives import roc
from hmtl_plugin.objectives.base import build_objectives
from hmtl_plugin.pair_counts import PairCounts
from hmtl_plugin.precision import autocast, check_device
from hmtl_plugin.training_text import TrainingText
from hmtl_plugin.vocabulary_state import check_folder
from hmtl_plugin.word_bits import WORDS, masked_words, word_bits

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float64]
RESAMPLES = 1000
FIXED, TRAINING = "fixed", "training"
FIXED_OPTIONS: dict[str, Any] = {
    "mask_prob": 0.15,
    "mask_scheme": "token",
    "bigram_rate": 0.1,
    "bigram_unit": "word",
    "bigram_any_word": False,
    "tokens_per_sample": 64,
    "short_seq_prob": 0.1,
    "pairing": "auto",
    "valid_seed": 0,
}
"""Options of the task in the fixed view; a change makes earlier results incomparable."""


@dataclass(frozen=True)
class Estimate:
    """One value on held-out samples.

    Attributes:
        target: what is predicted (``mlm``, ``nsp``, ``bigram_shift`` ...; `WORDS`).
        metric: ``loss`` (nats a masked token), ``accuracy`` (percent), ``auc`` or ``bits`` (a character).
        low, high: 95 % bootstrap interval over samples.
        baseline: the same metric without a model.
        counts: what counting the training text reaches: `BigramCounts` for what asks for the order of words,
            `PairCounts` for next sentences; None for others.
        sizes: of next sentences, what the sizes of the two segments alone reach; None for others.
    """

    target: str
    metric: str
    value: float
    low: float
    high: float
    baseline: float
    samples: int
    counts: float | None = None
    sizes: float | None = None

    @classmethod
    def of_record(cls, metrics: Mapping[str, Any]) -> "Estimate":
        """From the ``metrics`` of a result, which called the counts ``bigrams`` before there were others."""
        renamed = {"counts" if name == "bigrams" else name: value for name, value in metrics.items()}
        return cls(**renamed)

    @property
    def better(self) -> bool:
        """Whether the interval lies wholly on the better side of the baseline."""
        return self._beyond(self.baseline)

    @property
    def beats_counts(self) -> bool | None:
        """Whether it lies wholly on the better side of the counts; None without any."""
        return None if self.counts is None else self._beyond(self.counts)

    def _beyond(self, other: float) -> bool:
        return self.high < other if self.metric in ("loss", "bits") else self.low > other


def view_options(checkpoint: LoadedCheckpoint, view: str) -> SimpleNamespace:
    """The task's options that a view is made with: `FIXED_OPTIONS`, or those that the checkpoint was trained with.

    The granularity of bigram shift is always the checkpoint's: its heads have these targets.

    Raises:
        UserError: for the fixed view of a model that holds fewer positions than it needs.
    """
    trained = checkpoint.config["task"]
    if view == TRAINING:
        return SimpleNamespace(**trained)
    needed, held = FIXED_OPTIONS["tokens_per_sample"], checkpoint.model.max_positions()
    if held is not None and held < needed:
        raise UserError(
            f"{checkpoint.path}: holds {held} positions, and samples of the fixed view have up to {needed}: "
            "give --view training, whose values compare only among runs of the same training options"
        )
    return SimpleNamespace(**FIXED_OPTIONS, bigram_granularity=trained["bigram_granularity"])


def evaluate(
    checkpoint: LoadedCheckpoint,
    folder: Path,
    split: str = "valid",
    samples: int = 2000,
    max_tokens: int = 8192,
    precision: str = "none",
    device: str = "cpu",
    view: str = FIXED,
) -> list[Estimate]:
    """Estimates of every target of a checkpoint's hierarchy on up to ``samples`` samples of each validation view.

    Args:
        view: ``fixed``: the samples are made with `FIXED_OPTIONS` whatever the model was trained with, so that all
            models of one vocabulary get the same; and with a masked LM there is `WORDS`, which compares models of
            different vocabularies.
            ``training``: they are those of ``fairseq-train``'s validation.

    Seed and epoch of the samples are fixed; MLM and NSP are measured in the view that is common to all hierarchies.

    Raises:
        UserError: if the data cannot be opened or do not belong to the checkpoint, or the model holds too few positions
            for the view.
    """
    check_device(device)
    check_folder(folder, checkpoint.dictionary)
    vocabulary = Vocabulary.from_dictionary(checkpoint.dictionary)
    objectives = checkpoint.hierarchy.objectives
    options = view_options(checkpoint, view)
    data = open_split(
        folder,
        split,
        build_objectives(objectives, options),
        vocabulary,
        options,
        training=False,
        seed=options.valid_seed,
    )
    counts = _counts(folder, checkpoint.dictionary, data)
    model = checkpoint.model.to(device)
    found: dict[str, list[FloatArray]] = {}
    for batch in _progress(_batches(data, samples, max_tokens), checkpoint.path.parent.name):
        sample = data.collater(batch)
        on_device = utils.move_to_cuda(sample, device) if torch.device(device).type == "cuda" else sample
        with torch.inference_mode(), autocast(precision, torch.device(device).type):
            logits, _ = model(**on_device["net_input"], targets=on_device["targets"])
        length = sample["net_input"]["src_tokens"].shape[1]
        for name, target in sample["targets"].items():
            rows = target["positions"] // length if logits[name].dim() == 3 or name == "mlm" else target["positions"]
            sums = _measure(name).sums(logits[name].float().cpu(), target, sample["net_input"]["src_tokens"], counts)
            grouped = torch.zeros(sample["nsentences"], sums.shape[1], dtype=torch.float64)
            grouped.index_add_(0, rows, sums.double())  # of whole rows: numpy's add.at takes half of an evaluation
            found.setdefault(name, []).append(grouped[rows.unique()].numpy())
    if view == FIXED and "mlm" in objectives:
        asked = masked_words(data.corpus, vocabulary, checkpoint.tokenizer, model.config.max_positions, samples)
        if isinstance(asked, str):
            logger.warning(f"{checkpoint.path}: no row {WORDS}: {asked}")
        else:
            found[WORDS] = [word_bits(model, asked, vocabulary, counts.text.unigram_V, max_tokens, precision, device)]
    return [_estimate(name, np.concatenate(parts)) for name, parts in found.items()]


class _Counts(NamedTuple):
    """What counting gives for the samples of one run; ``pairs`` where there are next sentences to predict."""

    text: TrainingText
    pairs: PairCounts | None


def _counts(folder: Path, dictionary: Dictionary, data: PretrainingDataset) -> _Counts:
    text = TrainingText.of(folder, dictionary)
    for view in data.views:
        if "nsp" in view.keep:
            return _Counts(text, text.pairs(data.pairing[view.kind], view.corrupting, data.seed))
    return _Counts(text, None)


def _batches(data: PretrainingDataset, samples: int, max_tokens: int) -> list[list[int]]:
    """Up to ``samples`` random samples of each view, in batches of similar length."""
    data.set_epoch(1)
    chosen = np.concatenate(
        [
            np.random.default_rng(0).permutation(np.arange(low, high))[:samples]
            for low, high in zip(data.starts[:-1], data.starts[1:], strict=True)
        ]
    )
    wanted = np.zeros(len(data), dtype=bool)
    wanted[chosen] = True
    order = data.ordered_indices()
    return [list(batch) for batch in data.batch_by_size(order[wanted[order]], max_tokens=max_tokens)]


def _progress(batches: list[list[int]], name: str) -> Any:
    return tqdm(batches, desc=f"evaluating {name}", unit="batch", disable=None, leave=False)


def _neighbours(tokens_BT: Tensor, positions_M: Tensor) -> tuple[npt.NDArray[np.int64], ...]:
    """(M,) pieces to the left of positions, there, and to the right. What is predicted is never first or last in its row."""
    flat, positions = tokens_BT.flatten().numpy(), positions_M.numpy()
    return flat[positions - 1], flat[positions], flat[positions + 1]


def _sums_mlm(logits_MV: Tensor, target: Mapping[str, Tensor], tokens_BT: Tensor, counts: _Counts) -> Tensor:
    """(M, 4) loss, 1, unigrams' loss, bigrams' loss."""
    labels = target["labels"]
    loss = F.cross_entropy(logits_MV, labels, reduction="none").double()
    left, _, right = _neighbours(tokens_BT, target["positions"])
    bigrams = torch.from_numpy(-np.log(counts.text.bigrams.between(left, labels.numpy(), right)))
    return torch.stack([loss, torch.ones_like(loss), -counts.text.unigram_V[labels], bigrams], 1)


def _sums_right(logits: Tensor, target: Mapping[str, Tensor], tokens_BT: Tensor, counts: _Counts) -> Tensor:
    """(M, 3) right answer, 1, label."""
    right = (logits[target["positions"]].argmax(-1) == target["labels"]).double()
    return torch.stack([right, torch.ones_like(right), target["labels"].double()], 1)


def _sums_scores(logits: Tensor, target: Mapping[str, Tensor], tokens_BT: Tensor, counts: _Counts) -> Tensor:
    """(M, 4 * bins) one-hot of score bin, first for label 0, then for label 1; then the same of the bigrams' scores."""
    labels = target["labels"]
    pair = logits.flatten(0, -2)[target["positions"]]
    misfit = -torch.from_numpy(counts.text.bigrams.fit(*_neighbours(tokens_BT, target["positions"])))
    theirs = torch.stack([torch.zeros_like(misfit), misfit / 4], 1)  # within the range of the bins
    one_hot = torch.zeros(len(labels), 4 * roc.BINS, dtype=torch.uint8)
    for number, each in enumerate((pair, theirs)):
        one_hot[torch.arange(len(labels)), roc.score_bin(each, labels) + 2 * roc.BINS * number] = 1
    return one_hot


def _sums_next(logits: Tensor, target: Mapping[str, Tensor], tokens_BT: Tensor, counts: _Counts) -> Tensor:
    """(M, 5) as `_sums_right`, then whether the counts and the sizes alone are right; NaN without counts."""
    own = _sums_right(logits, target, tokens_BT, counts)
    if counts.pairs is None:
        return torch.cat([own, torch.full((len(own), 2), torch.nan, dtype=torch.float64)], 1)
    answers = counts.pairs.follows(tokens_BT[target["positions"]].numpy())
    return torch.cat([own, torch.from_numpy(np.stack(answers, 1) == target["labels"].numpy()[:, None]).double()], 1)


def _ratio(sums: FloatArray) -> FloatArray:
    return sums[..., 0] / sums[..., 1]


def _percent(sums: FloatArray) -> FloatArray:
    return 100 * _ratio(sums)


def _majority(sums: FloatArray) -> float:
    share = float(sums[2] / sums[1])
    return 100 * max(share, 1 - share)


@dataclass(frozen=True)
class _Measure:
    """How a target is measured.

    Attributes:
        sums: columns of each prediction that can be added up.
        columns: how many of them the value needs.
        value: of added columns; the others likewise, of all columns of all samples.
    """

    metric: str
    sums: Callable[[Tensor, Mapping[str, Tensor], Tensor, _Counts], Tensor]
    columns: int
    value: Callable[[FloatArray], FloatArray]
    baseline: Callable[[FloatArray], float]
    counts: Callable[[FloatArray], float] | None = None
    sizes: Callable[[FloatArray], float] | None = None


_TWO_WAY = _Measure("accuracy", _sums_right, 2, _percent, _majority)
_MEASURES = {
    "mlm": _Measure("loss", _sums_mlm, 2, _ratio, lambda s: float(s[2] / s[1]), lambda s: float(s[3] / s[1])),
    "nsp": replace(
        _TWO_WAY,
        sums=_sums_next,
        counts=lambda s: float(100 * s[3] / s[1]),
        sizes=lambda s: float(100 * s[4] / s[1]),
    ),
    "bigram_shift": _Measure(
        "auc",
        _sums_scores,
        2 * roc.BINS,
        roc.area_under_curve,
        lambda sums: 0.5,
        lambda sums: float(roc.area_under_curve(sums[2 * roc.BINS :])),
    ),
    # its samples are not the data set's: `word_bits` gives the sums
    WORDS: _Measure("bits", _sums_right, 2, _ratio, lambda s: float(s[2] / s[1])),
}


def _measure(target: str) -> _Measure:
    return _MEASURES.get(target, _TWO_WAY)


def _estimate(target: str, sums: FloatArray) -> Estimate:
    """Value and interval from the sums (samples, columns) of one target."""
    measure = _measure(target)
    own, whole = sums[:, : measure.columns], sums.sum(0)
    draws = np.random.default_rng(0).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), RESAMPLES)
    low, high = np.nanpercentile(measure.value(draws.astype(np.float64) @ own), [2.5, 97.5])
    value, baseline = float(measure.value(own.sum(0))), measure.baseline(whole)
    counts, sizes = (
        None if known is None or np.isnan(reached := known(whole)) else reached
        for known in (measure.counts, measure.sizes)
    )
    return Estimate(target, measure.metric, value, float(low), float(high), baseline, len(sums), counts, sizes)
