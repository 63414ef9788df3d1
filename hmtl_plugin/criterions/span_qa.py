"""Criterion ``span_qa``: cross entropy of an answer's first and last token, and the official scores of the whole set.

As with GLUE (`sentence_score`), predictions are added up in a vector with a place for every window, so that any number
of ranks measures the whole set.
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

from hmtl_plugin.squad.decoding import best_spans, mask_outside, no_answer_scores
from hmtl_plugin.squad.measure import COLUMNS

_WINDOWS = "_windows"


@register_criterion("span_qa", dataclass=FairseqDataclass)
class SpanQuestionAnswering(FairseqCriterion):
    """Needs the ``squad`` task, which scores the windows of its validation set."""

    def forward(
        self, model: nn.Module, sample: Mapping[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """Summed loss (nats, mean of start and end), number of windows, logging outputs."""
        logits_BT2, _ = model(**sample["net_input"], task_head=True)
        masked_BT2 = mask_outside(logits_BT2.float(), sample["context_begin"], sample["context_length"])
        ends = (
            F.cross_entropy(masked_BT2[..., i], sample[name], reduction="sum")
            for i, name in enumerate(("start", "end"))
        )
        loss = sum(ends, torch.zeros((), device=masked_BT2.device)) / 2
        windows: int = sample["nsentences"]
        logging = {"loss": loss.detach(), "nsentences": windows, "ntokens": sample["ntokens"], "sample_size": windows}
        if not self.training:
            logging[_WINDOWS] = self._rows(masked_BT2.detach(), sample)
        return loss, windows, logging

    def _rows(self, masked_BT2: Tensor, sample: Mapping[str, Any]) -> Tensor:
        """(windows in all, `COLUMNS`), zero but for this batch's."""
        spans = best_spans(masked_BT2, self.task.cfg.max_answer_tokens, 1)
        shift_B = sample["window_start"] - sample["context_begin"]
        columns_B = [
            torch.ones_like(spans.score[:, 0]),
            no_answer_scores(masked_BT2),
            *(spans.score[:, 0], spans.start[:, 0] + shift_B, spans.end[:, 0] + shift_B),
        ]
        rows_BC = torch.stack([column_B.float() for column_B in columns_B], dim=1)
        return rows_BC.new_zeros(sample["set_size"], COLUMNS).index_add_(0, sample["id"], rows_BC)

    def log_metrics(self, logging_outputs: Sequence[Mapping[str, Any]]) -> None:
        """Log the mean loss, and in validation exact match, F1 and ``score``, which is F1."""
        windows = sum(log["sample_size"] for log in logging_outputs)
        loss = sum(log["loss"] for log in logging_outputs)  # stays on the device
        metrics.log_scalar("loss", loss / max(windows, 1), windows, priority=5, round=4)
        if _WINDOWS in logging_outputs[0]:
            metrics.log_scalar_sum(_WINDOWS, sum(log[_WINDOWS] for log in logging_outputs).double().cpu())
            for name in ("score", "exact", "f1"):
                metrics.log_derived(name, partial(self._metric, name), priority=10)

    def _metric(self, name: str, meters: MetersDict) -> float:
        rows_W5 = meters[_WINDOWS].sum
        if not torch.is_tensor(rows_W5):  # fairseq has reset its meters, nothing was logged since
            return float("nan")
        return round(self.task.measure(rows_W5.numpy())[name], 3)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Every value is a number or a vector of sums."""
        return True
