"""``hmtl_muon``: torch's Muon for marked matrices, torch's fused AdamW for the rest; nothing moves where nothing may."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.optim.fp16_optimizer import FP16Optimizer
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hmtl_plugin.errors import UserError
from hmtl_plugin.optim import newton_schulz
from hmtl_plugin.optim.adamw import HmtlAdamW, HmtlAdamWConfig
from hmtl_plugin.optim.base import HmtlOptimizer
from hmtl_plugin.optim.marks import LR_SCALE, mark, mark_layers, mark_matrix
from hmtl_plugin.optim.muon import HmtlMuon, HmtlMuonConfig
from hmtl_plugin.optim.newton_schulz import orthogonalise
from tests.optim.test_adamw import fp16_config

SHAPES = {"square": (16, 16), "another": (16, 16), "tall": (64, 16), "wide": (16, 64), "odd": (24, 40), "qkv": (48, 16)}
VECTORS = {"bias": (16,), "table": (30, 16)}
Weights = dict[str, nn.Parameter]


def weights_of(seed: int = 0, marked: bool = True) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    weights = {n: nn.Parameter(torch.randn(s, generator=generator) * 0.1) for n, s in {**SHAPES, **VECTORS}.items()}
    for name in SHAPES if marked else ():
        mark_matrix(weights[name], blocks=3 if name == "qkv" else 1)
    return weights


def optimizer_of(weights: Weights, **changes: Any) -> HmtlMuon:
    return HmtlMuon(OmegaConf.structured(HmtlMuonConfig(**({"lr": [0.01]} | changes))), weights.values())


def give_gradients(weights: Weights, update: int, without: Sequence[str] = ()) -> None:
    """Those of an update, the same for everybody; some directions of a matrix have small gradients, as in training."""
    generator = torch.Generator().manual_seed(100 + update)
    for name, p in weights.items():
        spectrum = torch.logspace(0, -2, p.shape[-1])
        gradient = (
            torch.randn(p.shape, generator=generator) * spectrum[torch.randperm(len(spectrum), generator=generator)]
        )
        p.grad = None if name in without else gradient


def train(weights: Weights, optimizer: HmtlOptimizer, updates: Sequence[int], without: Sequence[str] = ()) -> None:
    for update in updates:
        give_gradients(weights, update, without)
        optimizer.clip_grad_norm(0.0)
        optimizer.step()


def bits(weights: Weights) -> dict[str, Tensor]:
    """Copies that compare every bit, the sign of zero too."""
    return {name: p.detach().clone().view(torch.int32) for name, p in weights.items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    return [name for name in one if torch.equal(one[name], other[name])]


@pytest.fixture
def in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device that does not compute in bfloat16."""
    monkeypatch.setattr(newton_schulz, "computes_in_bf16", lambda device: False)


