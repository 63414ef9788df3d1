"""Criterion ``hmtl``: the weighted sum of the losses of a hierarchy, and every objective's metrics.

    loss = sum over k of w_k * r_k * S_k,    sample_size = N, the non-pad tokens of the micro-batch,

with S_k the summed loss of objective k and r_k the expected tokens for each of its targets. All terms are sums, so
gradients are exact over ranks and accumulation. Logged are means over targets, S_k / C_k, in nats.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.logging import metrics
from fairseq.logging.meters import MetersDict
from torch import Tensor, nn

from hmtl_plugin.criterions.weighting import WEIGHTINGS, parse_warmup, warmed_up
from hmtl_plugin.objectives.base import Loss, Objective

_CENTRE = "centre_of_gravity"  # of the layers that an objective at a mix reads


@dataclass
class HmtlCriterionConfig(FairseqDataclass):
    """Options of the criterion."""

    task_weighting: ChoiceEnum(["fixed", "uncertainty"]) = field(  # type: ignore[valid-type]
        default="fixed", metadata={"help": "weights as the hierarchy gives them, or also learned uncertainties"}
    )
    weight_warmup: str = field(
        default="", metadata={"help": "raise an objective's weight linearly: 'bigram_shift:2000' (updates)"}
    )
    log_gradient_norms: int = field(
        default=0, metadata={"help": "every N updates, log the gradient norm of each objective at each tap (0: never)"}
    )


@register_criterion("hmtl", dataclass=HmtlCriterionConfig)
class HierarchicalCriterion(FairseqCriterion):
    """Needs the ``hmtl_pretraining`` task, whose hierarchy and objectives it sums over."""

    def __init__(self, task: Any, task_weighting: str, weight_warmup: str, log_gradient_norms: int) -> None:
        super().__init__(task)
        self.objectives: dict[str, Objective] = task.objectives
        self.weights: dict[str, float] = task.hierarchy.weights
        self.layers: dict[str, int] = task.layers
        self.weighting = WEIGHTINGS[task_weighting]
        self.warmup = parse_warmup(weight_warmup, tuple(self.objectives))
        self.log_gradient_norms = log_gradient_norms
        self.update = 0
        self._names: dict[str, tuple[str, ...]] = {}
        self._last_means: dict[str, float] = {}  # of training

    def set_num_updates(self, update: int) -> None:
        """The trainer's update count, for weight warm-up and the gradient-norm interval."""
        self.update = update

    def forward(
        self, model: nn.Module, sample: Mapping[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """Loss (scalar, of order N), N, and logging outputs: the same keys on every rank and batch."""
        logits, extra = model(**sample["net_input"], targets=sample["targets"])
        losses = {
            name: objective.loss(logits, sample["targets"], sample["mean_tokens"])
            for name, objective in self.objectives.items()
        }
        tokens: int = sample["ntokens"]
        weights = warmed_up(self.weights, self.warmup, self.update) if self.training else self.weights
        sums = {name: loss.scaled_sum for name, loss in losses.items()}
        total = self.weighting(sums, weights, tokens, cast(Tensor, model.task_weights))
        logging: dict[str, Any] = {
            "ntokens": tokens,
            "nsentences": sample["nsentences"],
            "sample_size": tokens,
            "objective": total.detach(),
        }
        for name, loss in losses.items():
            logging |= {f"{name}/{key}": value for key, value in loss.counters.items()}
        for name, mix in model.mixes.items():  # type: ignore[operator, union-attr]
            centre = mix.centre().detach()
            logging[f"{_CENTRE}/{name}"] = torch.stack([centre, torch.ones_like(centre)])
        if self.log_gradient_norms and self.training:
            logging |= self._gradient_norms(losses, weights, extra["taps"], tokens)
        return total, tokens, logging

    def _gradient_norms(
        self, losses: Mapping[str, Loss], weights: Mapping[str, float], taps: Mapping[str, Tensor], tokens: int
    ) -> dict[str, Tensor]:
        """(2,) vectors (norm, 1) for each objective at each tap at or below its own; zeros on other updates."""
        measured = self.update % self.log_gradient_norms == 0
        norms = {}
        for name, loss in losses.items():
            for tap in sorted({self.layers[other] for other in losses if self.layers[other] <= self.layers[name]}):
                norm = torch.zeros(2, device=loss.scaled_sum.device)
                if measured:
                    hidden = next(taps[other] for other in taps if self.layers[other] == tap)
                    (gradient,) = torch.autograd.grad(
                        weights[name] * loss.scaled_sum / tokens, hidden, retain_graph=True, allow_unused=True
                    )
                    if gradient is not None:
                        norm = torch.stack([gradient.float().norm(), torch.ones_like(norm[0])])
                norms[f"gradient_norm/{name}@{tap}"] = norm
        return norms

    def log_metrics(self, logging_outputs: Sequence[Mapping[str, Any]]) -> None:
        """Log every objective's metrics, ``loss`` (fixed-weight sum of their means, see `_weighted_loss`) and
        ``objective`` (as optimised).

        Values are derived from sums, so they are exact over batches of any size, ranks and log intervals. Sums stay on
        the device until a value is printed.
        """
        sums = {key: sum(log[key] for log in logging_outputs) for key in logging_outputs[0]}
        for key, value in sums.items():
            if "/" in key:
                metrics.log_scalar_sum(f"_{key}", value.double())
        if self.training:  # validation views hold some objectives' targets each, so their tokens are no denominator
            tokens = max(float(sums["sample_size"]), 1.0)
            metrics.log_scalar("objective", sums["objective"] / tokens, tokens, priority=6, round=3)
        metrics.log_derived("loss", partial(self._weighted_loss, self.training), priority=5)
        for position, (name, objective) in enumerate(self.objectives.items()):
            for metric in self._metric_names(name, objective, sums):
                metrics.log_derived(f"{name}_{metric}", partial(self._metric, name, metric), priority=10 + position)
        for key in sums:
            if key.startswith("gradient_norm/"):
                metrics.log_derived(f"gnorm_{key.partition('/')[2]}", partial(_mean, f"_{key}"), priority=450)
            if key.startswith(f"{_CENTRE}/"):
                metrics.log_derived(f"{key.partition('/')[2]}_depth", partial(_mean, f"_{key}"), priority=90)

    def _metric_names(self, name: str, objective: Objective, sums: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Names of an objective's metrics, asked for once."""
        if name not in self._names:
            empty = {
                key.partition("/")[2]: torch.zeros(value.shape)
                for key, value in sums.items()
                if key.startswith(f"{name}/")
            }
            self._names[name] = tuple(objective.metrics(empty))
        return self._names[name]

    def _objective_metrics(self, name: str, meters: MetersDict) -> dict[str, float]:
        prefix = f"_{name}/"
        counters = {key.removeprefix(prefix): meters[key].sum for key in meters if key.startswith(prefix)}
        if not all(torch.is_tensor(counter) for counter in counters.values()):
            return defaultdict(lambda: float("nan"))  # fairseq has reset its meters, nothing was logged since
        return self.objectives[name].metrics({key: counter.cpu() for key, counter in counters.items()})

    def _metric(self, name: str, metric: str, meters: MetersDict) -> float:
        return round(self._objective_metrics(name, meters)[metric], 4)

    def _weighted_loss(self, training: bool, meters: MetersDict) -> float:
        """Sum of w_k * S_k / C_k. An objective without a target adds nothing in validation, whose targets are always
        the same; in training what it last was, so that neighbouring lines of the log compare. Where none has had any
        there is no loss: as 0 it would be the best of all checkpoints.
        """
        means = {name: self._objective_metrics(name, meters)["loss"] for name in self.objectives}
        means = {name: mean for name, mean in means.items() if mean == mean}
        if training:
            means = self._last_means = self._last_means | means
        return round(sum(self.weights[name] * mean for name, mean in means.items()), 5) if means else float("nan")

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Every logging value is a number or a vector of sums."""
        return True


def _mean(key: str, meters: MetersDict) -> float:
    if not torch.is_tensor(meters[key].sum):
        return float("nan")
    total, count = meters[key].sum.tolist()
    return round(total / count, 5) if count else float("nan")
