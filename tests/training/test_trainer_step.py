"""What the plugin changes in fairseq's step changes no number: deferred check, statistics on demand, `--compile`."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hmtl_plugin.criterions.hierarchical import HierarchicalCriterion
from hmtl_plugin.fairseq_hooks import trainer_step
from hmtl_plugin.optim.adamw import HmtlAdamW, HmtlAdamWConfig
from hmtl_plugin.tasks import pretraining
from tests.training.runs import arguments, train, weights

COUNTED = ("loss", "mlm_loss", "nsp_accuracy", "bigram_shift_auc", "objective", "gnorm", "clip")


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((4, 3), (3,), (2, 2))]


def optimizer_of(params: list[torch.nn.Parameter], deferred: bool) -> HmtlAdamW:
    optimizer = HmtlAdamW(HmtlAdamWConfig(lr=[0.1]), params)
    if deferred:
        optimizer.defer_check()
    return optimizer


def steps(deferred: bool, poison: int | None = None, count: int = 4) -> tuple[list[torch.nn.Parameter], list[Any]]:
    """Updates with known gradients, one of them not finite on request; weights and what the trainer is told."""
    params = parameters()
    optimizer, told = optimizer_of(params, deferred), []
    for update in range(count):
        for number, param in enumerate(params):
            param.grad = torch.full_like(param, 0.1 * (update + 1) * (number + 1))
        if update == poison:
            params[1].grad[0] = float("nan")
        told.append((optimizer.clip_grad_norm(0.5).item(), optimizer.gradient_norm.item()))
        optimizer.step()
    return params, told


def test_deferred_check_takes_the_same_steps() -> None:
    (plain, norms), (deferred, told) = steps(False), steps(True)
    for one, other in zip(plain, deferred, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=0)
    assert [norm for _, norm in told] == pytest.approx([norm for norm, _ in norms], rel=1e-6)
    assert [norm for norm, _ in told] == [0.0, *(norm for _, norm in told[:-1])]  # one update late


def test_a_training_on_the_cpu_uses_no_gpu_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, norms = steps(False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: "meta")  # where fairseq's clipping would put the norm
    found, told = steps(False)
    assert told == norms
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


def test_no_gradient_at_all_is_clipped_to_none() -> None:
    assert optimizer_of(parameters(), deferred=False).clip_grad_norm(1.0) == 0


@pytest.mark.parametrize(
    ("norms", "complains"), [((1.0, 1.0), False), ((float("nan"),) * 2, False), ((1.0, float("nan")), True)]
)
def test_norms_that_are_no_numbers_on_any_rank_are_left_to_the_trainer_to_name(
    norms: tuple[float, ...], complains: bool
) -> None:
    class Trainer:
        """fairseq's, on as many ranks as there are norms."""

        _grad_norm_buf = torch.tensor(norms)

        def _check_grad_norms(self, grad_norm: torch.Tensor) -> None:
            if not (self._grad_norm_buf == self._grad_norm_buf[0]).all():
                raise FloatingPointError("Fatal error: gradients are inconsistent between workers")

    trainer: Any = Trainer()
    trainer.cuda, trainer.cfg = False, SimpleNamespace(model=None)
    trainer_step.save_work(trainer)
    with pytest.raises(FloatingPointError) if complains else nullcontext():
        trainer._check_grad_norms(torch.tensor(1.0))


def test_a_gradient_that_is_not_finite_moves_no_weight_and_is_told_an_update_later() -> None:
    before, _ = steps(True, count=2)
    poisoned, told = steps(True, poison=2, count=3)
    for one, other in zip(before, poisoned, strict=True):
        assert torch.equal(one, other)
    _, told = steps(True, poison=2, count=4)
    assert told[2][1] != told[2][1] and told[3][0] != told[3][0]  # NaN
    assert all(norm == norm for norm, _ in told[:3])


@pytest.mark.parametrize("poison", [None, 3])
def test_the_last_update_is_told_at_the_checkpoint(poison: int | None, caplog: pytest.LogCaptureFixture) -> None:
    params = parameters()
    optimizer = optimizer_of(params, deferred=True)
    optimizer.state_dict()  # nothing to tell before the first
    for update in range(4):
        for param in params:
            param.grad = torch.full_like(param, float("nan") if update == poison else 0.1)
        optimizer.clip_grad_norm(0.5)
        optimizer.step()
    optimizer.state_dict()
    assert ("last update was not finite" in caplog.text) == (poison is not None)


