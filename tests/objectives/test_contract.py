"""What an objective may not do to a batch is refused, naming it, before anything is measured by it."""

import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from hmtl_plugin.conformance import Trial
from hmtl_plugin.corruption.batch import IGNORE, FlatBatch
from hmtl_plugin.corruption.corrupt import corrupt_batch
from hmtl_plugin.corruption.random import BatchRandom
from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.data.splits import open_split
from hmtl_plugin.errors import UserError
from hmtl_plugin.evaluation.held_out import evaluate
from hmtl_plugin.objectives import base
from hmtl_plugin.objectives.base import (
    Head,
    HeadConfig,
    Loss,
    Objective,
    PooledHead,
    Targets,
    build_objectives,
    register_objective,
)
from hmtl_plugin.objectives.measure import CLASSES
from tests.objectives.batches import make_batch, make_dictionary
from tests.training.runs import make_data

VOCABULARY = Vocabulary.from_dictionary(make_dictionary())
Corruption = Callable[[FlatBatch, BatchRandom], None]


class Any(Objective):
    """Corrupts as it is told to."""

    corruption: ClassVar[Corruption] = staticmethod(lambda batch, random: None)

    @property
    def scope(self) -> Literal["token", "sentence"]:
        return "sentence"

    def corrupt(self, batch: FlatBatch, random: BatchRandom) -> None:
        batch.targets[self.name] = np.zeros(len(batch.lengths_B), dtype=np.int64)
        type(self).corruption(batch, random)

    def build_head(self, config: HeadConfig) -> Head:
        return PooledHead(config, self.name)

    def loss(self, logits: Mapping[str, Tensor], targets: Targets, mean_tokens: float) -> Loss:
        return Loss(logits[self.name].sum(), {self.name: torch.zeros(3)})

    def metrics(self, counters: Mapping[str, Tensor]) -> dict[str, float]:
        return {"loss": 0.0}


@pytest.fixture
def objective() -> Iterator[type[Any]]:
    """Registered for one test."""
    yield register_objective("any")(type("Mine", (Any,), {}))
    del base._REGISTRY["any"]


def batch_of(samples: int = 5) -> tuple[FlatBatch, BatchRandom]:
    batch = make_batch(np.random.default_rng(0), VOCABULARY, samples)
    return batch, BatchRandom(1, 1, batch.index_B, batch.sample_N, batch.position_N)


TOKENS = len(batch_of()[0].tokens_N)


def all_words(batch: FlatBatch, random: BatchRandom) -> None:
    plain_N = ~batch.vocabulary.special_V.take(batch.tokens_N)
    batch.tokens_N[plain_N] = batch.vocabulary.replacements[0]


def a_special(batch: FlatBatch, random: BatchRandom) -> None:
    batch.tokens_N[0] = batch.vocabulary.replacements[0]


def an_end(batch: FlatBatch, random: BatchRandom) -> None:
    batch.tokens_N[1] = batch.vocabulary.eos


def no_word(batch: FlatBatch, random: BatchRandom) -> None:
    batch.tokens_N[1] = batch.vocabulary.size


def a_length(batch: FlatBatch, random: BatchRandom) -> None:
    batch.tokens_N = batch.tokens_N[:-1]


def a_label(batch: FlatBatch, random: BatchRandom) -> None:
    batch.targets["any"] = np.full(len(batch.lengths_B), 2)


def labels_of_nothing(batch: FlatBatch, random: BatchRandom) -> None:
    batch.targets["any"] = np.zeros(3, dtype=np.int64)


def labels_of_tokens(batch: FlatBatch, random: BatchRandom) -> None:
    batch.targets["any"] = np.zeros(len(batch.tokens_N), dtype=np.int64)


def fractions(batch: FlatBatch, random: BatchRandom) -> None:
    batch.targets["any"] = np.zeros(len(batch.lengths_B))


def nothing(batch: FlatBatch, random: BatchRandom) -> None:
    del batch.targets["any"]


def a_list(batch: FlatBatch, random: BatchRandom) -> None:
    batch.targets["any"] = [0] * len(batch.lengths_B)


def a_strange_target(batch: FlatBatch, random: BatchRandom) -> None:
    batch.targets["other"] = np.zeros(len(batch.lengths_B), dtype=np.int64)


