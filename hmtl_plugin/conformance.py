"""What every objective must do, whoever wrote it, and every optimizer: checks to run in one's own tests.

    import pytest
    from hmtl_plugin.conformance import CHECKS, Trial

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_objective(check, tmp_path):
        check(Trial("my_objective", tmp_path))

With ``Trial(..., model={"norm": "mine"})`` the same checks try a part of one's own, and `check_optimizer` an optimizer.

A check raises `AssertionError` and says what it found. All of them run on made-up text and an encoder of two layers
that was never trained, a second or so each.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from hmtl_plugin.checkpoints import LoadedCheckpoint
from hmtl_plugin.corruption.corrupt import corrupt_batch
from hmtl_plugin.corruption.random import BatchRandom
from hmtl_plugin.corruption.vocabulary import MASK, Vocabulary
from hmtl_plugin.data.dataset import PretrainingDataset
from hmtl_plugin.data.splits import COMMON, open_split
from hmtl_plugin.evaluation.held_out import evaluate
from hmtl_plugin.hub import HierarchicalBert
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertConfig, HierarchicalBertModel
from hmtl_plugin.models.transfer import OPERATORS
from hmtl_plugin.objectives.base import Objective, build_objectives, known_objectives
from hmtl_plugin.objectives.measure import find_metric
from hmtl_plugin.optim.base import HmtlOptimizer
from hmtl_plugin.optim.marks import LR_SCALE, mark_matrix
from hmtl_plugin.tasks.pretraining import task_config
from hmtl_plugin.tokenizers.base import Tokenizer

# isort: split
from fairseq.data import Dictionary
from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder
from fairseq.optim import OPTIMIZER_DATACLASS_REGISTRY, OPTIMIZER_REGISTRY

_LENGTH, _HIDDEN = 40, 32


def make_data(folder: Path, documents: int = 60, seed: int = 0, words: int = 48) -> Path:
    """A data folder as ``fairseq-preprocess`` would write it, of sentences with a little word-order structure."""
    folder.mkdir(parents=True, exist_ok=True)
    dictionary = Dictionary()
    for i in range(words):
        dictionary.add_symbol("▁" * (i % 3 != 2) + "w" + chr(97 + i % 26) + chr(97 + i // 26))
    dictionary.save(str(folder / "dict.txt"))
    rng = np.random.default_rng(seed)
    for split, count in (("train", documents), ("valid", max(4, documents // 6))):
        builder = MMapIndexedDatasetBuilder(str(folder / f"{split}.bin"), dtype=np.uint16)
        for _ in range(count):
            topic = rng.integers(4, 4 + words - 12)
            for _ in range(rng.integers(3, 9)):
                sentence = np.sort(rng.integers(topic, topic + 12, rng.integers(4, 14)))
                builder.add_item(torch.tensor([*sentence.tolist(), 2]))
            builder.add_item(torch.tensor([2]))
        builder.finalize(str(folder / f"{split}.idx"))
    return folder


class Trial:
    """One objective, with text, data sets and small models to try it on.

    Args:
        name: as it is registered.
        folder: an empty one, for the text.
        options: of the task, other than their defaults.
        model: options of the model, other than their defaults: ``{"norm": "scale"}`` tries a part of one's own.
    """

    def __init__(self, name: str, folder: Path, model: Mapping[str, Any] | None = None, **options: Any) -> None:
        self.name, self.folder, self.of_model = name, folder, dict(model or {})
        plain = OmegaConf.to_container(OmegaConf.structured(task_config()(data=str(folder), seed=1)), enum_to_str=True)
        self.config = {
            **cast(dict[str, Any], plain),
            "_name": "hmtl_pretraining",
            "tokens_per_sample": _LENGTH,
            **options,
        }
        self.options = SimpleNamespace(**self.config)
        self.partner = "bigram_shift" if name == COMMON else COMMON

    @cached_property
    def objective(self) -> Objective:
        """With the trial's options."""
        return build_objectives([self.name], self.options)[self.name]

    @cached_property
    def dictionary(self) -> Dictionary:
        """Of the text, which is written now."""
        dictionary = Dictionary.load(str(make_data(self.folder, 150) / "dict.txt"))
        dictionary.add_symbol(MASK)
        return dictionary

    def data(self, *names: str, split: str = "train", packed: bool = False) -> PretrainingDataset:
        """Of these objectives; the training split as for training, another as for validation."""
        vocabulary = Vocabulary.from_dictionary(self.dictionary)
        placed, training = build_objectives(names, self.options), split == "train"
        return open_split(
            self.folder, split, placed, vocabulary, self.options, training=training, seed=1, packed=packed
        )

    def model(self, hierarchy: str, transfer: str = "", seed: int = 1) -> HierarchicalBertModel:
        """Of this hierarchy, without dropout; weights that begin at zero are moved."""
        names = [item.split("@")[0] for item in hierarchy.split(",")]
        task = SimpleNamespace(objectives=build_objectives(names, self.options), source_dictionary=self.dictionary)
        torch.manual_seed(seed)
        built = HierarchicalBertModel.build_model(self.model_config(hierarchy, transfer), task)
        with torch.no_grad():
            for parameter in built.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        return built

    def model_config(self, hierarchy: str, transfer: str = "") -> HierarchicalBertConfig:
        """Of `model`."""
        return HierarchicalBertConfig(
            hierarchy=hierarchy,
            transfer=transfer,
            encoder_layers=2,
            encoder_embed_dim=_HIDDEN,
            encoder_attention_heads=2,
            max_positions=64,
            dropout=0.0,
            attention_dropout=0.0,
            **self.of_model,
        )

    def loss(self, model: HierarchicalBertModel, sample: dict[str, Any], name: str = "") -> Tensor:
        """The sum of an objective's loss (default: of the one on trial), as training has it."""
        targets = sample["targets"]
        logits, _ = model(**sample["net_input"], targets=targets)
        objective = build_objectives([name or self.name], self.options)[name or self.name]
        return objective.loss(logits, targets, float(sample["mean_tokens"])).scaled_sum

    def checkpoint(self, model: HierarchicalBertModel, hierarchy: str) -> LoadedCheckpoint:
        """The model as if it had been saved and opened."""
        plain = OmegaConf.to_container(OmegaConf.structured(self.model_config(hierarchy)), enum_to_str=True)
        config = {"task": self.config, "model": cast(dict[str, Any], plain), "common": {"seed": 1}}
        placed = build_objectives([item.split("@")[0] for item in hierarchy.split(",")], self.options)
        tokenizer = cast(Tokenizer, _Words(self.dictionary))
        path = self.folder / "run" / "checkpoint_last.pt"
        return LoadedCheckpoint(path, config, model.eval(), self.dictionary, tokenizer, placed, "", 0, {})


