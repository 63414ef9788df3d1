"""Criterion ``glue``: cross entropy or squared error of sentences, and their task's metrics over the whole set.

In validation every rank hands over (row, prediction, label) of its rows. Metrics are computed once from all of them, a
row that two ranks have seen (batches are shared out evenly, some twice) counted once.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from fairseq.logging.meters import MetersDict
from torch import Tensor, nn
from torch.nn import functional as F

from hmtl_plugin.finetuning.glue_metrics import compute

_ROWS = "_rows"


@register_criterion("glue", dataclass=FairseqDataclass)
class SentenceScore(FairseqCriterion):
    """Needs the ``glue`` task, whose row in the table of tasks says what is predicted and measured."""

    def forward(
        self, model: nn.Module, sample: Mapping[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """Summed loss (nats, or squared error), number of rows, logging outputs."""
        logits_BC, _ = model(**sample["net_input"], task_head=True)
        logits_BC, target_B = logits_BC.float(), sample["target"]
        if self.task.glue.regression:
            predicted_B = logits_BC.squeeze(-1)
            loss = F.mse_loss(predicted_B, target_B.float(), reduction="sum")
        else:
            predicted_B = logits_BC.argmax(-1)
            loss = F.cross_entropy(logits_BC, target_B, reduction="sum")
        rows: int = sample["nsentences"]
        logging = {"loss": loss.detach(), "nsentences": rows, "ntokens": sample["ntokens"], "sample_size": rows}
        if not self.training:
            columns = [sample["id"], predicted_B.detach(), target_B]
            logging[_ROWS] = torch.stack([column.double().cpu() for column in columns], dim=1)
        return loss, rows, logging

    def log_metrics(self, logging_outputs: Sequence[Mapping[str, Any]]) -> None:
        """Log the mean loss and throughput, and in validation every metric of the task and ``score``."""
        rows = sum(log["sample_size"] for log in logging_outputs)
        tokens = sum(log["ntokens"] for log in logging_outputs)
        loss = sum(float(log["loss"]) for log in logging_outputs)
        metrics.log_scalar("loss", loss / max(rows, 1), rows, priority=5, round=4)
        metrics.log_scalar("bsz", rows, priority=190, round=1)
        metrics.log_speed("wps", tokens, priority=90, round=1)
        seen = [log[_ROWS] for log in logging_outputs if _ROWS in log]
        if seen:
            metrics.log_concat_tensor(_ROWS, torch.cat(seen))
            for name in ("score", *self.task.glue.metrics):
                metrics.log_derived(name, partial(self._metric, name), priority=10)

    def _metric(self, name: str, meters: MetersDict) -> float:
        rows_N3 = meters[_ROWS].tensor
        if rows_N3 is None:  # fairseq has reset its meters, nothing was logged since
            return float("nan")
        _, first = np.unique(rows_N3[:, 0].numpy(), return_index=True)
        predicted, true = rows_N3[torch.from_numpy(first), 1:].numpy().T
        return round(compute(self.task.glue, predicted, true)[name], 3)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Rows of different batches are not alike."""
        return False
