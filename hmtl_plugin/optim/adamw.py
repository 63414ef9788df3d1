"""``hmtl_adamw``: torch's fused AdamW; biases, layer norms and other vectors are not decayed.

fairseq's own Adam decays every parameter and loops over tensors in Python. The default betas are RoBERTa's
(0.9, 0.98), which ride out loss spikes better than BERT's (0.9, 0.999). A parameter with an attribute
``optim_overrides = {"lr_scale": s}`` learns at s times the learning rate (fine-tuning, see `models.adaptation`).
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, List, Optional

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from omegaconf import II
from torch import Tensor, nn

from hmtl_plugin.errors import UserError

logger = logging.getLogger(__name__)

LR_SCALE = "lr_scale"
_OWN = ("lr", "weight_decay", "betas", "eps", LR_SCALE)


@dataclass
class HmtlAdamWConfig(FairseqDataclass):
    """Options of ``hmtl_adamw``."""

    adam_betas: str = field(default="(0.9, 0.98)", metadata={"help": "decay rates of the moments, '(first, second)'"})
    adam_eps: float = field(default=1e-6, metadata={"help": "added to the root of the second moment"})
    weight_decay: float = field(
        default=0.01, metadata={"help": "decoupled weight decay of matrices; vectors are not decayed"}
    )
    lr: List[float] = II("optimization.lr")  # noqa: RUF009  an interpolation string


@register_optimizer("hmtl_adamw", dataclass=HmtlAdamWConfig)
class HmtlAdamW(FairseqOptimizer):
    """fairseq's face of `torch.optim.AdamW`; for each learning rate two groups: matrices, and vectors without decay."""

    def __init__(self, cfg: Any, params: Iterable[nn.Parameter]) -> None:
        """Parameters without a gradient in a step stay as they are, undecayed too.

        Raises:
            UserError: if ``--adam-betas`` cannot be read.
        """
        super().__init__(cfg)
        parameters = list(params)
        lr = cfg.lr if isinstance(cfg.lr, float) else cfg.lr[0]
        groups: list[dict[str, Any]] = []
        for scale in sorted(set(map(_scale, parameters)), reverse=True):  # the full rate first: it is the one logged
            own = [p for p in parameters if _scale(p) == scale]
            shared = {"lr": lr * scale, LR_SCALE: scale}
            groups.append({"params": [p for p in own if p.ndim >= 2], "weight_decay": cfg.weight_decay, **shared})
            groups.append({"params": [p for p in own if p.ndim < 2], "weight_decay": 0.0, **shared})
        self._optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=lr,
            betas=parse_betas(cfg.adam_betas),
            eps=cfg.adam_eps,
            fused=True,
        )
        self._defers_check = False
        self._norm_on_host: Optional[_NormOnHost] = None
        self.gradient_norm = torch.zeros(())

    def defer_check(self) -> None:
        """From now on no update waits for the device to tell whether its gradient is finite.

        If it is not, the device itself leaves the weights as they are, and `clip_grad_norm` says so an update later. Not for
        fp16, whose loss scale answers at once.
        """
        self._defers_check = True

    def clip_grad_norm(self, max_norm: float, aggregate_norm_fn: Optional[Callable[[Tensor], Tensor]] = None) -> Tensor:
        """Clip, and return the norm of the whole gradient; after `defer_check` that of the update before, at first 0.

        The norm of this update is always `gradient_norm`, which stays on the device. fairseq's own function would put the norm on the GPU
        wherever there is one, also under ``--cpu``.
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
        self._optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]  # read by torch's fused step
        before, self._norm_on_host = self._norm_on_host, _NormOnHost(norm)
        return torch.zeros(()) if before is None else before.read()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint; says if the last update had no finite gradient, as there may be no next one to say it."""
        if self._norm_on_host is not None and not bool(torch.isfinite(self._norm_on_host.read())):
            logger.warning("the gradient of the last update was not finite: that update left the weights as they were")
        state: dict[str, Any] = super().state_dict()
        return state

    @property
    def optimizer_config(self) -> dict[str, Any]:
        """What fairseq's sharding of the state asks for; decay and rate differ by group."""
        group = self.param_groups[0]
        return {"betas": group["betas"], "eps": group["eps"]}

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
        """Load the moments; learning rate, betas, epsilon and weight decay are this run's, then ``--optimizer-overrides``.

        Raises:
            UserError: if the state belongs to other parameters (another size).
        """
        self._refuse_other_parameters(state_dict)
        own = [{key: group[key] for key in _OWN} for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, options in zip(self.param_groups, own, strict=True):
            group.update(options | (optimizer_overrides or {}))

    def _refuse_other_parameters(self, state_dict: dict[str, Any]) -> None:
        ours, theirs = self.param_groups, state_dict["param_groups"]
        same = [len(group["params"]) for group in ours] == [len(group["params"]) for group in theirs]
        if same:
            for index, parameter in zip((i for group in theirs for i in group["params"]), self.params, strict=True):
                moment = state_dict["state"].get(index, {}).get("exp_avg")
                same = same and (moment is None or moment.shape == parameter.shape)
        if not same:
            raise UserError(
                "the checkpoint's optimizer state belongs to other parameters (another hierarchy, size or "
                "optimizer): to start from its weights only, add "
                "--reset-optimizer --reset-lr-scheduler --reset-dataloader --reset-meters"
            )


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


def _scale(parameter: nn.Parameter) -> float:
    return float(getattr(parameter, "optim_overrides", {}).get(LR_SCALE, 1.0))


def parse_betas(text: str) -> tuple[float, float]:
    """'(0.9, 0.98)' to numbers.

    Raises:
        UserError: if it is not two numbers in [0, 1).
    """
    try:
        first, second = (float(part) for part in str(text).strip("()[] ").split(","))
    except ValueError:
        first = second = -1.0
    if not (0 <= first < 1 and 0 <= second < 1):
        raise UserError(f"--adam-betas '{text}': write two numbers from 0 to below 1, as in '(0.9, 0.98)'")
    return first, second
