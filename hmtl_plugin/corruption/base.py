"""The data side of a pre-training objective: what it does to a batch, and which targets it writes."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from hmtl_plugin.corruption.batch import FlatBatch
from hmtl_plugin.corruption.random import BatchRandom


class Corruption(ABC):
    """What a data set knows of an objective; `objectives.base.Objective` adds head, loss and measures.

    Attributes:
        name: as written in a hierarchy.
        scope: ``token`` heads see every token's hidden state, ``sentence`` heads that of ``<s>``.
        num_labels: classes of its labels; None if there is no small set of labels.
        numbers: its labels are numbers, not classes.
        rank: order of corruption, lowest first.
        pairing: the kind of sentence pairs the objective needs (``nsp``, ``sop``), if any.
        options: an instance of a dataclass.
    """

    name: ClassVar[str]
    num_labels: ClassVar[int | None] = 2
    numbers: ClassVar[bool] = False
    rank: ClassVar[int] = 0
    pairing: ClassVar[str | None] = None

    def __init__(self, options: Any) -> None:
        self.options = options

    @property
    @abstractmethod
    def scope(self) -> Literal["token", "sentence"]:
        """Which hidden states the head sees."""

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the targets it fills in and learns from; the first one's logits feed ``label`` transfers."""
        return (self.name,)

    def reserve(self, batch: FlatBatch, random: BatchRandom) -> npt.NDArray[np.bool_] | None:
        """(N,) which tokens of the clean batch it will predict, if any: all objectives are asked before the first one
        corrupts.
        """
        return None

    @abstractmethod
    def corrupt(self, batch: FlatBatch, random: BatchRandom) -> None:
        """Change the batch in place, but tokens that others have reserved, and write the targets."""
