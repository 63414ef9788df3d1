"""What an objective is: options, a corruption of the batch, a head on a layer, a loss, and what is said of it
elsewhere.

To add an objective, write one file with a class under `@register_objective`, in this folder or outside of the project
(docs/extending.md); nothing else changes.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmtl_plugin.corruption.base import Corruption
from hmtl_plugin.counting.training_text import TrainingText
from hmtl_plugin.errors import UserError
from hmtl_plugin.hierarchy import NAME
from hmtl_plugin.objectives.measure import CLASSES, NUMBERS, Measure, Sampling, explained
from hmtl_plugin.optim.marks import mark_matrix
from hmtl_plugin.user_dir import how_to_find

Targets = Mapping[str, Mapping[str, Tensor]]
"""Target name -> {"positions": (M,) long into the flattened (B*T or N) tokens or the B samples, "labels": (M,) long, or
float64 where they are numbers}."""


OF_MODEL = "of_model"
"""In an option's metadata, true: the head depends on it, so that evaluation keeps the value of training."""


@dataclass(frozen=True)
class ObjectiveOptions:
    """An objective's options: fields with a default and ``help`` in their metadata. They become options of the task.

    Their defaults are also those of the evaluation's own view, so a change makes earlier results incomparable.
    """

    def check(self) -> None:
        """Raise `UserError` or ValueError, one line that names the option, if a value cannot be."""


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


class Objective(Corruption):
    """One pre-training objective: how it corrupts a batch (`Corruption`, where its first attributes are told), a head
    on a layer, a loss, and what is said of it elsewhere.

    Attributes:
        sparse: the head needs only the rows that hold a target (masked positions).
        num_labels: classes of the softmax that a ``label`` transfer reads; None if there is no small label set.
        labels: names of these classes, as the hub answers them; their numbers where there are none.
        titles: of targets, in reports; their names where there are none.
        curves: titles of the validation values that reports draw by update, as the log names them; if there are none,
            the loss.
        counted: what it means, in a report, to fall short of the counts of `count`.
        Options: its options, a subclass of `ObjectiveOptions`.
    """

    Options: ClassVar[type[ObjectiveOptions]] = ObjectiveOptions
    sparse: ClassVar[bool] = False
    labels: ClassVar[tuple[str, ...]] = ()
    titles: ClassVar[Mapping[str, str]] = {}
    curves: ClassVar[Mapping[str, str]] = {}
    counted: ClassVar[str] = ""

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

    def measure(self, target: str) -> Measure:
        """How one of its targets is measured on held-out samples; of classes, in right answers."""
        return CLASSES

    def count(self, text: TrainingText, sampling: Sampling) -> Any:
        """What counting the training text gives for such samples, for the measure's sums; of most objectives nothing."""
        return None


_REGISTRY: dict[str, type[Objective]] = {}
_FOLLOWERS: list[Callable[[], None]] = []


def build_objectives(names: Iterable[str], config: Any = None) -> dict[str, Objective]:
    """The named objectives, with their options read off a task config, or anything with such attributes; what it lacks,
    as a checkpoint lacks the options of later versions, has its default.

    Raises:
        UserError: for a value that cannot be.
    """
    found = {}
    for name in names:
        if name not in _REGISTRY:
            raise UserError(f"the objective '{name}' is not known here: {how_to_find()}")
        kind = _REGISTRY[name]
        given = {each.name: getattr(config, each.name) for each in fields(kind.Options) if hasattr(config, each.name)}
        options = kind.Options(**given)
        try:
            options.check()
        except ValueError as error:
            raise UserError(f"objective '{name}': {error}") from None
        found[name] = kind(options)
    return found


def option_fields() -> "list[Field[Any]]":
    """Of all objectives, in order of their names."""
    return [each for kind in known_objectives().values() for each in fields(kind.Options)]


def register_objective(name: str) -> Callable[[type[Objective]], type[Objective]]:
    """Class decorator: makes the objective known by ``name`` in hierarchies, and its options in the task's.

    Raises:
        ValueError: for a name or an option that another objective, or an option that fairseq, has; for a class that
            says too little or contradicts itself.
    """

    def register(cls: type[Objective]) -> type[Objective]:
        if name in _REGISTRY:
            raise ValueError(f"objective '{name}' is registered twice")
        _check_class(name, cls)
        taken = {each.name: other for other, kind in _REGISTRY.items() for each in fields(kind.Options)}
        for each in fields(cls.Options):
            if each.name in taken:
                raise ValueError(f"objective '{name}': the option '{each.name}' is {taken[each.name]}'s: rename it")
        cls.name = name
        _REGISTRY[name] = cls
        try:
            for follow in _FOLLOWERS:
                follow()
        except ValueError:
            del _REGISTRY[name]
            raise
        return cls

    return register


def _check_class(name: str, cls: type[Objective]) -> None:
    """What nobody would notice before training ends: see `register_objective`."""

    def wrong(what: str) -> ValueError:
        return ValueError(f"objective '{name}': {what}")

    if not re.fullmatch(NAME, name):
        raise wrong("a name is small letters, digits and _, as hierarchies write it")
    if issubclass(cls, Answering) and getattr(cls, "asks", None) not in ("token", "sentence"):
        raise wrong(f"asks is {getattr(cls, 'asks', None)!r}: write 'token' or 'sentence'")
    if cls.labels and len(cls.labels) != cls.num_labels:
        raise wrong(f"{len(cls.labels)} labels, and num_labels is {cls.num_labels}: name each class, or none")
    if not issubclass(cls.Options, ObjectiveOptions) or "__dataclass_fields__" not in vars(cls.Options):
        raise wrong("Options is no frozen dataclass of ObjectiveOptions: write @dataclass(frozen=True) above it")
    for each in fields(cls.Options):
        if not each.metadata.get("help") or (each.default is MISSING and each.default_factory is MISSING):
            raise wrong(f"the option '{each.name}' has no default or no help: give it field(default=..., metadata=...)")


