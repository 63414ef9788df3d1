"""A fine-tuned model over a whole data set, outside the trainer."""

from collections.abc import Iterator
from typing import Any

import torch
from fairseq import utils
from torch import Tensor

from hmtl_plugin.data.batching import NumberedDataset
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertModel
from hmtl_plugin.precision import autocast
from hmtl_plugin.progress import progress_bar

MAX_TOKENS = 8192  # of a batch, padding included


def task_logits(
    model: HierarchicalBertModel, dataset: NumberedDataset, precision: str, title: str
) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """Every batch of the data set with the logits (fp32) of the model's task head, on the model's device."""
    device = next(model.parameters()).device
    batches = dataset.batch_by_size(dataset.ordered_indices(), max_tokens=MAX_TOKENS)
    with progress_bar(title, len(dataset), "row") as bar, torch.inference_mode():
        for rows in batches:
            sample = dataset.collater([int(row) for row in rows])
            sample = utils.move_to_cuda(sample, device) if device.type == "cuda" else sample
            with autocast(precision, device.type):
                logits, _ = model(**sample["net_input"], task_head=True)
            yield sample, logits.float()
            bar.update(len(rows))
