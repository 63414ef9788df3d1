"""Held-out values of every objective with 95 % intervals, beside a trivial baseline (unigrams, the majority, chance)
and counts of the training text.

Samples are those of a view of the evaluation's own, the same for every model of one vocabulary, or those of the
model's training.

What is measured of an objective's targets, and beside what, the objective says (`objectives.measure`). Intervals come
from the bootstrap over samples.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from fairseq import utils
from torch import Tensor
from tqdm import tqdm

from hmtl_plugin.checkpoints import LoadedCheckpoint
from hmtl_plugin.counting.training_text import TrainingText
from hmtl_plugin.data.dataset import PretrainingDataset
from hmtl_plugin.data.splits import open_split
from hmtl_plugin.errors import UserError
from hmtl_plugin.evaluation.word_bits import WORDS, masked_words, word_bits
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertModel
from hmtl_plugin.models.mix import Mix, shares_of
from hmtl_plugin.objectives import measure
from hmtl_plugin.objectives.base import OF_MODEL, Objective, build_objectives, option_fields
from hmtl_plugin.objectives.measure import FloatArray, Measure, Sampling, Seen, find_metric
from hmtl_plugin.precision import autocast, check_device
from hmtl_plugin.tokenizers.vocabulary_state import check_folder

logger = logging.getLogger(__name__)

FIXED, TRAINING = "fixed", "training"
FIXED_OPTIONS: dict[str, Any] = {"tokens_per_sample": 64, "short_seq_prob": 0.1, "pairing": "auto", "valid_seed": 0}
"""Options of the task in the fixed view, beside objectives' defaults; a change makes earlier results incomparable."""


