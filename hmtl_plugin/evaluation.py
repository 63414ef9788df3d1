"""Held-out values of every objective with 95 % intervals, beside what knows nothing: unigrams, the majority, chance.

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

from hmtl_plugin.checkpoints import LoadedCheckpoint
from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.dataset import PretrainingDataset
from hmtl_plugin.data.splits import open_split
from hmtl_plugin.objectives import roc
from hmtl_plugin.precision import autocast

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
        better: whether the interval lies wholly on the better side of the baseline.
    """

    target: str
    metric: str
    value: float
    low: float
    high: float
    baseline: float
    samples: int

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
    vocabulary = Vocabulary.from_dictionary(checkpoint.dictionary)
    options = SimpleNamespace(**checkpoint.config["task"])
    data = open_split(
        folder, split, checkpoint.objectives, vocabulary, options, training=False, seed=options.valid_seed
    )
    unigram_V = unigram_log_probabilities(Corpus(str(folder / "train"), eos=vocabulary.eos), vocabulary)
    model = checkpoint.model.to(device)
    found: dict[str, list[FloatArray]] = {}
    for batch in _progress(_batches(data, samples, max_tokens), checkpoint.path.parent.name):
        sample = data.collater(batch)
        on_device = utils.move_to_cuda(sample) if torch.device(device).type == "cuda" else sample
        with torch.inference_mode(), autocast(precision, torch.device(device).type):
            logits, _ = model(**on_device["net_input"], targets=on_device["targets"])
        length = sample["net_input"]["src_tokens"].shape[1]
        for name, target in sample["targets"].items():
            rows = target["positions"] // length if logits[name].dim() == 3 or name == "mlm" else target["positions"]
            sums = _SUMS.get(name, _sums_right)(logits[name].float().cpu(), target, unigram_V)
            grouped = np.zeros((sample["nsentences"], sums.shape[1]))
            np.add.at(grouped, rows.numpy(), sums.double().numpy())
            found.setdefault(name, []).append(grouped[np.bincount(rows.numpy(), minlength=len(grouped)) > 0])
    return [_estimate(name, np.concatenate(parts)) for name, parts in found.items()]


def unigram_log_probabilities(corpus: Corpus, vocabulary: Vocabulary) -> Tensor:
    """(V,) log-probability of each id in the training text (its first 50 M tokens), add-one smoothed; no specials."""
    counts = np.ones(vocabulary.size)
    for start in range(0, min(len(corpus.tokens), UNIGRAM_TOKENS), 1 << 20):
        counts += np.bincount(corpus.tokens[start : start + (1 << 20)], minlength=vocabulary.size)
    counts[vocabulary.special_V] = 0
    with np.errstate(divide="ignore"):
        return torch.from_numpy(np.log(counts / counts.sum()))


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


def _sums_mlm(logits_MV: Tensor, target: Mapping[str, Tensor], unigram_V: Tensor) -> Tensor:
    """(M, 3) loss, unigram loss, 1."""
    loss = F.cross_entropy(logits_MV, target["labels"], reduction="none")
    return torch.stack([loss.double(), -unigram_V[target["labels"]], torch.ones_like(loss).double()], 1)


def _sums_right(logits: Tensor, target: Mapping[str, Tensor], unigram_V: Tensor) -> Tensor:
    """(M, 3) right answer, label, 1."""
    right = logits[target["positions"]].argmax(-1) == target["labels"]
    return torch.stack([right.double(), target["labels"].double(), torch.ones_like(right).double()], 1)


def _sums_scores(logits: Tensor, target: Mapping[str, Tensor], unigram_V: Tensor) -> Tensor:
    """(M, 2 * bins) one-hot of score bin, first for label 0, then for label 1."""
    pair = logits.flatten(0, -2)[target["positions"]]
    return F.one_hot(roc.score_bin(pair, target["labels"]), 2 * roc.BINS)


_SUMS: dict[str, Callable[[Tensor, Mapping[str, Tensor], Tensor], Tensor]] = {
    "mlm": _sums_mlm,
    "bigram_shift": _sums_scores,
}


def _estimate(target: str, sums: FloatArray) -> Estimate:
    """Value and interval from the sums (samples, columns) of one target."""
    metric, value_of, baseline_of = _METRICS.get(target, ("accuracy", _percent, _majority))
    draws = np.random.default_rng(0).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), RESAMPLES)
    low, high = np.nanpercentile(value_of(draws.astype(np.float64) @ sums), [2.5, 97.5])
    return Estimate(target, metric, float(value_of(sums.sum(0))), float(low), float(high), baseline_of(sums), len(sums))


def _ratio(sums: FloatArray) -> FloatArray:
    return sums[..., 0] / sums[..., 2]


def _percent(sums: FloatArray) -> FloatArray:
    return 100 * sums[..., 0] / sums[..., 2]


def _unigram(sums: FloatArray) -> float:
    return float(sums[:, 1].sum() / sums[:, 2].sum())


def _majority(sums: FloatArray) -> float:
    share = float(sums[:, 1].sum() / sums[:, 2].sum())
    return 100 * max(share, 1 - share)


# target -> metric, value of summed columns, baseline of all samples' columns; all others are two-way accuracies
_METRICS: dict[str, tuple[str, Callable[[FloatArray], FloatArray], Callable[[FloatArray], float]]] = {
    "mlm": ("loss", _ratio, _unigram),
    "bigram_shift": ("auc", roc.area_under_curve, lambda sums: 0.5),
}
