"""``hmtl_adamw``: torch's fused AdamW; biases, layer norms and other vectors are not decayed.

fairseq's own Adam decays every parameter and loops over tensors in Python. The default betas are RoBERTa's
(0.9, 0.98), which ride out loss spikes better than BERT's (0.9, 0.999). Parameters may be marked to learn at a share
of the learning rate (`marks.LR_SCALE`; fine-tuning, see `models.adaptation`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, List

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import register_optimizer
from omegaconf import II
from torch import nn

from hmtl_plugin.errors import UserError
from hmtl_plugin.optim.base import HmtlOptimizer
from hmtl_plugin.optim.marks import LR_SCALE, lr_scale


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
class HmtlAdamW(HmtlOptimizer):
    """fairseq's face of `torch.optim.AdamW`; for each learning rate two groups: matrices, and vectors without decay."""

    own_options = (*HmtlOptimizer.own_options, "betas", "eps")

    def __init__(self, cfg: Any, params: Iterable[nn.Parameter]) -> None:
        """Parameters without a gradient in a step stay as they are, undecayed too.

        Raises:
            UserError: if ``--adam-betas`` cannot be read.
        """
        lr = peak_lr(cfg)
        groups = adamw_groups(list(params), lr, cfg.weight_decay)
        betas = parse_betas(cfg.adam_betas)
        super().__init__(cfg, torch.optim.AdamW(groups, lr=lr, betas=betas, eps=cfg.adam_eps, fused=True))

    @property
    def optimizer_config(self) -> dict[str, Any]:
        """What fairseq's sharding of the state asks for; decay and rate differ by group."""
        group = self.param_groups[0]
        return {"betas": group["betas"], "eps": group["eps"]}


def peak_lr(cfg: Any) -> float:
    """The first of ``--lr``; a scheduler may take others."""
    return float(cfg.lr if isinstance(cfg.lr, float) else cfg.lr[0])


def adamw_groups(parameters: Sequence[nn.Parameter], lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """For each learning rate, the highest first, a group of matrices and one of vectors, which are not decayed."""
    groups: list[dict[str, Any]] = []
    for scale in sorted(set(map(lr_scale, parameters)), reverse=True):  # the full rate first: it is the one logged
        own = [p for p in parameters if lr_scale(p) == scale]
        shared = {"lr": lr * scale, LR_SCALE: scale}
        groups.append({"params": [p for p in own if p.ndim >= 2], "weight_decay": weight_decay, **shared})
        groups.append({"params": [p for p in own if p.ndim < 2], "weight_decay": 0.0, **shared})
    return [group for group in groups if group["params"]]


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