class _Words:
    """A tokenizer of the made-up words."""

    def __init__(self, dictionary: Dictionary) -> None:
        self.dictionary = dictionary

    def encode(self, text: str) -> list[int]:
        return [self.dictionary.index(word) for word in text.split()]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def encode_parts(self, parts: Sequence[str]) -> list[list[int]]:
        return self.encode_batch(list(parts))

    def decode(self, ids: list[int]) -> str:
        return " ".join(self.dictionary[number] for number in ids)


def check_declarations(trial: Trial) -> None:
    """Class names fit the classes; targets bear names of its own."""
    objective = trial.objective
    classes, labels = objective.num_labels, objective.labels
    assert classes is not None or not labels, f"labels {labels} without num_labels: say how many classes there are"
    assert not labels or len(labels) == classes, f"{len(labels)} labels of {classes} classes: name each class, or none"
    assert objective.target_names, "target_names is empty: name what corrupt writes"
    for target in objective.titles:
        assert target.startswith(trial.name), f"titles names '{target}': name its own targets"


def check_a_sample_depends_on_nothing_else(trial: Trial) -> None:
    """Neither on the samples beside it, nor on what was asked for before, nor on the worker that makes it."""
    data = trial.data(trial.name, trial.partner)
    data.set_epoch(1)
    index_B = np.arange(min(24, len(data)))
    together = data.flat_batch(0, index_B)
    for row, index in enumerate(index_B):
        alone = data.flat_batch(0, np.array([index]))
        place = slice(together.offsets[row], together.offsets[row + 1])
        assert np.array_equal(alone.tokens_N, together.tokens_N[place]), (
            f"sample {index} has other tokens when it is alone"
        )
        for name, labels in alone.targets.items():
            whole = together.targets[name]
            theirs = whole[place] if len(labels) == len(alone.tokens_N) else whole[row : row + 1]
            same = np.array_equal(labels, theirs, equal_nan=labels.dtype.kind == "f")
            assert same, f"sample {index} has other labels of {name} when it is alone"
    batches = [list(map(int, part)) for part in np.array_split(index_B, 4)]
    loader: Any = torch.utils.data.DataLoader(data, batch_sampler=batches, collate_fn=data.collater, num_workers=2)
    for batch, sample in zip(batches, loader, strict=True):
        expected = data.collater(batch)
        assert torch.equal(sample["net_input"]["src_tokens"], expected["net_input"]["src_tokens"]), "workers differ"
    data.set_epoch(2)
    other = data.flat_batch(0, index_B)
    data.set_epoch(1)
    again = data.flat_batch(0, index_B)
    assert np.array_equal(again.tokens_N, together.tokens_N), "an epoch does not come back as it was"
    assert not np.array_equal(other.tokens_N, together.tokens_N), "two epochs are the same"