def the_masks(batch: FlatBatch, random: BatchRandom) -> None:
    batch.targets["known"][:] = IGNORE


@pytest.mark.parametrize(
    ("corruption", "said"),
    [
        (all_words, "changed a token that mlm has reserved, token "),
        (a_special, "changed a special token, token 0 of sample "),
        (an_end, "wrote the id 2, token 1 of sample "),
        (no_word, f"wrote the id {VOCABULARY.size}, token 1 of sample "),
        (a_length, "changed the length of samples"),
        (a_label, "wrote the label 2 of any: num_labels is 2, so write 0 to 1, or -1 where there is none"),
        (labels_of_nothing, "wrote 3 labels of any: write one a token, or one a sample"),
        (labels_of_tokens, f"wrote {TOKENS} labels of any: it asks of each sample, of which there are 5"),
        (nothing, "wrote no target: write batch.targets['any']"),
        (a_list, "wrote labels of any as list: write a numpy array of one dimension"),
        (fractions, "wrote labels of any as float64: they are classes (whole numbers), -1 where there is none"),
        (a_strange_target, "wrote the target other, which is none of its target_names any"),
        (the_masks, "changed the target known, which is not its own"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_it_may_not_is_refused_in_a_line(objective: type[Any], corruption: Corruption, said: str) -> None:
    objective.corruption = staticmethod(corruption)
    batch, random = batch_of()
    batch.targets["known"] = np.zeros(len(batch.tokens_N), dtype=np.int64)
    placed = build_objectives(["mlm", "any"])
    with pytest.raises(UserError) as caught:
        corrupt_batch(placed.values(), batch, random, checked=True)
    text = str(caught.value)
    assert text.startswith(f"objective 'any': corrupt {said}") and "\n" not in text


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0.5, np.nan, -1.0, 3.0, 0.0], None),
        ([0, 1, 2, 3, 4], "wrote labels of any as int64: they are numbers (float), NaN where there is none"),
        ([0.5, np.inf, 0.0, 0.0, 0.0], "wrote an infinite label of any: write numbers, NaN where there is none"),
    ],
)
def test_numbers_are_no_classes(objective: type[Any], labels: list[float], said: str | None) -> None:
    def corruption(batch: FlatBatch, random: BatchRandom) -> None:
        batch.targets["any"] = np.array(labels)

    objective.corruption, objective.numbers, objective.num_labels = staticmethod(corruption), True, None
    batch, random = batch_of()
    if said is None:
        corrupt_batch(build_objectives(["any"]).values(), batch, random, checked=True)
        return
    with pytest.raises(UserError) as caught:
        corrupt_batch(build_objectives(["any"]).values(), batch, random, checked=True)
    assert str(caught.value) == f"objective 'any': corrupt {said}"


def test_nothing_is_checked_in_training_unless_asked(objective: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    objective.corruption = staticmethod(a_label)
    placed = build_objectives(["any"]).values()
    with pytest.raises(UserError, match="wrote the label 2"):
        corrupt_batch(placed, *batch_of())  # tests have the switch
    monkeypatch.delenv("HMTL_CHECK_OBJECTIVES")
    corrupt_batch(placed, *batch_of())


def test_all_of_ours_keep_to_it() -> None:
    for seed in range(20):
        batch = make_batch(np.random.default_rng(seed), VOCABULARY, 200)
        random = BatchRandom(seed, 1, batch.index_B, batch.sample_N, batch.position_N)
        options = SimpleNamespace(mask_prob=0.5, bigram_rate=0.9, bigram_granularity="both", bigram_any_word=True)
        corrupt_batch(build_objectives(["mlm", "nsp", "bigram_shift"], options).values(), batch, random, checked=True)


# ---- where it is measured ----

OPTIONS = SimpleNamespace(tokens_per_sample=40, short_seq_prob=0.1, pairing="auto")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), documents=400)


def views_of(folder: Path, *names: str) -> dict[str, tuple[str, ...]]:
    """View -> targets that are measured in it."""
    from fairseq.data import Dictionary

    dictionary = Dictionary.load(str(folder / "dict.txt"))
    dictionary.add_symbol("<mask>")
    vocabulary = Vocabulary.from_dictionary(dictionary)
    data = open_split(folder, "valid", build_objectives(names), vocabulary, OPTIONS, training=False, seed=0)
    order = data.ordered_indices()
    for batch in data.batch_by_size(order, max_tokens=2000):
        data.collater(list(batch))
    return {view.name: view.keep for view in data.views}


