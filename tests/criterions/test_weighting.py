"""Weightings: the fixed sum, learned uncertainties, warm-up."""

import pytest
import torch

from hmtl_plugin.criterions.weighting import fixed, parse_warmup, uncertainty, warmed_up
from hmtl_plugin.errors import UserError


def test_fixed_is_the_weighted_sum_and_keeps_the_log_variances_in_the_graph() -> None:
    log_variances = torch.zeros(2, requires_grad=True)
    total = fixed({"a": torch.tensor(3.0), "b": torch.tensor(5.0)}, {"a": 1.0, "b": 0.5}, 10, log_variances)
    assert total.item() == 5.5
    total.backward()
    assert log_variances.grad is not None and not log_variances.grad.any()


def test_uncertainty_is_additive_and_finds_the_optimum() -> None:
    """At its optimum exp(-s) * 2 * L / N = 1 for each objective; two halves of a batch sum to the whole."""
    weights = {"a": 1.0, "b": 1.0}
    sums = {"a": torch.tensor(60.0), "b": torch.tensor(5.0)}
    log_variances = torch.tensor([0.3, -0.2], requires_grad=True)
    halves = {name: value / 2 for name, value in sums.items()}
    whole = uncertainty(sums, weights, 10, log_variances)
    assert float(whole) == pytest.approx(2 * float(uncertainty(halves, weights, 5, log_variances)))
    optimizer = torch.optim.LBFGS([log_variances], max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = uncertainty(sums, weights, 10, log_variances)
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    assert log_variances.detach().tolist() == pytest.approx(torch.log(torch.tensor([12.0, 1.0])).tolist(), abs=1e-3)


def test_uncertainty_does_not_learn_a_weight_away() -> None:
    """With equal losses the effective weights, w exp(-s), stay in the proportion that was asked for."""
    weights, sums = {"a": 1.0, "b": 0.01}, {"a": torch.tensor(20.0), "b": torch.tensor(20.0)}
    log_variances = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([log_variances], lr=0.05)
    for _ in range(1000):
        optimizer.zero_grad()
        uncertainty(sums, weights, 10, log_variances).backward()
        optimizer.step()
    effective = [w * float(torch.exp(-s)) for w, s in zip(weights.values(), log_variances)]
    assert effective[1] / effective[0] == pytest.approx(0.01, rel=1e-2)


def test_an_objective_of_weight_zero_takes_no_part() -> None:
    log_variances = torch.zeros(2, requires_grad=True)
    uncertainty({"a": torch.tensor(1.0), "b": torch.tensor(1.0)}, {"a": 1.0, "b": 0.0}, 10, log_variances).backward()
    assert log_variances.grad is not None and log_variances.grad[1] == 0


def test_warmup_is_linear() -> None:
    warmup = parse_warmup("b:4", ("a", "b"))
    assert [warmed_up({"a": 1.0, "b": 2.0}, warmup, update)["b"] for update in (0, 1, 3, 9)] == [0.5, 1.0, 2.0, 2.0]
    assert warmed_up({"a": 1.0, "b": 2.0}, warmup, 0)["a"] == 1.0
    for wrong in ("c:4", "b", "b:0", "b:x", "b:²", "b:-1", "b:" + "9" * 5000):
        with pytest.raises(UserError):
            parse_warmup(wrong, ("a", "b"))
