"""Systems whose held-out loss is followed while they train: ours and two of Hugging Face, in one loop on one loader.

A call is an update on the next batch of the plugin's own loader; peers get the same ids, masks and labels. Nothing is
loaded ahead, so that the clock of every system sees what its batches cost. ``measure`` gives the held-out loss, while
the clock stands still.
"""

from abc import ABC, abstractmethod
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from fairseq import optim, tasks, utils
from held_out import HeldOut, Sample
from hugging_face import bert_batch, library, shape_of
from systems import configuration
from torch import Tensor, nn

from hmtl_plugin.optim.adamw import parse_betas
from hmtl_plugin.precision import autocast

HELD = 100  # updates, warm-up among them, before a learning rate falls
WEIGHT_DECAY = 0.01


def rate(peak: float, update: int, warm_up: int) -> float:
    """Learning rate of an update (from 1), for every system.

    It rises linearly for ``warm_up`` updates, stays until update `HELD`, if that is later, and then falls as the
    inverse root of the updates. It does not depend on when a run ends, so that a run that is stopped is the beginning
    of a longer one.
    """
    return peak * min(1.0, update / max(1, warm_up), (max(HELD, warm_up) / update) ** 0.5)


@dataclass(frozen=True)
class Plan:
    """What all systems share.

    Attributes:
        data: folder of binarised data.
        arguments: of ``fairseq-train``, those that say what a batch is, and the shape of our model.
        samples: held-out samples.
        threads: of torch.
    """

    data: str
    arguments: tuple[str, ...]
    samples: int
    threads: int


def held_out(plan: Plan) -> HeldOut:
    """The samples that every system of the plan is measured on, whatever its own options are."""
    cfg = configuration([plan.data, *plan.arguments, "--hierarchy", "mlm@-1"])
    chosen = Namespace(pairing="auto", tokens_per_sample=cfg.task.tokens_per_sample, short_seq_prob=0.1)
    return HeldOut(Path(plan.data), tasks.setup_task(cfg.task).vocabulary, chosen, plan.samples)


class Training(ABC):
    """A system in training; a call is an update.

    Args:
        own: arguments of ``fairseq-train`` beyond the plan's: at least ``--hierarchy``, whose targets the batches
            have, ``--lr``, the peak, and ``--warmup-updates``.
    """

    model: Any

    def __init__(self, plan: Plan, own: Sequence[str]) -> None:
        torch.set_num_threads(plan.threads)
        self.cfg = configuration([plan.data, *plan.arguments, *own])
        utils.set_torch_seed(self.cfg.common.seed)
        self.task: Any = tasks.setup_task(self.cfg.task)
        self.build()
        self.held_out, self.updates = held_out(plan), 0
        batches = self._batches()
        self.batches = chain([next(batches)], batches)  # the first is made now: opening the data is no training

    @abstractmethod
    def build(self) -> None:
        """Make model and optimizer, and tell the task the objectives."""

    @abstractmethod
    def update(self, sample: Sample, learning_rate: float) -> None:
        """Train on a batch."""

    @abstractmethod
    def logits(self, sample: Sample) -> Tensor:
        """(M, V) at the masked positions of a batch."""

    def __call__(self) -> int:
        sample = next(self.batches)
        self.updates += 1
        peak, warm_up = self.cfg.optimization.lr[0], self.cfg.lr_scheduler.warmup_updates
        self.update(sample, rate(peak, self.updates, warm_up))
        return int(sample["ntokens"])

    def measure(self) -> float:
        """Held-out loss, in nats."""
        self.model.eval()
        with torch.inference_mode(), self.precision():
            loss = self.held_out.loss(self.logits)
        self.model.train()
        return loss

    def precision(self) -> Any:
        """Context of a forward pass."""
        return autocast(str(self.cfg.task.autocast), "cpu")

    def _batches(self) -> Iterator[Sample]:
        """Those of ``fairseq-train``, epoch after epoch, made when they are asked for."""
        self.task.load_dataset("train")
        for epoch in count(1):
            iterator = self.task.get_batch_iterator(
                self.task.dataset("train"),
                max_tokens=self.cfg.dataset.max_tokens,
                max_positions=self.task.max_positions(),
                required_batch_size_multiple=self.cfg.dataset.required_batch_size_multiple,
                seed=self.cfg.common.seed,
                epoch=epoch,
            )
            yield from iterator.next_epoch_itr(shuffle=True)


