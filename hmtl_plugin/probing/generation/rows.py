"""Rows of a task, and what all tasks share: balance, and one place a sentence."""

from typing import NamedTuple

import numpy as np

from hmtl_plugin.probing.generation.split import SPLITS
from hmtl_plugin.probing.generation.vocabulary import IntArray

MINIMUM_ROWS = 50  # of a split; with fewer no probe says anything

Sizes = tuple[int, int, int]


class Row(NamedTuple):
    """A sentence and what is asked of it."""

    label: str
    sentence: str


Rows = tuple[list[Row], list[Row], list[Row]]
"""The rows of tr, va, te."""


def lacking(rows: Rows, sizes: Sizes) -> str:
    """Why these rows make no task; empty when they do."""
    for split, made, asked in zip(SPLITS, rows, sizes):
        if len(made) < min(MINIMUM_ROWS, asked):
            return f"the text gives {len(made)} balanced rows for {split}, and {min(MINIMUM_ROWS, asked)} are needed"
        if len({row.label for row in made}) < 2:
            return f"the rows of {split} have one label"
    return ""


def quotas(available_L: IntArray, size: int) -> IntArray:
    """Rows of each label: as many of one as of another, up to one, `size` in all if there are enough."""
    labels = len(available_L)
    each = min(size // labels, int(available_L.min()))
    quota_L = np.full(labels, each)
    if each == size // labels:
        quota_L[np.flatnonzero(available_L > each)[: size - each * labels]] += 1
    return quota_L


def choose_balanced(label_C: IntArray, labels: int, size: int, random: np.random.Generator) -> IntArray:
    """Indices of `size` candidates, or fewer, with the labels balanced, in random order.

    Args:
        label_C: number of the label of each candidate, 0 to `labels` - 1.
    """
    shuffled = random.permutation(len(label_C))
    by_label = shuffled[np.argsort(label_C[shuffled], kind="stable")]
    available_L = np.bincount(label_C, minlength=labels)
    rank_C = np.arange(len(label_C)) - np.repeat(np.cumsum(available_L) - available_L, available_L)
    chosen = by_label[rank_C < np.repeat(quotas(available_L, size), available_L)]
    return random.permutation(chosen)


def one_each(group_P: IntArray, random: np.random.Generator) -> IntArray:
    """Index of one place of each group, every place of the group as likely; equal groups stand side by side."""
    first = np.flatnonzero(np.diff(group_P, prepend=-1))
    length = np.diff(first, append=len(group_P))
    return first + (random.random(len(first)) * length).astype(np.int64)
