"""An optimizer outside of the project, as docs/extending.md has it: Lion (Chen et al. 2023)."""

from dataclasses import dataclass, field

import torch
from fairseq.optim import register_optimizer

import hmtl_plugin  # noqa: F401
from hmtl_plugin.optim.adamw import HmtlAdamWConfig, adamw_groups, parse_betas, peak_lr
from hmtl_plugin.optim.base import HmtlOptimizer


class Lion(torch.optim.Optimizer):
    """Each weight moves by its learning rate, up or down."""

    found_inf = None  # 1 on the device: the gradient is not finite, and nothing may change

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            first, second = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                gradient, rate = p.grad, group["lr"]
                if self.found_inf is not None:
                    gradient = torch.where(self.found_inf.bool(), momentum, gradient)
                    rate = rate * (1 - self.found_inf)
                direction = momentum.lerp(gradient, 1 - first).sign_()
                momentum.lerp_(gradient, 1 - second)
                p.sub_(rate * (direction + group["weight_decay"] * p))


@dataclass
class LionConfig(HmtlAdamWConfig):
    """Options of ``--optimizer lion``."""

    adam_betas: str = field(
        default="(0.9, 0.99)", metadata={"help": "decay rates of the direction, and of the momentum"}
    )


@register_optimizer("lion", dataclass=LionConfig)
class HmtlLion(HmtlOptimizer):
    """Learning rates by group, clipping, resuming and checks are the base's."""

    own_options = (*HmtlOptimizer.own_options, "betas")

    def __init__(self, cfg, params):
        groups = adamw_groups(list(params), peak_lr(cfg), cfg.weight_decay)
        super().__init__(cfg, Lion(groups, {"betas": parse_betas(cfg.adam_betas)}))
