"""An objective that changes tokens, as docs/extending.md has it: which words have given way to a copy of the one
before?
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.functional import one_hot

import hmtl_plugin  # noqa: F401
from hmtl_plugin.corruption.batch import IGNORE
from hmtl_plugin.corruption.words import find_words
from hmtl_plugin.errors import UserError
from hmtl_plugin.objectives.base import Labelling, ObjectiveOptions, register_objective
from hmtl_plugin.objectives.measure import Measure, Metric, register_metric


@dataclass(frozen=True)
class EchoOptions(ObjectiveOptions):
    """``--echo-rate`` of fairseq-train."""

    echo_rate: float = field(default=0.1, metadata={"help": "echo: share of the words that give way to the one before"})

    def check(self) -> None:
        if not 0 < self.echo_rate < 1:
            raise UserError(f"--echo-rate {self.echo_rate}: use a share above 0 and below 1")


def _sums(seen, counted):
    """Columns that add up: right answers of each class, answers of each, labels of each."""
    said = one_hot(seen.logits_MC.argmax(1), seen.logits_MC.shape[1])
    label = one_hot(seen.labels_M, seen.logits_MC.shape[1])
    return {"value": torch.cat([said * label, said, label], 1), "baseline": label}


def _f1(sums):
    right, said, label = np.split(sums, 3, axis=-1)
    return 100 * np.mean(2 * right / np.maximum(said + label, 1), axis=-1)


def _f1_of_the_majority(label):
    said = np.where(label == label.max(), label.sum(), 0)
    return float(_f1(np.concatenate([np.minimum(said, label), said, label])))


MACRO_F1 = register_metric(Metric("macro_f1", "macro F1 (%)", 1, "majority"))


@register_objective("echo")
class EchoedWords(Labelling):
    """A label for each word of one piece that has another such word before it."""

    asks = "token"
    labels = ("kept", "echoed")
    rank = 60  # after words have moved and tokens were replaced, before masks
    Options = EchoOptions

    def corrupt(self, batch, random):
        words = find_words(batch)
        free_N = batch.vocabulary.plain_V[batch.tokens_N]  # no special token, no punctuation
        for reserved_N in batch.reserved.values():
            free_N &= ~reserved_N
        whole_W = words.every(free_N) & (words.length_W == 1)
        follows_W = np.append(False, whole_W[1:] & whole_W[:-1])
        at = words.start_W[follows_W]  # tokens whose left neighbour is a whole word too
        chosen = at[random.per_token("echo/choice", at) < self.options.echo_rate]
        before = batch.tokens_N.copy()
        batch.tokens_N[chosen] = before[chosen - 1]
        target_N = np.full(len(before), IGNORE)
        target_N[at] = 0
        target_N[chosen[before[chosen] != before[chosen - 1]]] = 1
        batch.targets["echo"] = target_N

    def measure(self, target):
        return Measure(MACRO_F1, _sums, _f1, _f1_of_the_majority)
