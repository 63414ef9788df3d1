"""What an objective is: a corruption of the batch, a head on a layer, a loss. One file holds all three of each.

To add an objective, add one file to this folder with a class under `@register_objective`; nothing else changes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmtl_plugin.corruption.batch import FlatBatch
from hmtl_plugin.corruption.random import BatchRandom
from hmtl_plugin.optim.marks import mark_matrix

Targets = Mapping[str, Mapping[str, Tensor]]
"""Target name -> {"positions": (M,) long into the flattened (B*T or N) tokens or the B samples, "labels": (M,) long}."""


@dataclass(frozen=True)
class ObjectiveOptions:
    """The data side's options, as the task config holds them."""

    mask_prob: float = 0.15
    mask_scheme: str = "token"
    bigram_granularity: str = "token"
    bigram_rate: float = 0.1
    bigram_unit: str = "word"
    bigram_any_word: bool = False


@dataclass(frozen=True)
class HeadConfig:
    """Sizes and functions that a head shares with its encoder.

    Attributes:
        untied_output: the masked-LM head has an output matrix of its own, not the input embedding.
        bigram_head: what stands before bigram shift's scores of words, see `bigram_shift.HEADS`.
    """

    hidden: int
    vocabulary: int
    activation: Callable[[Tensor], Tensor]
    layer_norm_eps: float
    dropout: float
    untied_output: bool = False
    bigram_head: str = "hidden"


class Head(nn.Module, ABC):
    """The model's side of one placed objective."""

    @abstractmethod
    def transform(self, x: Tensor) -> Tensor:
        """(..., H) hidden states of the tap, after transfers, to z (..., H): what is handed to other objectives."""

    @abstractmethod
    def classify(self, z: Tensor, embedding_VH: Tensor, first_B: Tensor) -> dict[str, Tensor]:
        """z to logits (..., classes) by target name.

        ``embedding_VH`` is the encoder's input embedding; ``first_B`` are the rows of ``<s>`` where z holds all tokens.
        """

    def read_out(self, x: Tensor) -> dict[str, Tensor]:
        """Further logits, of what `transform` is given, that the objective's loss asks for; of most heads none."""
        return {}


@dataclass(frozen=True)
class Loss:
    """What an objective's loss says of one micro-batch.

    Attributes:
        scaled_sum: scalar, sum over targets of r * loss with r the expected tokens a target stands for, so that
            divided by the batch's tokens it estimates the mean loss a target. Additive over micro-batches and ranks.
        counters: detached 1-d vectors by name, additive too; `Objective.metrics` reads them.
    """

    scaled_sum: Tensor
    counters: dict[str, Tensor]


class Objective(ABC):
    """One pre-training objective.

    Attributes:
        name: as written in a hierarchy.
        scope: ``token`` heads see every token's hidden state, ``sentence`` heads that of ``<s>``.
        sparse: the head needs only the rows that hold a target (masked positions).
        num_labels: classes of the softmax that a ``label`` transfer reads; None if there is no small label set.
        rank: order of corruption, lowest first.
        pairing: the kind of sentence pairs the objective needs (``nsp``, ``sop``), if any.
        view: the validation view it is measured in: ``common`` (same pairs and masks for every hierarchy), or one of its own.
    """

    name: ClassVar[str]
    sparse: ClassVar[bool] = False
    num_labels: ClassVar[int | None] = 2
    rank: ClassVar[int] = 0
    pairing: ClassVar[str | None] = None
    view: ClassVar[Literal["common", "own"]] = "common"

    def __init__(self, options: ObjectiveOptions) -> None:
        self.options = options

    @property
    @abstractmethod
    def scope(self) -> Literal["token", "sentence"]:
        """Which hidden states the head sees."""

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the targets it fills in and learns from; the first one's logits feed ``label`` transfers."""
        return (self.name,)

    def reserve(self, batch: FlatBatch, random: BatchRandom) -> npt.NDArray[np.bool_] | None:
        """(N,) which tokens of the clean batch it will predict, if any: all objectives are asked before the first one corrupts."""
        return None

    @abstractmethod
    def corrupt(self, batch: FlatBatch, random: BatchRandom) -> None:
        """Change the batch in place, but tokens that others have reserved, and write the targets."""

    @abstractmethod
    def build_head(self, config: HeadConfig) -> Head:
        """The head, freshly built; the model initialises its weights from a generator keyed by the name."""

    @abstractmethod
    def loss(self, logits: Mapping[str, Tensor], targets: Targets, mean_tokens: float) -> Loss:
        """Loss and counters of a micro-batch; ``mean_tokens`` is the epoch's mean number of tokens a sample."""

    @abstractmethod
    def metrics(self, counters: Mapping[str, Tensor]) -> dict[str, float]:
        """Named values for the log from summed counters; ``loss`` (nats, mean over targets) is always among them.

        Counters that have seen no target give NaN for a value that then has no meaning.
        """


