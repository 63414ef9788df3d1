"""``hmtl_muon``: Muon for the matrices of hidden layers (encoder, heads, poolings), fused AdamW for all else.

Muon (K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024) moves each matrix by its
momentum made orthogonal, so that all its directions learn. A weight that holds several matrices, as the fused one of
queries, keys and values, is taken apart for that. The model marks these weights (`marks.mark_matrix`).

Not `torch.optim.Muon`, for which a parameter is one matrix and which takes them one at a time.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq.optim import register_optimizer
from torch import nn

from hmtl_plugin.errors import UserError
from hmtl_plugin.optim.adamw import HmtlAdamW, HmtlAdamWConfig, adamw_groups, parse_betas, peak_lr
from hmtl_plugin.optim.base import HmtlOptimizer
from hmtl_plugin.optim.marks import LR_SCALE, lr_scale, matrix_blocks
from hmtl_plugin.optim.muon_adamw import BUFFER, MOMENTUM, MuonAdamW


@dataclass
class HmtlMuonConfig(HmtlAdamWConfig):
    """Options of ``hmtl_muon``."""

    matrix_lr: float = field(
        default=0.02,
        metadata={"help": "peak learning rate of the hidden layers' matrices; it follows the schedule of --lr"},
    )
    muon_momentum: float = field(default=0.95, metadata={"help": "decay rate of the matrices' momentum"})
    matrix_weight_decay: Optional[float] = field(
        default=None,
        metadata={"help": "decoupled weight decay of the hidden layers' matrices (default: --weight-decay)"},
    )


@register_optimizer("hmtl_muon", dataclass=HmtlMuonConfig)
class HmtlMuon(HmtlOptimizer):
    """fairseq's face of `MuonAdamW`; its ``lr`` is that of AdamW's part."""

    own_options = (*HmtlAdamW.own_options, MOMENTUM)

    def __init__(self, cfg: Any, params: Iterable[nn.Parameter]) -> None:
        """Parameters without a gradient in a step stay as they are, undecayed too.

        Raises:
            UserError: if no parameter is marked as a matrix of a hidden layer, or naming an option that cannot be.
        """
        parameters = list(params)
        matrices = [p for p in parameters if matrix_blocks(p)]
        if not matrices:
            raise UserError(
                "--optimizer hmtl_muon: the model has no layer matrices that learn: use --optimizer hmtl_adamw"
            )
        lr = peak_lr(cfg)
        for name, rate in (("--lr", lr), ("--matrix-lr", cfg.matrix_lr)):
            if not rate > 0:
                raise UserError(f"--optimizer hmtl_muon: {name} {rate:g}: use a learning rate above 0")
        if not 0 <= cfg.muon_momentum < 1:
            raise UserError(f"--muon-momentum {cfg.muon_momentum}: use a number from 0 to below 1")
        if cfg.matrix_weight_decay is not None and not cfg.matrix_weight_decay >= 0:
            raise UserError(f"--matrix-weight-decay {cfg.matrix_weight_decay}: use 0 or more")
        decay = cfg.weight_decay if cfg.matrix_weight_decay is None else cfg.matrix_weight_decay
        groups: list[dict[str, Any]] = []
        for scale in sorted(set(map(lr_scale, matrices)), reverse=True):
            own = [p for p in matrices if lr_scale(p) == scale]
            rates = {"lr": cfg.matrix_lr * scale, LR_SCALE: cfg.matrix_lr / lr * scale}
            groups.append({"params": own, "weight_decay": decay, MOMENTUM: cfg.muon_momentum, **rates})
        others = adamw_groups([p for p in parameters if not matrix_blocks(p)], lr, cfg.weight_decay)
        betas = parse_betas(cfg.adam_betas)
        super().__init__(cfg, MuonAdamW(others, groups, lr=lr, betas=betas, eps=cfg.adam_eps))

    @property
    def optimizer_config(self) -> dict[str, Any]:
        """What fairseq's sharding of the state asks for: nothing that all groups share."""
        return {}

    def moment_name(self, group: dict[str, Any]) -> str:
        """The momentum of a matrix, else AdamW's first moment."""
        return BUFFER if MOMENTUM in group else super().moment_name(group)
