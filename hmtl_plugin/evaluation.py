"""Held-out values of every objective with 95 % intervals, beside what knows nothing (unigrams, the majority, chance) and what counts know.

Each sample contributes sums (of losses, right answers, or a histogram of scores); values are ratios of sums, and intervals
come from the bootstrap over samples, so that tokens of one sample are never taken for independent.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from fairseq import utils
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from hmtl_plugin.bigram_counts import BigramCounts
from hmtl_plugin.checkpoints import LoadedCheckpoint
from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.dataset import PretrainingDataset
from hmtl_plugin.data.splits import open_split
from hmtl_plugin.objectives import roc
from hmtl_plugin.precision import autocast, check_device
from hmtl_plugin.vocabulary_state import check_folder

FloatArray = npt.NDArray[np.float64]
RESAMPLES = 1000
UNIGRAM_TOKENS = 50_000_000


@dataclass(frozen=True)
class Estimate:
    """One value on held-out samples.

    Attributes:
        target: what is predicted (``mlm``, ``nsp``, ``bigram_shift`` ...).
        metric: ``loss`` (nats a masked token), ``accuracy`` (percent) or ``auc``.
        low, high: 95 % bootstrap interval over samples.
        baseline: the same metric without a model.
        bigrams: what `BigramCounts` of the training text reach, for objectives that ask for word order; None for others.
        better: whether the interval lies wholly on the better side of the baseline.
    """

    target: str
    metric: str
    value: float
    low: float
    high: float
    baseline: float
    samples: int
    bigrams: float | None = None

    @property
    def better(self) -> bool:
        return self.high < self.baseline if self.metric == "loss" else self.low > self.baseline


def evaluate(
    checkpoint: LoadedCheckpoint,
    folder: Path,
    split: str = "valid",
    samples: int = 2000,
    max_tokens: int = 8192,
    precision: str = "none",
    device: str = "cpu",
) -> list[Estimate]:
    """Estimates of every target of a checkpoint's hierarchy on up to ``samples`` samples of each validation view.

    The samples are those of ``fairseq-train``'s validation: fixed seed, epoch 1, common view for MLM and NSP.

    Raises:
        UserError: if the data cannot be opened or do not belong to the checkpoint.
    """
    check_device(device)
    check_folder(folder, checkpoint.dictionary)
    vocabulary = Vocabulary.from_dictionary(checkpoint.dictionary)
    options = SimpleNamespace(**checkpoint.config["task"])
    data = open_split(
        folder, split, checkpoint.objectives, vocabulary, options, training=False, seed=options.valid_seed
    )
    counts = Counts(Corpus(str(folder / "train"), eos=vocabulary.eos), vocabulary)
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
            grouped = np.zeros((sample["nsentences"], sums.shape[1]))
            np.add.at(grouped, rows.numpy(), sums.numpy())
            found.setdefault(name, []).append(grouped[np.bincount(rows.numpy(), minlength=len(grouped)) > 0])
    return [_estimate(name, np.concatenate(parts)) for name, parts in found.items()]


class Counts:
    """What counting the training text gives.

    Attributes:
        unigram_V: (V,) log-probability of each id (from the first 50 M tokens), add-one smoothed; no specials.
        bigrams: pairs of neighbours.
    """

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary) -> None:
        counts = np.ones(vocabulary.size)
        for start in range(0, min(len(corpus.tokens), UNIGRAM_TOKENS), 1 << 20):
            counts += np.bincount(corpus.tokens[start : start + (1 << 20)], minlength=vocabulary.size)
        counts[vocabulary.special_V] = 0
        probability_V = counts / counts.sum()
        with np.errstate(divide="ignore"):
            self.unigram_V = torch.from_numpy(np.log(probability_V))
        self.bigrams = BigramCounts(corpus, vocabulary, probability_V)


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


def _sums_mlm(logits_MV: Tensor, target: Mapping[str, Tensor], tokens_BT: Tensor, counts: Counts) -> Tensor:
    """(M, 4) loss, 1, unigrams' loss, bigrams' loss."""
    labels = target["labels"]
    loss = F.cross_entropy(logits_MV, labels, reduction="none").double()
    left, _, right = _neighbours(tokens_BT, target["positions"])
    bigrams = torch.from_numpy(-np.log(counts.bigrams.between(left, labels.numpy(), right)))
    return torch.stack([loss, torch.ones_like(loss), -counts.unigram_V[labels], bigrams], 1)


def _sums_right(logits: Tensor, target: Mapping[str, Tensor], tokens_BT: Tensor, counts: Counts) -> Tensor:
    """(M, 3) right answer, 1, label."""
    right = (logits[target["positions"]].argmax(-1) == target["labels"]).double()
    return torch.stack([right, torch.ones_like(right), target["labels"].double()], 1)


def _sums_scores(logits: Tensor, target: Mapping[str, Tensor], tokens_BT: Tensor, counts: Counts) -> Tensor:
    """(M, 4 * bins) one-hot of score bin, first for label 0, then for label 1; then the same of the bigrams' scores."""
    labels = target["labels"]
    pair = logits.flatten(0, -2)[target["positions"]]
    misfit = -torch.from_numpy(counts.bigrams.fit(*_neighbours(tokens_BT, target["positions"])))
    theirs = torch.stack([torch.zeros_like(misfit), misfit / 4], 1)  # within the range of the bins
    one_hot = torch.zeros(len(labels), 4 * roc.BINS, dtype=torch.uint8)
    for number, each in enumerate((pair, theirs)):
        one_hot[torch.arange(len(labels)), roc.score_bin(each, labels) + 2 * roc.BINS * number] = 1
    return one_hot


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
        value: of added columns; the other two likewise, of all columns of all samples.
    """

    metric: str
    sums: Callable[[Tensor, Mapping[str, Tensor], Tensor, Counts], Tensor]
    columns: int
    value: Callable[[FloatArray], FloatArray]
    baseline: Callable[[FloatArray], float]
    bigrams: Callable[[FloatArray], float] | None = None


_TWO_WAY = _Measure("accuracy", _sums_right, 2, _percent, _majority)
_MEASURES = {
    "mlm": _Measure("loss", _sums_mlm, 2, _ratio, lambda s: float(s[2] / s[1]), lambda s: float(s[3] / s[1])),
    "bigram_shift": _Measure(
        "auc",
        _sums_scores,
        2 * roc.BINS,
        roc.area_under_curve,
        lambda sums: 0.5,
        lambda sums: float(roc.area_under_curve(sums[2 * roc.BINS :])),
    ),
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
    bigrams = measure.bigrams(whole) if measure.bigrams else None
    return Estimate(target, measure.metric, value, float(low), float(high), baseline, len(sums), bigrams)