def test_a_run_that_defers_is_the_run_that_does_not(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: same weights up to the order of sums, and the same gradient norms in the log, none of them late."""
    options = ("--max-update", "12", "--log-interval", "1", "--clip-norm", "1.0")
    plain = train(arguments(data, tmp_path / "plain", *options))
    build = HmtlAdamW.__init__

    def deferring(self: HmtlAdamW, *args: Any) -> None:
        build(self, *args)
        self.defer_check()

    monkeypatch.setattr(HmtlAdamW, "__init__", deferring)
    deferred = train(arguments(data, tmp_path / "deferred", *options))
    assert len(plain) == len(deferred) > 12
    for one, other in zip(plain, deferred, strict=True):
        for key in [key for key in one if key in COUNTED or key.startswith("gnorm_")]:
            assert other.get(key) == pytest.approx(one.get(key), rel=1e-3, abs=1e-4, nan_ok=True), key
    one, other = weights(tmp_path / "plain"), weights(tmp_path / "deferred")
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=1e-3, atol=1e-4)


def test_a_loss_that_is_not_finite_is_named_an_update_later_too(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where no step looks at its loss: fairseq stops, and the line still names the objective and the
    update.
    """
    seen: list[int] = []
    check, step = pretraining.check_finite, pretraining.HmtlPretrainingTask.check_step

    class OnDevice(dict[str, Any]):
        """A log whose loss says that it is not on the CPU."""

        def __getitem__(self, key: str) -> Any:
            return SimpleNamespace(is_cpu=False) if key == "objective" else super().__getitem__(key)

    def on_device(self: Any, sample: Any, optimizer: Any, update: int, log: dict[str, Any]) -> None:
        optimizer.defer_check()
        step(self, sample, optimizer, update, OnDevice(log))

    def looked(id_B: torch.Tensor, update: int, log: dict[str, Any]) -> None:
        seen.append(update)
        check(id_B, update, dict(log))

    monkeypatch.setattr(pretraining.HmtlPretrainingTask, "check_step", on_device)
    monkeypatch.setattr(pretraining, "check_finite", looked)
    with pytest.raises(SystemExit, match=r"error: the loss of .* is not finite at update \d+ \(samples"):
        train(arguments(data, tmp_path, "--max-update", "20", "--lr", "1e30", "--warmup-updates", "0"))
    assert 0 < len(seen) <= 4  # looked only when fairseq had found something


def test_statistics_are_derived_when_printed_only(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    derived: list[str] = []
    metric = HierarchicalCriterion._metric

    def counting(self: HierarchicalCriterion, name: str, key: str, meters: Any) -> float:
        derived.append(f"{name}_{key}")
        return metric(self, name, key, meters)

    monkeypatch.setattr(HierarchicalCriterion, "_metric", counting)
    train(arguments(data, tmp_path, "--max-update", "10", "--log-interval", "100", "--disable-validation"))
    assert 0 < len(derived) <= 3 * len(set(derived))  # at the end of the epoch and of the run, not 10 times


class GpuTrainer:
    """What `save_work` asks of a trainer on a GPU."""

    cuda = True

    def __init__(self, fp16: bool) -> None:
        self.cfg = SimpleNamespace(common=SimpleNamespace(fp16=fp16), model=SimpleNamespace())
        self.optimizer: HmtlAdamW | None = None

    def _build_optimizer(self) -> None:
        self.optimizer = HmtlAdamW(HmtlAdamWConfig(lr=[0.1]), parameters())

    def told_late(self) -> bool:
        assert self.optimizer is not None
        for param in self.optimizer.params:
            param.grad = torch.ones_like(param)
        return self.optimizer.clip_grad_norm(0.0).item() == 0.0


@pytest.mark.parametrize("fp16", [False, True])
def test_every_optimizer_of_a_gpu_run_defers(fp16: bool) -> None:
    """fairseq builds another one after it has loaded a checkpoint. The loss scale of fp16 cannot wait."""
    trainer = GpuTrainer(fp16)
    trainer_step.save_work(trainer)
    for _ in range(2):
        trainer._build_optimizer()
        assert trainer.told_late() == (not fp16)


@pytest.mark.slow
def test_compiled_is_eager(data: Path, tmp_path: Path) -> None:
    """Without dropout, whose masks compiled code draws otherwise; gradient norms go backward through a graph twice."""
    options = ("--max-update", "4", "--log-interval", "1", "--dropout", "0", "--attention-dropout", "0", "--pack")
    options += ("--log-gradient-norms", "2")
    eager = train(arguments(data, tmp_path / "eager", *options))
    compiled = train(arguments(data, tmp_path / "compiled", *options, "--compile"))
    for one, other in zip(eager, compiled, strict=True):
        for key in [key for key in one if key in COUNTED or key.startswith("gnorm_")]:
            assert other.get(key) == pytest.approx(one.get(key), rel=1e-3, abs=1e-3, nan_ok=True), key
    one, other = weights(tmp_path / "eager"), weights(tmp_path / "compiled")
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(one[key].float(), other[key].float(), rtol=1e-2, atol=2e-4)
    train(arguments(data, tmp_path / "compiled", *options[2:], "--max-update", "5"))  # goes on without --compile
