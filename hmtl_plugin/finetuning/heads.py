"""Which head each fine-tuning task has, for training and for opening its checkpoints."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from hmtl_plugin.finetuning.glue.tasks import find_task
from hmtl_plugin.models.sentence_head import SentenceHead
from hmtl_plugin.models.span_head import SpanHead


def _sentence_head(name: str, hidden: int, options: Any) -> nn.Module:
    return SentenceHead(hidden, find_task(name).outputs, str(options.head_pooling), options.head_dropout)


def _span_head(name: str, hidden: int, options: Any) -> nn.Module:
    return SpanHead(hidden, options.head_dropout)


# fairseq task -> head from its name (a GLUE task's, or "squad"), the width of the states, the task's options
HEADS: Mapping[str, Callable[[str, int, Any], nn.Module]] = {"glue": _sentence_head, "squad": _span_head}
