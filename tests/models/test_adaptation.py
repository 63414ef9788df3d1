"""What is frozen stays, what begins anew is fresh, and every layer learns at its own rate."""

import copy
import logging
from typing import Any

import pytest
import torch
from fairseq.optim.fp16_optimizer import FP16Optimizer
from fairseq.optim.lr_scheduler.polynomial_decay_schedule import (
    PolynomialDecayLRSchedule,
    PolynomialDecayLRScheduleConfig,
)
from omegaconf import OmegaConf
from torch import Tensor

from hmtl_plugin.errors import UserError
from hmtl_plugin.hierarchy import Hierarchy
from hmtl_plugin.models.adaptation import Adaptation, adapt
from hmtl_plugin.models.config import EncoderConfig
from hmtl_plugin.models.finetuned_heads import SentenceHead
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertModel
from hmtl_plugin.objectives.base import build_objectives
from hmtl_plugin.optim.adamw import HmtlAdamW, HmtlAdamWConfig
from tests.optim.test_adamw import fp16_config

LAYERS = 4
TOKENS_BT = torch.tensor([[0, 9, 8, 2, 7, 2, 1, 1], [0, 9, 8, 6, 2, 1, 1, 1], [0, 9, 2, 6, 5, 7, 8, 2]])
HEAD = LAYERS + 1  # numbered as if it were one more layer
POOLINGS = ["cls", "pair"]  # without weights and with


def config(pre_norm: bool = False) -> EncoderConfig:
    return EncoderConfig(
        vocabulary=40, hidden=16, layers=LAYERS, heads=2, ffn=32, max_positions=16, normalize_before=pre_norm
    )


def model_of(
    head: str = "RTE",
    head_layer: int = LAYERS,
    seed: int = 1,
    pre_norm: bool = False,
    pooling: str = "cls",
    **choices: Any,
) -> HierarchicalBertModel:
    model = HierarchicalBertModel(config(pre_norm), seed=seed)
    model.attach_head(SentenceHead(16, 2, pooling, 0.0), head, head_layer, seed)
    adapt(model, Adaptation(**choices))
    return model