def one_word_of_each(batch: FlatBatch, random: BatchRandom) -> None:
    reserved_N = np.any([batch.tokens_N < 0, *batch.reserved.values()], axis=0)
    free = np.flatnonzero(~reserved_N & ~batch.vocabulary.special_V.take(batch.tokens_N))
    _, first = np.unique(batch.sample_N[free], return_index=True)
    batch.tokens_N[free[first]] = batch.vocabulary.replacements[0]


def test_what_changes_tokens_is_measured_in_a_view_of_its_own(objective: type[Any], folder: Path) -> None:
    assert views_of(folder, "mlm", "nsp", "any") == {"common": ("mlm", "nsp", "any")}
    objective.corruption = staticmethod(one_word_of_each)
    assert views_of(folder, "any", "mlm", "nsp") == {"common": ("mlm", "nsp"), "any": ("any",)}
    assert views_of(folder, "bigram_shift", "nsp", "mlm") == {
        "common": ("nsp", "mlm"),
        "bigram_shift": ("bigram_shift",),
    }
    assert views_of(folder, "sop", "mlm") == {"common": ("mlm",), "sop": ("sop",)}
    assert views_of(folder, "any") == {"any": ("any",)}


def test_what_changes_tokens_seldom_is_found_out(objective: type[Any], folder: Path) -> None:
    """Measured in the common view it would make that another one for its hierarchy alone."""

    def seldom(batch: FlatBatch, random: BatchRandom) -> None:
        if batch.index_B.max() > 100:
            one_word_of_each(batch, random)

    objective.corruption = staticmethod(seldom)
    with pytest.raises(UserError, match=r"'any': corrupt changed token .* and none of the first samples"):
        views_of(folder, "mlm", "nsp", "any")


def test_what_does_not_repeat_is_refused(objective: type[Any], folder: Path) -> None:
    def drawn(batch: FlatBatch, random: BatchRandom) -> None:
        batch.targets["any"] = np.random.default_rng().integers(0, 2, len(batch.lengths_B))

    objective.corruption = staticmethod(drawn)
    with pytest.raises(UserError, match="'any': corrupt gives other tokens or labels for the same samples"):
        views_of(folder, "mlm", "any")