class OurTraining(Training):
    """The plugin: task, model, criterion and optimizer as ``fairseq-train`` makes them of its options."""

    def build(self) -> None:
        self.model = self.task.build_model(self.cfg.model)
        self.criterion = self.task.build_criterion(self.cfg.criterion)
        parameters = [*self.model.parameters(), *self.criterion.parameters()]
        self.optimizer = optim.build_optimizer(self.cfg.optimizer, parameters)

    def update(self, sample: Sample, learning_rate: float) -> None:
        self.optimizer.set_lr(learning_rate)
        self.optimizer.zero_grad()
        _, size, _ = self.task.train_step(sample, self.model, self.criterion, self.optimizer, self.updates - 1)
        self.optimizer.multiply_grads(1 / size)
        self.optimizer.clip_grad_norm(self.cfg.optimization.clip_norm)
        self.optimizer.step()

    def logits(self, sample: Sample) -> Tensor:
        logits, _ = self.model(**sample["net_input"], targets=sample["targets"])
        found: Tensor = logits["mlm"]
        return found


class PeerTraining(Training):
    """A model of Hugging Face with torch's fused AdamW, of our model's layers, width and heads; ``--adam-betas`` are its
    own.

    Its batches carry no mask where nothing is padded, and it has no dropout, which in so short a training only costs.
    """

    def build(self) -> None:
        self.task.place(self.cfg.model)
        model, vocabulary = self.cfg.model, self.task.vocabulary
        shape = shape_of(model.encoder_layers, model.encoder_embed_dim, vocabulary.size)
        places = {"max_position_embeddings": model.max_positions, "pad_token_id": vocabulary.pad}
        self.model = self.make(library(), shape | places).train()
        betas = parse_betas(self.cfg.optimizer.adam_betas)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=0.0, betas=betas, weight_decay=WEIGHT_DECAY, fused=True
        )

    @abstractmethod
    def make(self, transformers: Any, shape: Mapping[str, Any]) -> Any:
        """The model; ``shape`` is of its configuration."""

    def inputs(self, sample: Sample) -> dict[str, Tensor]:
        """Of the model, for a batch."""
        batch = bert_batch(sample, self.task.vocabulary)
        del batch["tokens"]
        if not sample["net_input"]["padded"]:
            del batch["attention_mask"]
        return batch

    def update(self, sample: Sample, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad()
        with self.precision():
            loss = self.model(**self.inputs(sample)).loss
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.cfg.optimization.clip_norm)
        self.optimizer.step()


class BertTraining(PeerTraining):
    """`transformers.BertForPreTraining`: masked LM and next sentence."""

    def make(self, transformers: Any, shape: Mapping[str, Any]) -> Any:
        config = transformers.BertConfig(**shape, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        return transformers.BertForPreTraining(config)

    def logits(self, sample: Sample) -> Tensor:
        found: Tensor = self.model(**self.inputs(sample)).prediction_logits
        return found.flatten(0, 1)[sample["targets"]["mlm"]["positions"]]


class ModernBertTraining(PeerTraining):
    """`transformers.ModernBertForMaskedLM`, its head on masked pieces alone.

    Padded, for it works without padding only on FlashAttention, which CPUs do not have. Its gated feed-forward layers
    are two thirds as wide as plain ones, so that they have as many weights.
    """

    def make(self, transformers: Any, shape: Mapping[str, Any]) -> Any:
        begins, ends = self.task.dictionary.bos(), self.task.vocabulary.eos
        config = transformers.ModernBertConfig(
            **{**shape, "intermediate_size": gated_width(shape["hidden_size"])},
            sparse_prediction=True,
            bos_token_id=begins,
            cls_token_id=begins,
            eos_token_id=ends,
            sep_token_id=ends,
        )
        return transformers.ModernBertForMaskedLM(config)

    def inputs(self, sample: Sample) -> dict[str, Tensor]:
        batch = super().inputs(sample)
        del batch["token_type_ids"]
        return batch

    def logits(self, sample: Sample) -> Tensor:
        found: Tensor = self.model(**self.inputs(sample)).logits  # of masked pieces alone, as there are labels
        return found


def gated_width(hidden: int) -> int:
    """Inner width at which three matrices hold what two of ``4 * hidden`` do, a multiple of 8."""
    return 8 * round(4 * hidden * 2 / 3 / 8)