def moved(model: HierarchicalBertModel) -> HierarchicalBertModel:
    """Every weight is another one than at the start."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def pretrained(pre_norm: bool = False, pooling: str = "first") -> dict[str, Tensor]:
    hierarchy = Hierarchy.parse("nsp@2,mlm@4", "nsp>mlm:add")
    objectives = build_objectives(hierarchy.objectives)
    model = HierarchicalBertModel(config(pre_norm), hierarchy, objectives, seed=7, sentence_pooling=pooling)
    return moved(model).state_dict()


def layer_of(key: str) -> int:
    """0 for the embeddings, then the layer; the head comes after the last."""
    part, number, *_ = key.removeprefix("encoder.").split(".")
    outside = {"embeddings": 0, "task_head": HEAD}
    return outside[part] if part in outside else int(number) + 1


def optimizer_of(model: HierarchicalBertModel, **changes: Any) -> HmtlAdamW:
    """As the trainer makes it: only of parameters that want a gradient."""
    options = HmtlAdamWConfig(**({"lr": [0.01], "weight_decay": 0.5} | changes))
    return HmtlAdamW(OmegaConf.structured(options), [p for p in model.parameters() if p.requires_grad])


def steps(model: HierarchicalBertModel, optimizer: HmtlAdamW, count: int = 3) -> None:
    model.train()
    for _ in range(count):
        optimizer.zero_grad()
        optimizer.backward(model(TOKENS_BT, task_head=True)[0].square().sum())
        optimizer.step()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize(
    ("freeze", "head_layer", "frozen"),
    [(None, 4, -1), (0, 4, 0), (1, 4, 1), (4, 4, 4), (-1, 4, 4), (-4, 4, 1), (None, 2, -1), (1, 2, 1), (3, 2, 2), (-1, 2, 2)],
)  # fmt: skip
def test_frozen_weights_have_no_gradient_and_stay(
    freeze: int | None, head_layer: int, frozen: int, pre_norm: bool, pooling: str
) -> None:
    model = model_of(head_layer=head_layer, pre_norm=pre_norm, freeze_up_to=freeze, pooling=pooling)
    before = copy.deepcopy(model.state_dict())
    steps(model, optimizer_of(model))
    for key, parameter in model.named_parameters():
        layer = layer_of(key)
        free = layer == HEAD or frozen < layer <= head_layer
        if "output_norms" in key:
            free = free and layer == head_layer  # no other is read
        assert parameter.requires_grad == free, key
        assert (parameter.grad is not None) == free, key
        assert torch.equal(parameter.detach(), before[key]) != free, key


def rates(optimizer: HmtlAdamW, model: HierarchicalBertModel) -> dict[int, float]:
    """Layer -> learning rate, seen in what a step does: with a gradient of 1 throughout, AdamW moves by its rate."""
    before = copy.deepcopy(model.state_dict())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    found: dict[int, float] = {}
    for key, parameter in model.named_parameters():
        step = before[key] - parameter.detach()
        if parameter.requires_grad:
            rate = found.setdefault(layer_of(key), float(step.mean()))
            assert step.flatten().tolist() == pytest.approx([rate] * step.numel(), rel=2e-2), key
    return found


def expected(rate: float, decay: float, top: int) -> Any:
    layers = {layer: rate * decay ** (top + 1 - layer) for layer in range(top + 1)}
    return pytest.approx(layers | {HEAD: rate}, rel=1e-2)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("decay", "top"), [(1.0, 4), (0.5, 4), (0.8, 2)])
def test_each_layer_learns_at_its_rate(decay: float, top: int, pooling: str) -> None:
    model = model_of(head_layer=top, layer_decay=decay, pooling=pooling)
    optimizer = optimizer_of(model, weight_decay=0.0)
    assert optimizer.get_lr() == 0.01  # to the last digit: it is logged
    assert rates(optimizer, model) == expected(0.01, decay, top)
    optimizer.set_lr(0.002)
    assert optimizer.get_lr() == 0.002
    assert rates(optimizer, model) == expected(0.002, decay, top)


def test_a_schedule_moves_all_rates_together() -> None:
    model = model_of(layer_decay=0.5)
    optimizer = optimizer_of(model, weight_decay=0.0)
    options = PolynomialDecayLRScheduleConfig(warmup_updates=4, total_num_update=20, lr=[0.01])  # type: ignore[arg-type]
    schedule = PolynomialDecayLRSchedule(OmegaConf.structured(options), optimizer)
    for update, rate in ((1, 0.0025), (4, 0.01), (12, 0.005)):
        schedule.step_update(update)
        assert optimizer.get_lr() == pytest.approx(rate)
        assert rates(optimizer, model) == expected(rate, 0.5, LAYERS)


def test_a_frozen_layer_and_a_decay_go_together() -> None:
    model = model_of(freeze_up_to=2, layer_decay=0.5)
    assert rates(optimizer_of(model, weight_decay=0.0), model) == pytest.approx(
        {3: 0.0025, 4: 0.005, HEAD: 0.01}, rel=1e-2
    )


@pytest.mark.parametrize("pooling", POOLINGS)
def test_matrices_alone_are_decayed_in_every_layer(pooling: str) -> None:
    model = model_of(layer_decay=0.5, pooling=pooling)
    optimizer = optimizer_of(model, weight_decay=0.1)
    before = copy.deepcopy(model.state_dict())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for key, parameter in model.named_parameters():
        rate = 0.01 * 0.5 ** (HEAD - layer_of(key))
        kept = 1 - rate * 0.1 if parameter.ndim >= 2 else 1.0
        torch.testing.assert_close(parameter.detach(), before[key] * kept, msg=key)


@pytest.mark.parametrize("decay", [1.0, 0.5])
@pytest.mark.parametrize("forget", [False, True])
def test_rates_survive_saving_and_loading(decay: float, forget: bool) -> None:
    """``forget``: a state that was written before groups knew their scale."""
    old = optimizer_of(model := model_of(layer_decay=decay))
    steps(model, old)
    state = copy.deepcopy(old.state_dict())
    for group in state["param_groups"]:
        group["lr"] = 123.0
        if forget:
            del group["lr_scale"]
    again = model_of(seed=2, layer_decay=decay)
    optimizer = optimizer_of(again, weight_decay=0.0)
    optimizer.load_state_dict(state, optimizer.optimizer_config)
    assert optimizer.get_lr() == pytest.approx(0.01)
    optimizer.set_lr(0.004)
    assert optimizer.get_lr() == pytest.approx(0.004)
    learning = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for key, parameter in again.named_parameters():
        assert learning[id(parameter)] == pytest.approx(0.004 * decay ** (HEAD - layer_of(key))), key


def test_half_precision_keeps_the_rates() -> None:
    model = model_of(layer_decay=0.5).half()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = FP16Optimizer.build_optimizer(fp16_config(flat=False), parameters)
    groups = optimizer.fp32_optimizer.param_groups
    assert sorted({group["lr"] for group in groups}) == pytest.approx([0.01 * 0.5**k for k in range(5, -1, -1)])
    assert optimizer.get_lr() == pytest.approx(0.01)
    assert sum(len(group["params"]) for group in groups) == len(parameters)


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize(
    ("count", "head_layer", "fresh"), [(0, 4, ()), (1, 4, (4,)), (2, 3, (2, 3)), (4, 4, (1, 2, 3, 4))]
)
def test_the_top_layers_begin_anew(
    count: int, head_layer: int, fresh: tuple[int, ...], pre_norm: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model, theirs = model_of(head_layer=head_layer, pre_norm=pre_norm, reinit_layers=count), pretrained(pre_norm)
    own = copy.deepcopy(model.state_dict())
    caplog.set_level(logging.INFO)
    model.load_state_dict(copy.deepcopy(theirs), strict=True)
    for key, value in model.named_parameters():
        mine = layer_of(key) == HEAD or layer_of(key) in fresh
        assert torch.equal(value, own[key] if mine else theirs[key]), key
        assert mine or not torch.equal(own[key], theirs[key])
    message = f"layers {fresh[0]} to {fresh[-1]} start from fresh weights (--reinit-layers)" if fresh else ""
    assert message in caplog.text
    assert ("--reinit-layers" in caplog.text) == bool(fresh)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_resumed_run_keeps_what_it_has_learned(pooling: str, caplog: pytest.LogCaptureFixture) -> None:
    trained = moved(model_of(reinit_layers=2, pooling=pooling)).state_dict()
    model = model_of(seed=2, reinit_layers=2, pooling=pooling)
    caplog.set_level(logging.INFO)
    model.load_state_dict(copy.deepcopy(trained), strict=True)
    assert all(torch.equal(value, trained[key]) for key, value in model.state_dict().items())
    assert "fresh" not in caplog.text


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("reinit", [0, 1])
def test_a_head_of_another_task_is_not_taken(reinit: int, pooling: str, caplog: pytest.LogCaptureFixture) -> None:
    """RTE's head has the shape of MRPC's."""
    trained = moved(model_of("RTE", pooling=pooling)).state_dict()
    model = model_of("MRPC", seed=2, reinit_layers=reinit, pooling=pooling)
    own = copy.deepcopy(model.state_dict())
    caplog.set_level(logging.INFO)
    model.load_state_dict(copy.deepcopy(trained), strict=True)
    for key, value in model.named_parameters():
        mine = layer_of(key) > LAYERS - reinit
        assert torch.equal(value, own[key] if mine else trained[key]), key
    assert "dropped task_head; new, with fresh weights task_head" in caplog.text
    later = model_of("RTE", seed=3, pooling=pooling)  # the record is that of the new head
    later.load_state_dict(copy.deepcopy(model.state_dict()), strict=True)
    assert not torch.equal(later.task_head.out.weight, model.task_head.out.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_head_that_read_another_pooling_is_not_taken(pooling: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nor in part: its layers have the shapes of the new ones."""
    (other,) = set(POOLINGS) - {pooling}
    trained = moved(model_of(pooling=other)).state_dict()
    model = model_of(seed=2, pooling=pooling)
    own = copy.deepcopy(model.state_dict())
    caplog.set_level(logging.INFO)
    model.load_state_dict(copy.deepcopy(trained), strict=True)
    for key, value in model.named_parameters():
        assert torch.equal(value, own[key] if layer_of(key) == HEAD else trained[key]), key
    assert "dropped task_head; new, with fresh weights task_head" in caplog.text