def check_corruption_keeps_to_the_contract(trial: Trial) -> None:
    """Alone and among others, see `corruption.contract`; and there is something to learn."""
    data = trial.data(trial.name, trial.partner)
    data.set_epoch(1)
    objectives = data.views[0].corrupting
    index_B = np.arange(len(data))
    batch = data._indices[0].batch(data.corpus, index_B, data.vocabulary)
    corrupt_batch(objectives, batch, BatchRandom(1, 1, index_B, batch.sample_N, batch.position_N), checked=True)
    sample = data.collater(index_B.tolist())
    for target in trial.objective.target_names:
        assert len(sample["targets"][target]["labels"]), f"no sample has a label of {target}"


def check_the_common_view_is_untouched(trial: Trial) -> None:
    """Held-out values of others are measured on the same samples with it and without it."""
    if trial.name == COMMON:
        return
    without, with_it = (trial.data(*names, split="valid") for names in ([COMMON], [trial.name, COMMON]))
    view = next(number for number, view in enumerate(with_it.views) if view.name == "common")
    index_B = np.arange(len(without))
    one, other = without.flat_batch(0, index_B), with_it.flat_batch(view, index_B)
    assert np.array_equal(one.tokens_N, other.tokens_N), f"the common view has other tokens beside {trial.name}"
    assert np.array_equal(one.targets[COMMON], other.targets[COMMON]), f"masks are others beside {trial.name}"


def check_a_batch_without_targets_has_a_gradient(trial: Trial) -> None:
    """Of zero, for every weight of the head: processes wait for each other's gradients."""
    model = trial.model(f"{trial.name}@2")
    sample = trial.data(trial.name).collater(list(range(4)))
    sample["targets"] = {}
    loss = trial.loss(model, sample)
    assert loss.item() == 0, f"the loss without targets is {loss.item()}: it is to be 0"
    loss.backward()
    missing = [name for name, p in model.heads[trial.name].named_parameters() if p.grad is None]
    assert not missing, f"without targets these weights of the head have no gradient: {', '.join(missing)}"


def check_packed_equals_rows(trial: Trial) -> None:
    """A loss does not depend on how a batch lies in memory."""
    model = trial.model(f"{trial.name}@2,{trial.partner}@2").eval()
    found = []
    for packed in (False, True):
        data = trial.data(trial.name, trial.partner, packed=packed)
        with torch.no_grad():
            found.append(float(trial.loss(model, data.collater(list(range(12))))))
    assert abs(found[0] - found[1]) <= 1e-4 * max(1.0, abs(found[0])), f"rows {found[0]}, packed {found[1]}"


def check_gradients_stay_below(trial: Trial) -> None:
    """At layer 1 it trains layer 1 and nothing above, and all of its own head."""
    model = trial.model(f"{trial.name}@1,{trial.partner}@2")
    trial.loss(model, trial.data(trial.name, trial.partner).collater(list(range(12)))).backward()

    def moved(prefix: str) -> list[bool]:
        weights = [p for name, p in model.named_parameters() if name.startswith(prefix) and p.requires_grad]
        return [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in weights]

    assert any(moved("encoder.layers.0.")), "it does not train the layer that it is read from"
    assert not any(moved("encoder.layers.1.")), "it trains a layer above the one that it is read from"
    assert any(moved(f"heads.{trial.name}.")), "its loss does not train its head"
    assert not any(moved(f"heads.{trial.partner}.")), f"its loss trains the head of {trial.partner}"


