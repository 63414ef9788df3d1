"""Criterion ``glue``: cross entropy or squared error of sentences, and their task's metrics over the whole set.

In validation predictions are added up in a vector as long as the set, each at its row, over batches and ranks; metrics
are computed from the whole of it. How often a row was seen is counted too, for ranks may be shown a batch twice.
(fairseq's way to gather other things than sums needs a GPU.)
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.logging import metrics
from fairseq.logging.meters import MetersDict
from torch import Tensor, nn
from torch.nn import functional as F

from hmtl_plugin.glue.metrics import compute

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
            columns_B3 = torch.stack([torch.ones_like(target_B), predicted_B.detach(), target_B], dim=1).float()
            logging[_ROWS] = columns_B3.new_zeros(sample["set_size"], 3).index_add_(0, sample["id"], columns_B3)
        return loss, rows, logging

    def log_metrics(self, logging_outputs: Sequence[Mapping[str, Any]]) -> None:
        """Log the mean loss, and in validation every metric of the task and ``score``."""
        rows = sum(log["sample_size"] for log in logging_outputs)
        loss = sum(log["loss"] for log in logging_outputs)  # stays on the device
        metrics.log_scalar("loss", loss / max(rows, 1), rows, priority=5, round=4)
        if _ROWS in logging_outputs[0]:
            metrics.log_scalar_sum(_ROWS, sum(log[_ROWS] for log in logging_outputs).double().cpu())
            for name in ("score", *self.task.glue.metrics):
                metrics.log_derived(name, partial(self._metric, name), priority=10)

    def _metric(self, name: str, meters: MetersDict) -> float:
        rows_N3 = meters[_ROWS].sum
        if not torch.is_tensor(rows_N3):  # fairseq has reset its meters, nothing was logged since
            return float("nan")
        rows_N3 = rows_N3[rows_N3[:, 0] > 0].numpy()
        predicted, true = (rows_N3[:, 1:] / rows_N3[:, :1]).T
        return round(compute(self.task.glue, predicted, true)[name], 3)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Every value is a number or a vector of sums."""
        return True