def check_torchs_rules(rtol: float) -> None:
    """Several updates against `torch.optim.Muon`, each block a matrix of its own, and against `torch.optim.AdamW`."""
    ours, theirs = weights_of(), weights_of()
    blocks = [nn.Parameter(block.detach().clone()) for block in theirs["qkv"].chunk(3)]
    whole = [theirs[name] for name in SHAPES if name != "qkv"]
    muon = torch.optim.Muon([*whole, *blocks], lr=0.05, weight_decay=0.3, momentum=0.9)
    groups = [{"params": [theirs["table"]], "weight_decay": 0.1}, {"params": [theirs["bias"]], "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.98), eps=1e-6, fused=True)
    optimizer = optimizer_of(ours, matrix_lr=0.05, weight_decay=0.1, matrix_weight_decay=0.3, muon_momentum=0.9)
    for update in range(5):
        before = {name: p.detach().clone() for name, p in ours.items()}
        train(ours, optimizer, [update])
        give_gradients(theirs, update)
        for block, gradient in zip(blocks, theirs["qkv"].grad.chunk(3), strict=True):  # type: ignore[union-attr]
            block.grad = gradient.clone()
        muon.step()
        adamw.step()
        with torch.no_grad():
            theirs["qkv"].copy_(torch.cat([*blocks]))
        for name in VECTORS:
            assert torch.equal(ours[name], theirs[name]), name
        for name in SHAPES:
            moved, apart = (ours[name] - before[name]).norm(), (ours[name] - theirs[name]).norm()
            assert apart <= rtol * moved, (name, update)


def test_it_is_torchs_muon_and_torchs_adamw() -> None:
    check_torchs_rules(rtol=0.02)


@pytest.mark.usefixtures("in_fp32")
def test_without_bf16_it_is_the_same_rule() -> None:
    check_torchs_rules(rtol=0.05)  # torch's own rounding


def test_a_batch_is_orthogonalised_as_its_matrices_are() -> None:
    x_NRC = torch.randn(7, 24, 40, generator=torch.Generator().manual_seed(0))
    x_NRC[3] *= 1e4
    x_NRC[5] = 0
    one_by_one = torch.cat([orthogonalise(x_RC[None]) for x_RC in x_NRC])
    together = orthogonalise(x_NRC)
    torch.testing.assert_close(together, one_by_one, rtol=1e-4, atol=1e-5)
    assert torch.equal(together[5], torch.zeros(24, 40))
    values_NR = torch.linalg.svdvals(together[[0, 1, 2, 3, 4, 6]])
    assert values_NR.min() > 0.6 and values_NR.max() < 1.3


@pytest.mark.usefixtures("in_fp32")
def test_blocks_are_orthogonal_each_and_not_together() -> None:
    weights = weights_of()
    before = weights["qkv"].detach().clone()
    train(weights, optimizer_of(weights, weight_decay=0.0, matrix_lr=1.0), [0])
    step = before - weights["qkv"].detach()
    for block in step.chunk(3):
        values = torch.linalg.svdvals(block)
        assert values.median() > 0.3 and values.max() < 1.3
    assert torch.linalg.svdvals(step).max() > 1.35  # as one matrix they are not


@pytest.mark.parametrize("poison", [0, 3])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["qkv", "tall", "bias"])
def test_a_gradient_that_is_not_finite_leaves_weights_and_state_to_the_bit(
    poison: int, value: float, where: str
) -> None:
    weights = weights_of()
    with torch.no_grad():
        weights["square"][0] = -0.0
    optimizer = optimizer_of(weights, weight_decay=0.1)
    optimizer.defer_check()
    train(weights, optimizer, range(poison))
    old, state = bits(weights), copy.deepcopy(optimizer.state_dict()["state"])
    give_gradients(weights, poison)
    weights[where].grad.view(-1)[5] = value  # type: ignore[union-attr]
    optimizer.clip_grad_norm(1.0)
    optimizer.step()
    assert same(old, bits(weights)) == list(weights)
    for number, kept in state.items():
        for key, moment in kept.items():
            assert torch.equal(optimizer.state_dict()["state"][number][key], moment), key
    train(weights, optimizer, [poison])  # and goes on as if it had not been
    straight = weights_of()
    with torch.no_grad():
        straight["square"][0] = -0.0
    never = optimizer_of(straight, weight_decay=0.1)
    never.defer_check()
    train(straight, never, range(poison + 1))
    assert same(bits(straight), bits(weights)) == list(weights)


def test_deferring_the_check_takes_the_same_steps() -> None:
    plain, deferred = weights_of(), weights_of()
    train(plain, optimizer_of(plain), range(3))
    optimizer = optimizer_of(deferred)
    optimizer.defer_check()
    train(deferred, optimizer, range(3))
    for name in plain:
        torch.testing.assert_close(plain[name], deferred[name], rtol=1e-6, atol=1e-7)


class _NothingIsRead(TorchDispatchMode):
    """Refuses what would wait for a device: a value that Python asks for, a result whose size depends on values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(name in str(func) for name in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal"))
        return func(*args, **(kwargs or {}))


def test_no_value_is_read_back() -> None:
    weights = weights_of()
    optimizer = optimizer_of(weights)
    optimizer.defer_check()
    for update in range(3):
        give_gradients(weights, update)
        with _NothingIsRead():
            optimizer.clip_grad_norm(1.0)
            optimizer.step()
    with pytest.raises(AssertionError), _NothingIsRead():
        torch.ones(()).item()


def test_a_parameter_without_gradient_stays_and_comes_back() -> None:
    weights = weights_of()
    optimizer = optimizer_of(weights, weight_decay=0.1)
    train(weights, optimizer, [0, 1])
    old = bits(weights)
    momentum = optimizer.optimizer.state[weights["another"]]["momentum_buffer"].clone()
    train(weights, optimizer, [2], without=["another", "wide", "bias"])
    assert same(old, bits(weights)) == ["another", "wide", "bias"]
    assert torch.equal(optimizer.optimizer.state[weights["another"]]["momentum_buffer"], momentum)
    train(weights, optimizer, [3])
    gradient = weights["another"].grad
    found = optimizer.optimizer.state[weights["another"]]["momentum_buffer"]
    assert gradient is not None and torch.equal(found, momentum.lerp(gradient, 1 - 0.95))


def test_rates_follow_the_schedule_and_the_layers() -> None:
    """A parameter's share of the rate is seen in how far it moves, a matrix against one at the full rate."""
    full, scaled = weights_of(), weights_of()
    for name in ("tall", "square", "table"):
        mark(scaled[name], **{LR_SCALE: 0.25})
    for lr in (0.01, 0.002):
        steps = []
        for weights in (full, scaled):
            optimizer = optimizer_of(weights, weight_decay=0.0)
            assert optimizer.get_lr() == 0.01  # to the last digit: it is logged
            optimizer.set_lr(lr)
            assert optimizer.get_lr() == lr
            old = {name: p.detach().clone() for name, p in weights.items()}
            train(weights, optimizer, [0])
            steps.append({name: (p.detach() - old[name]).norm().item() for name, p in weights.items()})
        for name in full:
            share = 0.25 if name in ("tall", "square", "table") else 1.0
            assert steps[1][name] == pytest.approx(share * steps[0][name], rel=1e-2), name
        rates = [group["lr"] for group in optimizer.param_groups if "momentum" in group]
        assert rates == pytest.approx([2 * lr, 2 * lr / 4])


def test_a_rate_of_zero_while_warming_up_moves_nothing() -> None:
    weights = weights_of()
    optimizer = optimizer_of(weights, weight_decay=0.1)
    optimizer.set_lr(0.0)
    old = bits(weights)
    train(weights, optimizer, [0])
    assert same(old, bits(weights)) == list(weights)


@pytest.mark.parametrize("gaps", [(), ("another", "tall")])
def test_resuming_is_exact_to_the_bit(tmp_path: Path, gaps: Sequence[str]) -> None:
    straight = weights_of()
    optimizer = optimizer_of(straight)
    train(straight, optimizer, range(2))
    train(straight, optimizer, [2], without=gaps)
    content = {"weights": {name: p.detach() for name, p in straight.items()}, "optimizer": optimizer.state_dict()}
    torch.save(content, tmp_path / "c.pt")
    train(straight, optimizer, range(3, 6))
    saved = torch.load(tmp_path / "c.pt", weights_only=True)
    resumed = weights_of(seed=7)
    with torch.no_grad():
        for name, p in resumed.items():
            p.copy_(saved["weights"][name])
    optimizer = optimizer_of(resumed)
    optimizer.load_state_dict(saved["optimizer"])
    train(resumed, optimizer, range(3, 6))
    assert same(bits(straight), bits(resumed)) == list(straight)


def test_loading_into_an_optimizer_that_has_stepped_forgets_its_own_momentum() -> None:
    straight, again = weights_of(), weights_of()
    optimizer, other = optimizer_of(straight), optimizer_of(again)
    train(straight, optimizer, range(2))
    state = copy.deepcopy(optimizer.state_dict())
    train(again, other, range(5, 9))
    with torch.no_grad():
        for name, p in again.items():
            p.copy_(straight[name])
    other.load_state_dict(state)
    train(straight, optimizer, [2])
    train(again, other, [2])
    assert same(bits(straight), bits(again)) == list(straight)


def test_a_resumed_run_follows_its_own_options() -> None:
    weights = weights_of()
    old = optimizer_of(weights, weight_decay=0.5, matrix_lr=0.3, muon_momentum=0.5)
    train(weights, old, [0])
    new = optimizer_of(weights, weight_decay=0.1, lr=[0.5])
    new.load_state_dict(old.state_dict())
    assert [group["weight_decay"] for group in new.param_groups] == [0.1, 0.0, 0.1]
    assert new.param_groups[-1]["momentum"] == 0.95
    new.set_lr(0.25)
    assert [group["lr"] for group in new.param_groups] == pytest.approx([0.25, 0.25, 0.01])
    new.load_state_dict(old.state_dict(), {"weight_decay": 0.7})
    assert {group["weight_decay"] for group in new.param_groups} == {0.7}


def test_state_of_other_parameters_or_of_another_optimizer_is_refused() -> None:
    weights = weights_of()
    optimizer = optimizer_of(weights)
    train(weights, optimizer, [0])
    plain = weights_of(marked=False)
    adamw = HmtlAdamW(HmtlAdamWConfig(lr=[0.01]), plain.values())
    train(plain, adamw, [0])
    fewer = {name: p for name, p in weights_of().items() if name != "odd"}
    larger = {**weights_of(), "odd": nn.Parameter(torch.zeros(24, 41))}
    mark_matrix(larger["odd"])
    for other, state in (
        (optimizer_of(fewer), optimizer),
        (optimizer_of(larger), optimizer),
        (optimizer_of(weights_of()), adamw),
        (adamw, optimizer),
    ):
        with pytest.raises(UserError, match="--reset-optimizer"):
            other.load_state_dict(state.state_dict())


def test_a_state_of_the_right_sizes_but_of_the_other_rule_is_refused() -> None:
    matrix, other = nn.Parameter(torch.zeros(4, 4)), nn.Parameter(torch.zeros(4, 4))
    mark_matrix(matrix)
    weights = {"matrix": matrix, "other": other}
    optimizer = optimizer_of(weights)
    train(weights, optimizer, [0])
    state = optimizer.state_dict()
    state["state"] = {0: state["state"][1], 1: state["state"][0]}
    with pytest.raises(UserError, match="--reset-optimizer"):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": [0.0]}, "--lr 0: use a learning rate above 0"),
        ({"lr": [-1.0]}, "--lr -1: use"),
        ({"matrix_lr": 0.0}, "--matrix-lr 0: use a learning rate above 0"),
        ({"matrix_lr": float("nan")}, "--matrix-lr nan"),
        ({"muon_momentum": 1.0}, "--muon-momentum 1.0: use"),
        ({"muon_momentum": -0.1}, "--muon-momentum -0.1: use"),
        ({"matrix_weight_decay": -0.1}, "--matrix-weight-decay -0.1: use"),
        ({"adam_betas": "0.9"}, "--adam-betas"),
    ],
)
def test_options_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refusal:
        optimizer_of(weights_of(), **changes)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_model_without_marked_matrices_is_refused() -> None:
    with pytest.raises(UserError, match=r"no layer matrices .*--optimizer hmtl_adamw"):
        optimizer_of(weights_of(marked=False))