def check_it_reads_a_mix_of_layers(trial: Trial) -> None:
    """Placed at ``mix`` it trains every layer, and how much of each it reads."""
    model = trial.model(f"{trial.name}@mix,{trial.partner}@2")
    loss = trial.loss(model, trial.data(trial.name, trial.partner).collater(list(range(12))))
    assert torch.isfinite(loss), f"the loss is {float(loss)}"
    loss.backward()
    weights = cast(Tensor, model.mixes[trial.name].weights)
    assert weights.grad is not None and bool(weights.grad.abs().sum() > 0), "its loss does not train the mix"


def check_every_operator_hands_on(trial: Trial) -> None:
    """Into it and out of it; what it hands on, the other's loss trains, unless ``!`` stops that."""
    for operator in OPERATORS:
        for source, target in ((trial.name, trial.partner), (trial.partner, trial.name)):
            for mark in ("", "!", "~"):
                edge = f"{source}>{target}:{operator}{mark}"
                hierarchy = f"{source}@1,{target}@2"
                if operator == "label" and known_objectives()[source].num_labels is None:
                    continue  # refused, in a line, when the model is built
                model = trial.model(hierarchy, edge)
                sample = trial.data(source, target).collater(list(range(12)))
                loss = trial.loss(model, sample, target)
                assert torch.isfinite(loss), f"{edge}: the loss is {loss.item()}"
                loss.backward()
                gradients = [p.grad for p in model.heads[source].parameters() if p.grad is not None]
                reached = any(bool(g.abs().sum() > 0) for g in gradients)
                assert reached == (mark != "!"), f"{edge}: the gradient {'reaches' if reached else 'misses'} its source"


def check_weights_come_back(trial: Trial) -> None:
    """From a state dict, to the same loss."""
    hierarchy = f"{trial.name}@1,{trial.partner}@2"
    model, other = trial.model(hierarchy), trial.model(hierarchy, seed=2)
    sample = trial.data(trial.name, trial.partner).collater(list(range(8)))
    state = model.state_dict()
    other.upgrade_state_dict(state)
    other.load_state_dict(state)
    with torch.no_grad():
        one, two = (float(trial.loss(each.eval(), sample)) for each in (model, other))
    assert one == two, f"the loss is {one}, and {two} of the same weights loaded"


def check_it_is_measured(trial: Trial) -> None:
    """Held out, each target with a value inside its interval and a baseline; the log has a loss."""
    hierarchy = f"{trial.name}@1,{trial.partner}@2"
    checkpoint = trial.checkpoint(trial.model(hierarchy), hierarchy)
    found = {each.target: each for each in evaluate(checkpoint, trial.folder, samples=60)}
    for target in trial.objective.target_names:
        assert target in found, f"{target} has no held-out value"
        value = found[target]
        assert value.low <= value.value <= value.high, f"{target}: {value.value} outside {value.low} to {value.high}"
        assert np.isfinite(value.baseline), f"{target}: the baseline is {value.baseline}"
        metric = trial.objective.measure(target).metric
        assert find_metric(metric.name) == metric, f"{target}: the metric '{metric.name}' is not registered"
    sample = trial.data(trial.name, trial.partner).collater(list(range(8)))
    logits, _ = checkpoint.model(**sample["net_input"], targets=sample["targets"])
    loss = trial.objective.loss(logits, sample["targets"], float(sample["mean_tokens"]))
    values = trial.objective.metrics(loss.counters)
    assert np.isfinite(values["loss"]), f"metrics has the loss {values['loss']}"
    for name, counter in loss.counters.items():
        assert counter.dim() == 1 and not counter.requires_grad, f"the counter {name} is no detached vector"


