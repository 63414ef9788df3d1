"""Training and validation steps under ``--autocast``, shared by the tasks."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask

from hmtl_plugin.precision import autocast

Step = tuple[torch.Tensor, int, dict[str, Any]]


class AutocastTask(FairseqTask):
    """A task whose config has ``autocast`` and whose criterion makes the log (`log_metrics`).

    Steps return what fairseq's do: the summed loss (scalar), the sample size it is divided by, and logging outputs.
    """

    def train_step(
        self,
        sample: dict[str, Any],
        model: Any,
        criterion: Any,
        optimizer: Any,
        update_num: int,
        ignore_grad: bool = False,
    ) -> Step:
        """Forward under ``--autocast``, `check_step`, backward."""
        model.train()
        model.set_num_updates(update_num)
        with self._precision(sample), torch.autograd.profiler.record_function("forward"):
            loss, sample_size, logging_output = criterion(model, sample)
        self.check_step(sample, optimizer, update_num, logging_output)
        if ignore_grad:
            loss = loss * 0
        with torch.autograd.profiler.record_function("backward"):
            optimizer.backward(loss)
        return loss, sample_size, logging_output

    def state_dict(self) -> dict[str, Any]:
        """``threads`` of torch, on whose number the last bits of sums depend, for `resuming`."""
        return {"threads": torch.get_num_threads()}

    def check_step(self, sample: dict[str, Any], optimizer: Any, update: int, logging_output: dict[str, Any]) -> None:
        """Called between forward and backward; raises to end the run. Here nothing is checked."""

    def valid_step(self, sample: dict[str, Any], model: Any, criterion: Any) -> Step:
        """Forward under ``--autocast``, no gradient."""
        model.eval()
        with torch.no_grad(), self._precision(sample):
            loss, sample_size, logging_output = criterion(model, sample)
        return loss, sample_size, logging_output

    def _precision(self, sample: dict[str, Any]) -> AbstractContextManager[Any]:
        return autocast(str(self.cfg.autocast), sample["net_input"]["src_tokens"].device.type)

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: Any) -> None:
        """Log throughput in non-pad tokens, and what the criterion makes of its numbers."""
        tokens = sum(log["ntokens"] for log in logging_outputs)
        metrics.log_scalar("wpb", tokens, priority=180, round=1)
        metrics.log_speed("wps", tokens, priority=90, round=1)
        metrics.log_scalar("bsz", sum(log["nsentences"] for log in logging_outputs), priority=190, round=1)
        criterion.log_metrics(logging_outputs)
