"""``--compile``: the parts of the model that every token passes, each compiled once by `torch.compile`.

By region, not as a whole: all layers share one compiled graph, which takes a twelfth of the time to make, and what
depends on the hierarchy stays plain Python. Shapes are dynamic, since no two batches have as many tokens or masks.
Parameters keep their names, so checkpoints are the same with and without.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch._functorch.config

_GRAPHS = 64
"""Variants of one function before torch gives up compiling it: training and evaluation, with and without mask, top
layer.
"""


def compile_parts(model: Any, objectives: Mapping[str, Any], keeps_graph: bool = False) -> None:
    """Compile embeddings, layers, heads and losses of a `HierarchicalBertModel` in place; the first batches take
    minutes.

    Args:
        keeps_graph: gradients are asked for more than once a step (``--log-gradient-norms``).
    """
    torch._dynamo.config.recompile_limit = max(_GRAPHS, torch._dynamo.config.recompile_limit)
    torch._dynamo.config.optimize_ddp = (
        False  # it would cut each region in two, for an overlap that regions have anyway
    )
    if keeps_graph:
        torch._functorch.config.donated_buffer = False  # else backward overwrites what the next one reads, and refuses
    for part in (
        model.encoder.embeddings,
        *model.encoder.layers,
        *model.encoder.output_norms,
        *model.transfers.values(),
    ):
        part.compile(dynamic=True)
    for head in model.heads.values():
        head.transform = torch.compile(head.transform, dynamic=True)
        head.classify = torch.compile(head.classify, dynamic=True)
    for objective in objectives.values():
        objective.loss = torch.compile(objective.loss, dynamic=True)
