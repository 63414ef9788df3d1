"""Which head each fine-tuning task has, for training and for opening its checkpoints."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from hmtl_plugin.errors import UserError
from hmtl_plugin.finetuning.glue.tasks import GlueTask, find_task
from hmtl_plugin.models.parts import check_dropout, check_part
from hmtl_plugin.models.pooling import POOLINGS, canonical
from hmtl_plugin.models.sentence_head import SentenceHead, head_poolings, needs_pairs
from hmtl_plugin.models.span_head import SpanHead


def check_pooling(task: GlueTask, pooling: str) -> None:
    """Raise `UserError` if ``--head-pooling`` is not known, or made for pairs of sentences and the task has single ones."""
    check_part(head_poolings(), "--head-pooling", pooling)
    if needs_pairs(pooling) and len(task.text) == 1:
        raise UserError(
            f"--head-pooling {pooling}: is for pairs of sentences, {task.name} has single ones: "
            f"use {', '.join(POOLINGS)}"
        )


def default_pooling(task: GlueTask, pooling: str) -> str:
    """What the head of a task reads unless told otherwise: what pre-training read (``pooling``), and of single sentences
    the mean where that was made for pairs, as the state of ``<s>`` has then learned nothing of the text.
    """
    return "mean" if needs_pairs(pooling) and len(task.text) == 1 else canonical(pooling)


def _sentence_head(name: str, hidden: int, options: Any, mask: int) -> nn.Module:
    task, pooling = find_task(name), str(options.head_pooling)
    check_pooling(task, pooling)
    check_dropout("--head-dropout", options.head_dropout)
    return SentenceHead(hidden, task.outputs, pooling, options.head_dropout, mask)


def _span_head(name: str, hidden: int, options: Any, mask: int) -> nn.Module:
    check_dropout("--head-dropout", options.head_dropout)
    return SpanHead(hidden, options.head_dropout)


# fairseq task -> head from its name (a GLUE task's, or "squad"), the width of the states, the task's options,
# the id of <mask>
HEADS: Mapping[str, Callable[[str, int, Any, int], nn.Module]] = {"glue": _sentence_head, "squad": _span_head}
