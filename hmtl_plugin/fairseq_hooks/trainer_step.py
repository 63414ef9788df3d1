"""What fairseq's training step costs beside the model, and how it is saved without editing fairseq.

Once an update fairseq's trainer derives every metric that may be printed, and asks twice whether the gradient is
finite. On a GPU each of these waits for the device, which then idles while Python prepares the next batch. `save_work`
replaces the one method that does the first, and lets the optimizer answer the second an update later
(`HmtlOptimizer.defer_check`). Around the comparison of norms between GPUs it puts another, so that numbers which are
none are called that.
"""

from collections.abc import Mapping, Sequence
from types import MethodType
from typing import Any

import torch
from fairseq.logging import metrics
from torch import Tensor

from hmtl_plugin.models.compilation import compile_parts
from hmtl_plugin.optim.base import HmtlOptimizer


def save_work(trainer: Any) -> None:
    """Make a trainer of this plugin's tasks compute statistics when they are printed, and compile the model if asked
    to.
    """
    trainer._reduce_and_log_stats = MethodType(_log_sums, trainer)
    trainer._check_grad_norms = MethodType(_check_norms, trainer)
    if trainer.cuda and not trainer.cfg.common.fp16:
        trainer._build_optimizer = MethodType(_build_optimizer, trainer)
    if getattr(trainer.cfg.model, "compile", False):
        criterion = trainer.get_criterion()
        norms = getattr(criterion, "log_gradient_norms", 0) > 0
        compile_parts(trainer.get_model(), getattr(criterion, "objectives", {}), keeps_graph=norms)


def _build_optimizer(self: Any) -> None:
    """`Trainer._build_optimizer`, which runs again after a checkpoint is loaded."""
    type(self)._build_optimizer(self)
    if isinstance(self.optimizer, HmtlOptimizer):
        self.optimizer.defer_check()


def _check_norms(self: Any, grad_norm: Tensor) -> None:
    """`Trainer._check_grad_norms`, which also calls norms inconsistent that are finite on no rank; of these the trainer
    says next what they are.

    Raises:
        FloatingPointError: if the ranks' norms differ, and one of them is finite.
    """
    try:
        type(self)._check_grad_norms(self, grad_norm)
    except FloatingPointError:
        if torch.isfinite(self._grad_norm_buf).any():
            raise


def _log_sums(
    self: Any,
    logging_outputs: Sequence[Mapping[str, Any]] | None,
    sample_size: float,
    grad_norm: Tensor | None = None,
) -> dict[str, Any]:
    """`Trainer._reduce_and_log_stats` without reading any value: meters take tensors and derive when asked."""
    if grad_norm is not None:
        clip_norm = self.cfg.optimization.clip_norm
        norm = getattr(self.optimizer, "gradient_norm", grad_norm)  # of this update, whatever the check was told
        metrics.log_speed("ups", 1.0, priority=100, round=2)
        metrics.log_scalar("gnorm", norm, priority=400, round=3)
        if clip_norm > 0:
            metrics.log_scalar("clip", torch.gt(norm, clip_norm) * 100.0, priority=500, round=1)
    if logging_outputs is not None:
        self.task.reduce_metrics(logging_outputs, self.get_criterion())
    return {"sample_size": sample_size}