def when_registered(follow: Callable[[], None]) -> None:
    """Call ``follow`` after each further registration."""
    _FOLLOWERS.append(follow)


def known_objectives() -> dict[str, type[Objective]]:
    """All of them by name, in order of their names."""
    return dict(sorted(_REGISTRY.items()))


def objective_names() -> tuple[str, ...]:
    """Names of all known objectives."""
    return tuple(known_objectives())


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


class TokenHead(Head):
    """Dense, activation, layer norm and a linear classifier of each token."""

    def __init__(self, config: HeadConfig, target: str, num_labels: int = 2) -> None:
        super().__init__()
        self.target = target
        self.dense = hidden_layer(config)
        self.activation = config.activation
        self.layer_norm = nn.LayerNorm(config.hidden, eps=config.layer_norm_eps)
        self.out = nn.Linear(config.hidden, num_labels)

    def transform(self, x: Tensor) -> Tensor:
        z: Tensor = self.layer_norm(self.activation(self.dense(x)))
        return z

    def classify(self, z: Tensor, embedding_VH: Tensor, first_B: Tensor) -> dict[str, Tensor]:
        return {self.target: self.out(z)}


class Answering(Objective):
    """An objective that says one thing of each token or each sample, from a head of its kind.

    Attributes:
        asks: ``token`` or ``sentence``.
        outputs: width of the head.
    """

    asks: ClassVar[Literal["token", "sentence"]]

    @property
    def scope(self) -> Literal["token", "sentence"]:
        return self.asks

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Width of the head."""

    def build_head(self, config: HeadConfig) -> Head:
        return (TokenHead if self.asks == "token" else PooledHead)(config, self.name, self.outputs)

    def scaled(self, total: Tensor, mean_tokens: float) -> Tensor:
        """A summed loss as `Loss.scaled_sum`: a token stands for itself, a sample for its tokens."""
        return total if self.asks == "token" else mean_tokens * total


class Labelling(Answering):
    """An objective with one label out of a few (`Objective.num_labels`) for each token or each sample.

    What is left to write is `corrupt`, which puts the labels into ``batch.targets[self.name]``, and the class's
    attributes.
    """

    @property
    def outputs(self) -> int:
        assert self.num_labels is not None, f"objective '{self.name}' has no num_labels: say how many labels there are"
        return self.num_labels

    def loss(self, logits: Mapping[str, Tensor], targets: Targets, mean_tokens: float) -> Loss:
        """Cross entropy in nats."""
        total, selected, labels, count = selected_cross_entropy(logits[self.name], targets.get(self.name))
        counters = {self.name: basic_counters(total, selected, labels, count)}
        return Loss(self.scaled(total, mean_tokens), counters | self.further_counters(selected, labels))

    def further_counters(self, selected_MC: Tensor, labels_M: Tensor) -> dict[str, Tensor]:
        """Counters (`Loss.counters`) beside those of loss and right answers, for a subclass's `metrics`."""
        return {}

    def metrics(self, counters: Mapping[str, Tensor]) -> dict[str, float]:
        return basic_metrics(counters[self.name])


class Scoring(Answering):
    """An objective with a number for each token or each sample, learnt by squared error.

    What is left to write is `corrupt`, which puts the numbers (float) into ``batch.targets[self.name]``, NaN where
    there is none. The loss is in the square of their unit: let them have a deviation of about 1.
    """

    numbers = True
    num_labels = None

    @property
    def outputs(self) -> int:
        return 1

    def loss(self, logits: Mapping[str, Tensor], targets: Targets, mean_tokens: float) -> Loss:
        """Squared error."""
        selected, labels, count = selected_rows(logits[self.name], targets.get(self.name))
        labels, said = labels.float(), selected.squeeze(-1)
        total = (said - labels).square().sum()
        moments = torch.stack([total.detach(), labels.sum(), labels.square().sum(), count])
        return Loss(self.scaled(total, mean_tokens), {self.name: moments})

    def metrics(self, counters: Mapping[str, Tensor]) -> dict[str, float]:
        sums = counters[self.name].double()
        return {"loss": float(sums[0] / sums[3]), "r2": float(explained(sums.cpu().numpy()))}

    def measure(self, target: str) -> Measure:
        """The share of the variance that is explained."""
        return NUMBERS


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
    selected, labels, count = selected_rows(logits, target)
    return F.cross_entropy(selected, labels, reduction="sum"), selected, labels, count


def selected_rows(logits: Tensor, target: Mapping[str, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (fp32, (M, C)) of the rows that hold a target, their labels (M,), and M as a scalar tensor; see
    `selected_cross_entropy`.
    """
    rows = logits.reshape(-1, logits.shape[-1])
    if target is None:
        positions = labels = torch.zeros(0, dtype=torch.long, device=logits.device)
    else:
        positions, labels = target["positions"], target["labels"]
    # `new_tensor` would copy from the host; a filled tensor does not
    count = torch.full((), float(labels.numel()), device=logits.device)
    return rows.index_select(0, positions).float(), labels, count


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