def corrupt_batch(objectives: Iterable[Objective], batch: FlatBatch, random: BatchRandom) -> None:
    """Reserve, then corrupt, by rank. So what one reserves does not depend on what another changes, and tells nothing about it."""
    ordered = sorted(objectives, key=lambda objective: objective.rank)
    for objective in ordered:
        reserved_N = objective.reserve(batch, random)
        if reserved_N is not None:
            batch.reserved[objective.name] = reserved_N
    for objective in ordered:
        objective.corrupt(batch, random)


_REGISTRY: dict[str, type[Objective]] = {}


def build_objectives(names: Iterable[str], config: Any) -> dict[str, Objective]:
    """The named objectives, with their options read off a task config (or anything with these attributes)."""
    options = ObjectiveOptions(**{option.name: getattr(config, option.name) for option in fields(ObjectiveOptions)})
    return {name: _REGISTRY[name](options) for name in names}


def register_objective(name: str) -> Callable[[type[Objective]], type[Objective]]:
    """Class decorator: makes the objective known by ``name`` in hierarchies."""

    def register(cls: type[Objective]) -> type[Objective]:
        if name in _REGISTRY:
            raise ValueError(f"objective '{name}' is registered twice")
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return register


def objective_names() -> tuple[str, ...]:
    """Names of all known objectives."""
    return tuple(sorted(_REGISTRY))


def hidden_layer(config: HeadConfig) -> nn.Linear:
    """The layer (H to H) that stands before a head's classifier, for optimizers a matrix like those of the encoder."""
    layer = nn.Linear(config.hidden, config.hidden)
    mark_matrix(layer.weight)
    return layer


class PooledHead(Head):
    """Sentence head: BERT's pooler (dense and tanh over ``<s>``) and a linear classifier."""

    def __init__(self, config: HeadConfig, target: str, num_labels: int = 2) -> None:
        super().__init__()
        self.target = target
        self.dense = hidden_layer(config)
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Linear(config.hidden, num_labels)

    def transform(self, x: Tensor) -> Tensor:
        return torch.tanh(self.dense(x))

    def classify(self, z: Tensor, embedding_VH: Tensor, first_B: Tensor) -> dict[str, Tensor]:
        return {self.target: self.out(self.dropout(z))}


def selected_cross_entropy(
    logits: Tensor, target: Mapping[str, Tensor] | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Summed cross entropy (fp32, nats) over the rows that hold a target.

    Args:
        logits: (..., C); flattened to rows that ``target["positions"]`` index. None for ``target`` means no targets:
            the sum is 0 and still depends on the logits, so that every head stays in the graph.

    Returns:
        Summed loss, logits of the selected rows (M, C), their labels (M,), and M as a scalar tensor.
    """
    rows = logits.reshape(-1, logits.shape[-1])
    if target is None:
        positions = labels = torch.zeros(0, dtype=torch.long, device=logits.device)
    else:
        positions, labels = target["positions"], target["labels"]
    selected = rows.index_select(0, positions).float()
    # `new_tensor` would copy from the host; a filled tensor does not
    count = torch.full((), float(labels.numel()), device=logits.device)
    return F.cross_entropy(selected, labels, reduction="sum"), selected, labels, count


def basic_counters(loss: Tensor, selected: Tensor, labels: Tensor, count: Tensor) -> Tensor:
    """(3,) summed loss, targets, right answers."""
    right = (_largest(selected.detach()) == labels).sum()
    return torch.stack([loss.detach().float(), count, right.float()])


def _largest(logits_MC: Tensor) -> Tensor:
    """(M,) the first index of each row's maximum; numpy finds it ten times as fast as torch 2.13 does on a CPU."""
    if logits_MC.device.type != "cpu" or torch.compiler.is_compiling():
        return logits_MC.argmax(-1)
    return torch.from_numpy(logits_MC.numpy().argmax(-1))


def basic_metrics(counters: Tensor) -> dict[str, float]:
    """Mean loss (nats) and accuracy (percent) from `basic_counters`."""
    loss, count, right = (float(value) for value in counters)
    return (
        {"loss": loss / count, "accuracy": 100 * right / count}
        if count
        else {"loss": float("nan"), "accuracy": float("nan")}
    )
