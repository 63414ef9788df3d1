from types import SimpleNamespace

import pytest
import torch
from fairseq.optim.fp16_optimizer import FP16Optimizer
from omegaconf import OmegaConf
from torch import nn

from hmtl_plugin.errors import UserError
from hmtl_plugin.optim.adamw import HmtlAdamW, HmtlAdamWConfig, parse_betas


def config(**changes):
    return OmegaConf.structured(HmtlAdamWConfig(**({"lr": [0.01]} | changes)))


def model_of(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))


def train(model, optimizer, steps, seed=0):
    torch.manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        optimizer.backward(model(torch.randn(5, 4)).square().sum())
        optimizer.step()


def test_vectors_are_not_decayed():
    model = model_of()
    optimizer = HmtlAdamW(config(weight_decay=0.5), model.parameters())
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    for old, p in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(p.detach(), old * (1 - 0.01 * 0.5) if p.ndim == 2 else old)


def test_a_parameter_without_gradient_stays():
    model = model_of()
    optimizer = HmtlAdamW(config(weight_decay=0.5), model.parameters())
    before = model[0].weight.detach().clone()
    optimizer.step()
    assert torch.equal(model[0].weight, before)


def test_it_is_torchs_adamw():
    ours, theirs = model_of(), model_of()
    matrices = [p for p in theirs.parameters() if p.ndim == 2]
    vectors = [p for p in theirs.parameters() if p.ndim < 2]
    reference = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=0.01,
        betas=(0.9, 0.98),
        eps=1e-6,
    )
    reference.backward = lambda loss: loss.backward()
    train(ours, HmtlAdamW(config(weight_decay=0.1), ours.parameters()), 5)
    train(theirs, reference, 5)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_resuming_is_exact_to_the_bit(tmp_path):
    straight = model_of()
    optimizer = HmtlAdamW(config(), straight.parameters())
    train(straight, optimizer, 3)
    torch.save({"model": straight.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c.pt")
    train(straight, optimizer, 3, seed=1)
    saved = torch.load(tmp_path / "c.pt", weights_only=True)
    resumed = model_of(seed=7)
    resumed.load_state_dict(saved["model"])
    optimizer = HmtlAdamW(config(), resumed.parameters())
    optimizer.load_state_dict(saved["optimizer"])
    train(resumed, optimizer, 3, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


def test_a_resumed_run_follows_its_own_options():
    model = model_of()
    old = HmtlAdamW(config(weight_decay=0.5, adam_eps=1e-3), model.parameters())
    train(model, old, 1)
    new = HmtlAdamW(config(weight_decay=0.1, lr=[0.5]), model.parameters())
    new.load_state_dict(old.state_dict(), new.optimizer_config)
    assert [group["weight_decay"] for group in new.param_groups] == [0.1, 0.0]
    assert {group["eps"] for group in new.param_groups} == {1e-6}
    new.set_lr(0.25)
    assert [group["lr"] for group in new.param_groups] == [0.25, 0.25]


def test_state_of_other_parameters_is_refused():
    model = model_of()
    optimizer = HmtlAdamW(config(), model.parameters())
    train(model, optimizer, 1)
    for other in (nn.Sequential(nn.Linear(4, 9), nn.LayerNorm(9), nn.Linear(9, 2)), nn.Linear(4, 8)):
        with pytest.raises(UserError, match="--reset-optimizer"):
            HmtlAdamW(config(), other.parameters()).load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("text", ["0.9", "(0.9, 1.0)", "(a, b)", "(-0.1, 0.9)", "(0.9, 0.98, 0.9)"])
def test_betas_that_cannot_be(text):
    with pytest.raises(UserError, match="--adam-betas"):
        parse_betas(text)


def fp16_config(flat):
    common = {
        "fp16_no_flatten_grads": not flat,
        "fp16_init_scale": 4,
        "fp16_scale_window": None,
        "fp16_scale_tolerance": 0.0,
        "threshold_loss_scale": None,
        "min_loss_scale": 1e-4,
        "fp16": True,
        "model_parallel_size": 1,
    }
    return OmegaConf.create(
        {
            "optimizer": {
                "_name": "hmtl_adamw",
                "adam_betas": "(0.9, 0.98)",
                "adam_eps": 1e-6,
                "weight_decay": 0.1,
                "lr": [0.01],
            },
            "common": common,
            "distributed_training": {"distributed_world_size": 1},
            "optimization": {"update_freq": [1]},
        }
    )


def test_fp16_keeps_the_groups_and_needs_unflattened_gradients():
    model = model_of().half()
    optimizer = FP16Optimizer.build_optimizer(fp16_config(flat=False), list(model.parameters()))
    assert [len(group["params"]) for group in optimizer.fp32_optimizer.param_groups] == [2, 4]
    before = model[0].weight.detach().clone()
    optimizer.backward(model(torch.ones(3, 4).half()).square().sum())
    optimizer.step()
    assert not torch.equal(model[0].weight, before)
    assert all(group["params"][0].dtype == torch.float32 for group in optimizer.fp32_optimizer.param_groups)
    assert SimpleNamespace(**optimizer.state_dict()).loss_scale == 4


def test_flat_fp16_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: "cpu")
    with pytest.raises(RuntimeError, match="--fp16-no-flatten-grads"):
        FP16Optimizer.build_optimizer(fp16_config(flat=True), list(model_of().half().parameters()))