def test_half_precision_keeps_the_matrices() -> None:
    first = nn.Linear(4, 8)
    model = nn.Sequential(first, nn.LayerNorm(8), nn.Linear(8, 2)).half()
    mark_layers(first)
    cfg = fp16_config(flat=False)
    cfg.optimizer = OmegaConf.structured(HmtlMuonConfig(lr=[0.01]))
    OmegaConf.set_struct(cfg.optimizer, False)
    cfg.optimizer._name = "hmtl_muon"
    optimizer = FP16Optimizer.build_optimizer(cfg, list(model.parameters()))
    matrices = optimizer.fp32_optimizer.param_groups[-1]
    assert matrices["momentum"] == 0.95 and [p.shape for p in matrices["params"]] == [(8, 4)]
    before = first.weight.detach().clone()
    optimizer.backward(model(torch.ones(3, 4).half()).square().sum())
    optimizer.step()
    assert not torch.equal(first.weight, before)


def test_wide_matrices_of_real_sizes_move_as_torchs_do() -> None:
    """Several steps at once round otherwise than one by one: either is 1 to 2 percent from exact arithmetic."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(512, 128, generator=generator) * 0.05
    ours, theirs = (nn.Parameter(first.clone()) for _ in range(2))
    mark_matrix(ours)
    optimizer = optimizer_of({"wide": ours}, matrix_lr=0.05, weight_decay=0.0)
    muon = torch.optim.Muon([theirs], lr=0.05, weight_decay=0.0, momentum=0.95)
    for _ in range(5):
        gradient = torch.randn(512, 128, generator=generator) * torch.logspace(0, -2, 128)
        before = ours.detach().clone()
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        muon.step()
        with torch.no_grad():
            assert (ours - theirs).norm() <= 0.04 * (ours - before).norm()
            theirs.copy_(ours)


@pytest.mark.parametrize("rows", [64, 128])
@pytest.mark.parametrize("spectrum", ["even", "steep", "few"])
def test_several_steps_at_once_are_as_near_to_exact_ones_as_one_by_one(rows: int, spectrum: str) -> None:
    """In bfloat16, of wide matrices; five at once (rounding grows to a hundred times the result) would fail."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    sizes = {"even": torch.ones(rows), "steep": torch.arange(1, rows + 1) ** -1.5, "few": torch.ones(rows)}[spectrum]
    left, right = torch.linalg.qr(random(3, rows, rows))[0], torch.linalg.qr(random(3, 4 * rows, rows))[0]
    x_NRC = left @ torch.diag_embed(sizes.double().expand(3, rows)) @ right.mT
    if spectrum == "few":
        x_NRC = random(3, rows, 4) @ random(3, 4, 4 * rows) + 0.01 * random(3, rows, 4 * rows)
    exact = x_NRC / torch.linalg.vector_norm(x_NRC, dim=(1, 2), keepdim=True)
    one_by_one = exact.bfloat16()
    for _ in range(newton_schulz.STEPS):
        exact, one_by_one = (
            newton_schulz.A * x + (newton_schulz.B * g + newton_schulz.C * g @ g) @ x
            for x in (exact, one_by_one)
            for g in [x @ x.mT]
        )
    error, allowed = (
        float((x.double() - exact).norm() / exact.norm()) for x in (orthogonalise(x_NRC.bfloat16()), one_by_one)
    )
    assert error <= 2.5 * allowed + 0.02
    assert torch.linalg.matrix_norm(orthogonalise(x_NRC.bfloat16()).float(), 2).max() < 1.3
    torch.testing.assert_close(orthogonalise(x_NRC), exact, rtol=0, atol=1e-6)  # the same polynomial
