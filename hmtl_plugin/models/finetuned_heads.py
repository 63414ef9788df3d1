"""The heads of fine-tuning: for sentences and pairs of them BERT's pooler and classifier, for spans two scores a token;
and which of them each task has, for training and for opening its checkpoints.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hmtl_plugin.errors import UserError
from hmtl_plugin.glue.tasks import GlueTask, find_task
from hmtl_plugin.models.initialisation import linear
from hmtl_plugin.models.parts import check_dropout, check_part
from hmtl_plugin.models.pooling import POOLINGS, canonical, pool
from hmtl_plugin.models.sentence_pooling import SENTENCE_POOLINGS, SentencePooling
from hmtl_plugin.models.sequences import Sequences
from hmtl_plugin.optim.marks import mark_matrix
from hmtl_plugin.special_tokens import PAD


def head_poolings() -> dict[str, type[SentencePooling] | None]:
    """By the names of ``--head-pooling``, the class of those for pairs. A name that is in both tables means what `pool`
    does: ``mean`` is over the whole text, so that it serves single sentences too and older checkpoints give the answers
    they gave.
    """
    return {name: SENTENCE_POOLINGS[name] if needs_pairs(name) else None for name in (*POOLINGS, *SENTENCE_POOLINGS)}


def needs_pairs(pooling: str) -> bool:
    """Whether a pooling is made for two sentences, so that half of what it gives says nothing of a single one."""
    return pooling in SENTENCE_POOLINGS and canonical(pooling) not in POOLINGS


class SentenceHead(nn.Module):
    """Classes or one number for a sequence, read off a layer's hidden states.

    Args:
        outputs: classes, or 1 for regression.
        pooling: one of `head_poolings`.
        dropout: before each of the two layers, as in BERT's fine-tuning.
        mask: id of ``<mask>``, which poolings for pairs leave out.

    Attributes:
        pooling: its name, ``cls`` for ``first``.
    """

    def __init__(self, hidden: int, outputs: int, pooling: str, dropout: float, mask: int = PAD) -> None:
        super().__init__()
        self.pooling = canonical(pooling)
        self.dense = linear(hidden, hidden)
        mark_matrix(self.dense.weight)
        self.dropout = nn.Dropout(dropout)
        self.out = linear(hidden, outputs)
        # After the layers, whose weights then are the same for all poolings of one seed. Drawn anew, like these, where
        # pre-training had a pooling of the kind too: heads of one grid must differ in nothing but what it names.
        self.pair_pooling = SENTENCE_POOLINGS[self.pooling](hidden, mask) if needs_pairs(pooling) else None

    def forward(self, hidden_BTH: Tensor, tokens_BT: Tensor) -> Tensor:
        """Logits (B, outputs), under autocast in fp32 as well: bfloat16's eight bits would make scores tie."""
        with torch.autocast(hidden_BTH.device.type, enabled=False):
            x_BH = self.dropout(self._pooled(hidden_BTH.to(self.out.weight.dtype), tokens_BT))
            logits: Tensor = self.out(self.dropout(torch.tanh(self.dense(x_BH))))
        return logits

    def _pooled(self, hidden_BTH: Tensor, tokens_BT: Tensor) -> Tensor:
        """(B, H)."""
        if self.pair_pooling is None:
            return pool(hidden_BTH, tokens_BT, self.pooling)
        x_BH: Tensor = self.pair_pooling(hidden_BTH, Sequences(tokens_BT))
        return x_BH


class SpanHead(nn.Module):
    """Scores of each token to be an answer's first and last; those of ``<s>`` stand for no answer."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.out = linear(hidden, 2)

    def forward(self, hidden_BTH: Tensor, tokens_BT: Tensor) -> Tensor:
        """Logits (B, T, 2) in fp32, also under autocast: bfloat16's eight bits would make spans tie."""
        with torch.autocast(hidden_BTH.device.type, enabled=False):
            logits: Tensor = self.out(self.dropout(hidden_BTH).to(self.out.weight.dtype))
        return logits


def check_pooling(task: GlueTask, pooling: str) -> None:
    """Raise `UserError` if ``--head-pooling`` is not known, or made for pairs of sentences and the task has single
    ones.
    """
    check_part(head_poolings(), "--head-pooling", pooling)
    if needs_pairs(pooling) and len(task.text) == 1:
        raise UserError(
            f"--head-pooling {pooling}: is for pairs of sentences, {task.name} has single ones: "
            f"use {', '.join(POOLINGS)}"
        )


def default_pooling(task: GlueTask, pooling: str) -> str:
    """What the head of a task reads unless told otherwise: what pre-training read (``pooling``), and of single
    sentences the mean where that was made for pairs, as the state of ``<s>`` has then learned nothing of the text.
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