def check_the_hub_answers(trial: Trial) -> None:
    """Of text, as a user asks."""
    objective = trial.objective
    hub = HierarchicalBert(trial.checkpoint(trial.model(f"{trial.name}@2"), f"{trial.name}@2"))
    symbols = trial.dictionary.symbols[trial.dictionary.nspecial :]  # the third goes on with the second's word
    texts = [" ".join(symbols[:4]), " ".join(symbols[4:6])]
    if objective.sparse and objective.scope == "token":
        assert len(hub.fill_mask(f"{texts[0]} {MASK}")) > 0
        return
    if objective.scope == "token":
        words = hub.predict_words(trial.name, texts)
        assert len(words) == 2 and len(words[0]) == 3, f"{len(words[0])} words of 3"
        predicted = words[0][0].predicted
    else:
        pairs = texts if objective.pairing else None
        predicted = hub.predict(trial.name, texts, pairs)[0]
    classes = objective.num_labels
    assert classes is None or len(predicted.probabilities) == classes, f"{len(predicted.probabilities)} probabilities"
    if objective.labels:
        assert tuple(predicted.probabilities) == objective.labels, f"answers {tuple(predicted.probabilities)}"


CHECKS: tuple[Callable[[Trial], None], ...] = (
    check_declarations,
    check_a_sample_depends_on_nothing_else,
    check_corruption_keeps_to_the_contract,
    check_the_common_view_is_untouched,
    check_a_batch_without_targets_has_a_gradient,
    check_packed_equals_rows,
    check_gradients_stay_below,
    check_it_reads_a_mix_of_layers,
    check_every_operator_hands_on,
    check_weights_come_back,
    check_it_is_measured,
    check_the_hub_answers,
)


def check_optimizer(name: str, **options: Any) -> None:
    """What every subclass of `optim.base.HmtlOptimizer` must do, on a matrix of a hidden layer and a vector.

    Args:
        name: as it is registered.
        options: of its dataclass, other than their defaults.
    """

    def built() -> tuple[list[nn.Parameter], HmtlOptimizer]:
        matrix, vector = (nn.Parameter(torch.linspace(-1, 1, 64).view(shape)) for shape in ((8, 8), (64,)))
        mark_matrix(matrix)
        config = OPTIMIZER_DATACLASS_REGISTRY[name](**{"lr": [0.01], **options})
        return [matrix, vector], OPTIMIZER_REGISTRY[name](config, [matrix, vector])

    def step(weights: list[nn.Parameter], optimizer: HmtlOptimizer, number: int, scale: float = 1.0) -> list[Tensor]:
        for at, weight in enumerate(weights):
            gradient = torch.randn(weight.shape, generator=torch.Generator().manual_seed(10 * number + at))
            weight.grad = gradient * scale
        optimizer.clip_grad_norm(0.0)
        optimizer.step()
        return [weight.detach().clone() for weight in weights]

    assert issubclass(OPTIMIZER_REGISTRY[name], HmtlOptimizer), f"{name} is no HmtlOptimizer"
    weights, optimizer = built()
    optimizer.defer_check()
    before = [weight.detach().clone() for weight in weights]
    first = step(weights, optimizer, 1)
    assert not any(map(torch.equal, before, first)), "a step leaves a weight where it is"
    for group in optimizer.param_groups:
        moment = optimizer.moment_name(group)
        for weight in group["params"]:
            state = optimizer.optimizer.state[weight]
            assert moment in state and state[moment].shape == weight.shape, (
                f"state has no '{moment}' of a weight's shape"
            )
    stored = copy.deepcopy(optimizer.state_dict())
    skipped = step(weights, optimizer, 2, float("nan"))
    assert all(map(torch.equal, first, skipped)), "a gradient that is not finite moves weights: read found_inf"
    after = step(weights, optimizer, 3)
    assert all(bool(torch.isfinite(weight).all()) for weight in after), (
        "a gradient that is not finite stays in the state"
    )
    again, resumed = built()
    for weight, value in zip(again, first, strict=True):
        weight.data.copy_(value)
    resumed.load_state_dict(stored)
    assert all(map(torch.equal, step(again, resumed, 3), after)), "a state that is loaded gives another step"
    rate = optimizer.get_lr()
    optimizer.set_lr(rate / 2)
    halves = [group["lr"] / (rate / 2 * group[LR_SCALE]) for group in optimizer.param_groups]
    assert all(abs(half - 1) < 1e-6 for half in halves), "rates do not follow the schedule"