@dataclass(frozen=True)
class Estimate:
    """One value on held-out samples.

    Attributes:
        target: what is predicted (``mlm``, ``nsp``, ``bigram_shift`` ...; `WORDS`); with ``@3`` read from layer 3
            alone.
        metric: name of a `measure.Metric`: ``loss`` (nats a masked token), ``accuracy`` (percent), ``auc``, ``bits`` (a
            character), or an objective's own.
        low, high: 95 % bootstrap interval over samples.
        baseline: the same metric without a model.
        counts: what counting the training text reaches, where an objective has such counts: `BigramCounts` for what
            asks for the order of words, `PairCounts` for next sentences.
        sizes: of next sentences, what the sizes of the two segments alone reach; None for others.
        shares: of an objective that reads a mix of layers, the share of each, the layer's number as text.
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
    shares: dict[str, float] | None = None

    @classmethod
    def of_record(cls, metrics: Mapping[str, Any]) -> "Estimate":
        """From the ``metrics`` of a result, which called the counts ``bigrams`` before there were others."""
        renamed = {"counts" if name == "bigrams" else name: value for name, value in metrics.items()}
        return cls(**{each.name: renamed[each.name] for each in fields(cls) if each.name in renamed})

    @property
    def better(self) -> bool:
        """Whether the interval lies wholly on the better side of the baseline."""
        return self._beyond(self.baseline)

    @property
    def beats_counts(self) -> bool | None:
        """Whether it lies wholly on the better side of the counts; None without any."""
        return None if self.counts is None else self._beyond(self.counts)

    def _beyond(self, other: float) -> bool:
        return self.high < other if find_metric(self.metric).lower_is_better else self.low > other


def view_options(checkpoint: LoadedCheckpoint, view: str) -> SimpleNamespace:
    """The task's options that a view is made with: `FIXED_OPTIONS` and objectives' defaults, or those that the
    checkpoint was trained with; what its heads depend on (`OF_MODEL`) is always the checkpoint's.

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
    of_model = {each.name for each in option_fields() if each.metadata.get(OF_MODEL)}
    return SimpleNamespace(**FIXED_OPTIONS, **{name: trained[name] for name in sorted(of_model & trained.keys())})


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

    An objective that reads a mix of layers is measured with each of them alone as well, ``nsp@3``: weights of
    normalised states say little of how much a layer tells. Seed and epoch of the samples are fixed; MLM and NSP are
    measured in the view that is common to all hierarchies.

    A target that no sample holds has no value, and a line of the log says so.

    Raises:
        UserError: if the data cannot be opened or do not belong to the checkpoint, or the model holds too few positions
            for the view.
    """
    check_device(device)
    check_folder(folder, checkpoint.dictionary)
    vocabulary = checkpoint.vocabulary
    options = view_options(checkpoint, view)
    placed = build_objectives(checkpoint.hierarchy.objectives, options)
    data = open_split(
        folder,
        split,
        placed,
        vocabulary,
        options,
        training=False,
        seed=options.valid_seed,
    )
    text = TrainingText.of(folder, checkpoint.dictionary, vocabulary)
    model = checkpoint.model.to(device)
    asked = {
        name: _Asked.of(name, objective, data, text) for objective in placed.values() for name in objective.target_names
    }
    mixed = [(name, mix, place) for name, mix in _mixes(model).items() for place in range(len(mix.layers))]
    found: dict[str, list[dict[str, FloatArray]]] = {}

    def measured(sample: dict[str, Any], names: Collection[str], mark: str) -> None:
        """Add the sums of these targets, under their names and ``mark``."""
        on_device = utils.move_to_cuda(sample, device) if torch.device(device).type == "cuda" else sample
        with torch.inference_mode(), autocast(precision, torch.device(device).type):
            logits, _ = model(**on_device["net_input"], targets=on_device["targets"])
        for name in names:
            rows, target = logits[name].float().cpu(), sample["targets"][name]
            sums = asked[name].sums(rows, target, sample["net_input"]["src_tokens"])
            found.setdefault(name + mark, []).append(sums)

    for batch in _progress(_batches(data, samples, max_tokens), checkpoint.path.parent.name):
        sample = data.collater(batch)
        measured(sample, sample["targets"], "")
        for name, mix, place in mixed:
            if names := [target for target in placed[name].target_names if target in sample["targets"]]:
                mix.alone = place
                measured(sample, names, f"@{mix.layers[place]}")
                mix.alone = None
    sums = {
        name: {key: np.concatenate([part[key] for part in parts]) for key in parts[0]} for name, parts in found.items()
    }
    for name in asked:
        if name not in sums or not len(sums[name][measure.VALUE]):
            logger.warning(f"{checkpoint.path}: no row {name}: none of the samples of '{split}' holds such a target")
    estimates = [
        _estimate(name, asked[name.partition("@")[0]].measure, found)
        for name, found in sums.items()
        if len(found[measure.VALUE])
    ]
    shares = shares_of(model.mixes)
    for number, estimate in enumerate(estimates):
        if estimate.target in asked and (read := shares.get(asked[estimate.target].objective)):
            of_layer = {str(layer): round(share, 4) for layer, share in read.items()}
            estimates[number] = replace(estimate, shares=of_layer)
    if view == FIXED and "mlm" in placed:
        words = masked_words(data.corpus, vocabulary, checkpoint.tokenizer, model.config.max_positions, samples)
        if isinstance(words, str):
            logger.warning(f"{checkpoint.path}: no row {WORDS}: {words}")
        else:
            bits = word_bits(model, words, vocabulary, text.unigram_V, max_tokens, precision, device)
            estimates.append(_estimate(WORDS, _WORDS, {measure.VALUE: bits[:, :2], measure.BASELINE: bits[:, [2, 1]]}))
    return estimates


def _mixes(model: HierarchicalBertModel) -> dict[str, Mix]:
    """Objective -> what it reads, where that is a mix of layers."""
    return {name: mix for name, mix in model.mixes.items() if isinstance(mix, Mix)}


@dataclass(frozen=True)
class _Asked:
    """A target: its objective, its measure, what that has counted, and whether its model gives logits of targets alone."""

    objective: str
    measure: Measure
    counted: Any
    sparse: bool

    @classmethod
    def of(cls, target: str, objective: Objective, data: PretrainingDataset, text: TrainingText) -> "_Asked":
        """Of a target that some view of ``data`` has."""
        view = next(view for view in data.views if target in view.keep)
        counted = objective.count(text, Sampling(data.pairing[view.kind], view.corrupting, data.seed))
        how: Any = objective.measure(target)
        if not isinstance(how, Measure):
            raise UserError(f"objective '{objective.name}': measure returned {type(how).__name__}: return a Measure")
        return cls(objective.name, how, counted, objective.sparse and objective.scope == "token")

    def sums(self, logits: Tensor, target: Mapping[str, Tensor], tokens_BT: Tensor) -> dict[str, FloatArray]:
        """Of each sample that holds such targets, (samples, K) for each kind of sums.

        Args:
            logits: (M, C) where ``sparse``, else (B, T, C) or (B, C).
        """
        positions_M, labels_M = target["positions"], target["labels"]
        rows_MC = logits if self.sparse else logits.flatten(0, -2)[positions_M]
        of_tokens = self.sparse or logits.dim() == 3
        row_M = positions_M // tokens_BT.shape[1] if of_tokens else positions_M
        grouped = {}
        found = self.measure.sums(Seen(rows_MC, labels_M, positions_M, tokens_BT), self.counted)
        self._check(found, len(labels_M))
        for name, sums_MK in found.items():
            # of whole rows: numpy's add.at takes half of an evaluation
            sums_BK = torch.zeros(len(tokens_BT), sums_MK.shape[1], dtype=torch.float64)
            grouped[name] = sums_BK.index_add_(0, row_M, sums_MK.double())[row_M.unique()].numpy()
        return grouped

    def _check(self, found: Mapping[str, Any], targets: int) -> None:
        """Raise `UserError` for what cannot be added up."""
        wrong = "" if measure.VALUE in found else f"are without '{measure.VALUE}'"
        for name, sums in found.items():
            if not isinstance(sums, Tensor):
                wrong = f"'{name}' is a {type(sums).__name__}"
            elif sums.dim() != 2 or len(sums) != targets:
                wrong = f"'{name}' has shape {tuple(sums.shape)}"
        if wrong:
            raise UserError(
                f"objective '{self.objective}': the sums of its measure: {wrong}: give tensors ({targets}, K), a row a target"
            )


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


_WORDS = Measure(measure.BITS, measure.right_answers, measure.ratio, lambda sums: float(measure.ratio(sums)))
"""Its samples are not the data set's, nor its sums: `word_bits` gives these."""


def _estimate(target: str, how: Measure, sums: Mapping[str, FloatArray]) -> Estimate:
    """Of the sums of one target, of each sample."""
    value, low, high, baseline, others = measure.estimate(how, sums)
    samples = len(sums[measure.VALUE])
    counts, sizes = others.get(measure.COUNTS), others.get(measure.SIZES)
    return Estimate(target, how.metric.name, value, low, high, baseline, samples, counts, sizes)