def test_pre_training_s_pooling_is_not_taken() -> None:
    theirs, model = pretrained(pooling="pair"), model_of(pooling="pair")
    assert any(key.startswith("poolings.nsp.") for key in theirs)
    own = copy.deepcopy(model.state_dict())
    model.load_state_dict(copy.deepcopy(theirs), strict=True)
    for key, value in model.named_parameters():
        assert torch.equal(value, own[key] if layer_of(key) == HEAD else theirs[key]), key


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"reinit_layers": 5}, "--reinit-layers 5: use 0 to 4"),
        ({"reinit_layers": -1}, "--reinit-layers -1: use 0 to 4"),
        ({"head_layer": 2, "reinit_layers": 3}, "--reinit-layers 3: use 0 to 2"),
        ({"layer_decay": 0.0}, "--layer-decay 0.0: use a number above 0 and up to 1"),
        ({"layer_decay": 1.5}, "--layer-decay 1.5"),
        ({"layer_decay": float("nan")}, "--layer-decay nan"),
        ({"freeze_up_to": 5}, "--freeze-up-to 5: use 0 to 4, or -1 to -4 from the top"),
        ({"freeze_up_to": -6}, "--freeze-up-to -6"),
        ({"freeze_up_to": -5}, "--freeze-up-to -5"),
        ({"freeze_up_to": 3, "reinit_layers": 2}, "--freeze-up-to 3 would freeze fresh weights: --reinit-layers 2 begins layer 3"),
        ({"freeze_up_to": -1, "reinit_layers": 1}, "--freeze-up-to -1 would freeze fresh weights"),
    ],
)  # fmt: skip
def test_choices_that_do_not_fit_are_refused_by_name(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refusal:
        model_of(**choices)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_freezing_just_below_what_begins_anew_is_allowed() -> None:
    model = model_of(freeze_up_to=2, reinit_layers=2)
    free = {layer_of(key) for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert free == {3, 4, HEAD}
