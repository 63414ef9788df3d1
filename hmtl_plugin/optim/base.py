"""What the plugin's optimizers have in common: learning rates by group, clipping, and a check that waits for no device."""

import logging
from collections.abc import Callable
from typing import Any, Optional

import torch
from fairseq.optim import OPTIMIZER_DATACLASS_REGISTRY, OPTIMIZER_REGISTRY, FairseqOptimizer
from torch import Tensor

from hmtl_plugin.errors import UserError
from hmtl_plugin.optim.marks import LR_SCALE

logger = logging.getLogger(__name__)


class HmtlOptimizer(FairseqOptimizer):
    """fairseq's face of a torch optimizer that a subclass puts into ``_optimizer``.

    Its groups have an ``lr_scale`` each, the first of them the one whose rate is logged. Its step reads the attribute
    ``found_inf`` (a float on the device, 1 for a gradient that is not finite), as torch's fused steps do, and then
    changes nothing. Subclasses give each parameter the rate that its marks ask for (`marks.LR_SCALE`).
    """

    own_options: tuple[str, ...] = ("lr", "weight_decay", LR_SCALE)
    """Entries of a group that are this run's when a state is loaded, and not those stored with it."""

    def __init__(self, cfg: Any, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(cfg)
        self._optimizer = optimizer
        self._defers_check = False
        self._norm_on_host: Optional[_NormOnHost] = None
        self.gradient_norm = torch.zeros(())

    def defer_check(self) -> None:
        """From now on no update waits for the device to tell whether its gradient is finite.

        If it is not, the device itself leaves the weights as they are, and `clip_grad_norm` says so an update later.
        Not for fp16, whose loss scale answers at once.
        """
        self._defers_check = True

    def clip_grad_norm(self, max_norm: float, aggregate_norm_fn: Optional[Callable[[Tensor], Tensor]] = None) -> Tensor:
        """Clip, and return the norm of the whole gradient; after `defer_check` that of the update before, at first 0.

        The norm of this update is always `gradient_norm`, which stays on the device. fairseq's own function would put
        the norm on the GPU wherever there is one, also under ``--cpu``.
        """
        gradients = [p.grad for p in self.params if p.grad is not None]
        norm = torch.zeros(())
        if gradients:
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if aggregate_norm_fn is not None:
            norm = aggregate_norm_fn(norm)
        if max_norm > 0 and gradients:
            torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp_(max=1))
        self.gradient_norm = norm
        if not self._defers_check:
            return norm
        self._optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]  # read by the step
        before, self._norm_on_host = self._norm_on_host, _NormOnHost(norm)
        return torch.zeros(()) if before is None else before.read()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint; says if the last update had no finite gradient, as there may be no next one to say it."""
        if self._norm_on_host is not None and not bool(torch.isfinite(self._norm_on_host.read())):
            logger.warning("the gradient of the last update was not finite: that update left the weights as they were")
        state: dict[str, Any] = super().state_dict()
        return state

    def get_lr(self) -> float:
        """The full learning rate."""
        return float(self.param_groups[0]["lr"] / self.param_groups[0][LR_SCALE])

    def set_lr(self, lr: float) -> None:
        """Set the full learning rate; each group gets its share."""
        for group in self.param_groups:
            group["lr"] = lr * group[LR_SCALE]

    @property
    def supports_flat_params(self) -> bool:
        """No: one flat vector would lose the groups. fairseq then asks for ``--fp16-no-flatten-grads``."""
        return False

    def load_state_dict(self, state_dict: dict[str, Any], optimizer_overrides: Optional[dict[str, Any]] = None) -> None:
        """Load the moments; the `own_options` are this run's, then ``--optimizer-overrides``.

        Raises:
            UserError: if the state belongs to other parameters (another size).
        """
        self._refuse_other_parameters(state_dict)
        own = [{key: group[key] for key in self.own_options if key in group} for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, options in zip(self.param_groups, own, strict=True):
            group.update(options | (optimizer_overrides or {}))

    def moment_name(self, group: dict[str, Any]) -> str:
        """What the first moment of a group's parameters is called in the state; it has their shapes."""
        return "exp_avg"

    def _refuse_other_parameters(self, state_dict: dict[str, Any]) -> None:
        ours, theirs = self.param_groups, state_dict["param_groups"]
        same = [len(group["params"]) for group in ours] == [len(group["params"]) for group in theirs]
        for group, stored in zip(ours, theirs, strict=True) if same else ():
            for parameter, index in zip(group["params"], stored["params"], strict=True):
                state = state_dict["state"].get(index)
                moment = state.get(self.moment_name(group)) if state else parameter  # none before a first gradient
                same = same and moment is not None and moment.shape == parameter.shape
        if not same:
            raise UserError(
                "the checkpoint's optimizer state belongs to other parameters (another hierarchy, --sentence-pooling, "
                "size or optimizer, or an older version, whose hmtl_muon left the heads to AdamW): "
                "to start from its weights only, add "
                "--reset-optimizer --reset-lr-scheduler --reset-dataloader --reset-meters"
            )


def is_own(name: str | None) -> bool:
    """Whether the optimizer that fairseq knows by this name is one of the plugin's (an `HmtlOptimizer`)."""
    return issubclass(OPTIMIZER_REGISTRY.get(name, object), HmtlOptimizer)


def own_names() -> list[str]:
    """Names of the plugin's optimizers."""
    return [name for name in OPTIMIZER_REGISTRY if is_own(name)]


def own_options() -> dict[str, Any]:
    """The dataclass of options of each of the plugin's optimizers."""
    return {name: OPTIMIZER_DATACLASS_REGISTRY[name] for name in own_names() if name in OPTIMIZER_DATACLASS_REGISTRY}


class _NormOnHost:
    """A number on its way from the device; nobody waits unless it is read too early."""

    def __init__(self, norm: Tensor) -> None:
        self.value = torch.empty((), pin_memory=norm.is_cuda)
        self.value.copy_(norm, non_blocking=True)
        self.arrived = torch.cuda.Event() if norm.is_cuda else None
        if self.arrived is not None:
            self.arrived.record()

    def read(self) -> Tensor:
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.value