def test_a_text_without_any_label_is_said(objective: type[Any], folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    def silent(batch: FlatBatch, random: BatchRandom) -> None:
        batch.targets["any"][:] = IGNORE

    objective.corruption = staticmethod(silent)
    views_of(folder, "mlm", "any")
    assert "objective 'any': none of 19 samples has a label of any" in caplog.text


@pytest.mark.parametrize("reserved", [np.array([3, 4]), np.zeros(TOKENS), [True]])
def test_reserved_are_flags_of_tokens(objective: type[Any], reserved: object) -> None:
    objective.reserve = lambda self, batch, random: reserved  # type: ignore[method-assign,assignment]
    with pytest.raises(UserError, match=r"objective 'any': reserve returned .* return a bool for each of the"):
        corrupt_batch(build_objectives(["any"]).values(), *batch_of(), checked=True)


# ---- what a class says ----


class Asks(base.Labelling):
    """Says nothing yet."""

    def corrupt(self, batch: FlatBatch, random: BatchRandom) -> None:
        pass


@dataclass(frozen=True)
class Helpless(base.ObjectiveOptions):
    """An option without help."""

    any_size: int = 3


class Bare(base.ObjectiveOptions):
    """No dataclass of its own."""

    any_size: int = 3


@dataclass(frozen=True)
class OfFairseq(base.ObjectiveOptions):
    """Named as one of fairseq's."""

    clip_norm: float = field(default=1.0, metadata={"help": "mine"})


@dataclass(frozen=True)
class OfModel(base.ObjectiveOptions):
    """Named as one of the model's."""

    dropout: float = field(default=1.0, metadata={"help": "mine"})


def test_a_name_is_one_that_hierarchies_can_write() -> None:
    for name in ("my objective", "Mine", "a@b", ""):
        with pytest.raises(ValueError, match="a name is small letters, digits and _"):
            register_objective(name)(type("Mine", (Asks,), {"asks": "token"}))


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({}, "asks is None: write 'token' or 'sentence'"),
        ({"asks": "word"}, "asks is 'word': write 'token' or 'sentence'"),
        ({"asks": "token", "labels": ("a", "b", "c")}, "3 labels, and num_labels is 2: name each class, or none"),
        ({"asks": "token", "Options": Helpless}, "the option 'any_size' has no default or no help"),
        ({"asks": "token", "Options": Bare}, "Options is no frozen dataclass of ObjectiveOptions"),
        ({"asks": "token", "Options": OfFairseq}, "the option 'clip_norm' of an objective is one of a pre-training"),
        ({"asks": "token", "Options": OfModel}, "the option 'dropout' of an objective is one of a pre-training"),
    ],
)
def test_a_class_that_contradicts_itself_is_not_registered(attributes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        register_objective("any")(type("Mine", (Asks,), attributes))
    assert "any" not in base.objective_names()
    from fairseq.tasks import TASK_DATACLASS_REGISTRY

    assert not hasattr(TASK_DATACLASS_REGISTRY["hmtl_pretraining"](), "any_size")


def test_other_classes_than_the_checkpoints_are_refused(tmp_path: Path) -> None:
    """Their head would answer from fresh weights."""
    mine = register_objective("any")(type("Mine", (Asks,), {"asks": "token", "num_labels": 3}))
    try:
        trial = Trial("any", tmp_path)
        state = trial.model("any@1,mlm@2").state_dict()
        trial.model("any@1,mlm@2").upgrade_state_dict({**state})
        mine.num_labels = 4
        with pytest.raises(
            UserError, match=r"'any': the checkpoint has out\.bias 3, as it is now out\.bias 4: give back its num"
        ):
            trial.model("any@1,mlm@2").upgrade_state_dict({**state})
    finally:
        del base._REGISTRY["any"]


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        (None, "measure returned NoneType: return a Measure"),
        (lambda seen, counted: {"value": seen.labels_M}, "'value' has shape (M,): give tensors (M, K), a row a target"),
        (lambda seen, counted: {"value": np.zeros((len(seen.labels_M), 1))}, "'value' is a ndarray: give tensors"),
        (lambda seen, counted: {}, "are without 'value'"),
    ],
)
def test_a_measure_that_cannot_be_is_a_line(
    objective: type[Any], tmp_path: Path, measure: typing.Any, said: str
) -> None:
    objective.measure = lambda self, target: measure and replace(CLASSES, sums=measure)  # type: ignore[method-assign]
    trial = Trial("any", tmp_path)
    with pytest.raises(UserError) as caught:
        evaluate(trial.checkpoint(trial.model("any@1,mlm@2"), "any@1,mlm@2"), tmp_path, samples=20)
    sizes = re.sub(r"\(\d+,", "(M,", str(caught.value))
    assert sizes.startswith("objective 'any': ") and said in sizes


# ---- options ----


def test_an_option_is_one_objectives() -> None:
    @dataclass(frozen=True)
    class Taken(base.ObjectiveOptions):
        mask_prob: float = field(default=0.1, metadata={"help": "again"})

    with pytest.raises(ValueError, match="'any': the option 'mask_prob' is mlm's: rename it"):
        register_objective("any")(type("Mine", (Any,), {"Options": Taken}))
    assert "any" not in base.objective_names()


def test_an_option_of_ones_own_is_the_tasks(objective: type[Any]) -> None:
    from fairseq.tasks import TASK_DATACLASS_REGISTRY

    @dataclass(frozen=True)
    class Mine(base.ObjectiveOptions):
        any_size: int = field(default=3, metadata={"help": "how many"})

    try:
        register_objective("sized")(type("Sized", (Any,), {"Options": Mine}))
        assert TASK_DATACLASS_REGISTRY["hmtl_pretraining"]().any_size == 3
        assert build_objectives(["sized"], SimpleNamespace(any_size=5))["sized"].options.any_size == 5
        assert build_objectives(["sized"], SimpleNamespace())["sized"].options.any_size == 3, "an older checkpoint"
    finally:
        base._REGISTRY.pop("sized")
        for follow in base._FOLLOWERS:
            follow()
