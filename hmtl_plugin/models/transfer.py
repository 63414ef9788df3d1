"""Transfer operators: how the representation of one objective enters the input of another.

All start as the identity on h: their contribution is added to h and its last matrix starts at zero. So
``concat``, [h ; z] projected to H, is written h + P[h ; z] with P = 0 at first, which spans the same
functions.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmtl_plugin.models.initialisation import STANDARD_DEVIATION, embedding, initialise, linear
from hmtl_plugin.models.sequences import Sequences, rows_at

Expand = Callable[[Tensor], Tensor]
"""Takes rows of the source, (B, H) or rows that match already, to rows that broadcast over the target's."""


class Operator(nn.Module, ABC):
    """One edge. ``forward(h, z, expand)`` gives h, in the same shape, with the source's information in it."""

    def __init__(
        self, hidden: int, num_labels: int | None, generator: torch.Generator, std: float = STANDARD_DEVIATION
    ) -> None:
        """``num_labels`` is that of the source objective; only ``label`` needs it."""
        super().__init__()
        self.build(hidden, num_labels)
        initialise(self, generator, std)
        nn.init.zeros_(self.last().weight)

    @abstractmethod
    def build(self, hidden: int, num_labels: int | None) -> None:
        """Create the sub-modules."""

    @abstractmethod
    def last(self) -> nn.Linear:
        """The matrix that starts at zero."""

    @abstractmethod
    def forward(self, h: Tensor, z: Tensor, expand: Expand) -> Tensor:
        """h (..., H), z in the source's rows; z is mapped before it is expanded, on fewer rows."""


class Concat(Operator):
    """h + P[h ; z]: [h ; z] projected to H, written as a change of h."""

    def build(self, hidden: int, num_labels: int | None) -> None:
        self.projection = linear(2 * hidden, hidden)

    def last(self) -> nn.Linear:
        return self.projection

    def forward(self, h: Tensor, z: Tensor, expand: Expand) -> Tensor:
        of_h, of_z = self.projection.weight.chunk(2, dim=1)
        return h + nn.functional.linear(h, of_h, self.projection.bias) + expand(nn.functional.linear(z, of_z))


class Add(Operator):
    """h + W z."""

    def build(self, hidden: int, num_labels: int | None) -> None:
        self.projection = linear(hidden, hidden, bias=False)

    def last(self) -> nn.Linear:
        return self.projection

    def forward(self, h: Tensor, z: Tensor, expand: Expand) -> Tensor:
        return h + expand(self.projection(z))


class Gate(Operator):
    """h + sigmoid(U[h ; z]) * W z."""

    def build(self, hidden: int, num_labels: int | None) -> None:
        self.gate = linear(2 * hidden, hidden)
        self.projection = linear(hidden, hidden, bias=False)

    def last(self) -> nn.Linear:
        return self.projection

    def forward(self, h: Tensor, z: Tensor, expand: Expand) -> Tensor:
        of_h, of_z = self.gate.weight.chunk(2, dim=1)
        openness = nn.functional.linear(h, of_h, self.gate.bias) + expand(nn.functional.linear(z, of_z))
        return h + torch.sigmoid(openness) * expand(self.projection(z))


class Label(Operator):
    """h + W times the label embedding expected under z, probabilities of the source's labels (Hashimoto et al. 2017)."""

    def build(self, hidden: int, num_labels: int | None) -> None:
        if num_labels is None:
            raise ValueError("the source of a label transfer has no small label set")
        self.labels = embedding(num_labels, hidden)
        self.projection = linear(hidden, hidden, bias=False)

    def last(self) -> nn.Linear:
        return self.projection

    def forward(self, h: Tensor, z: Tensor, expand: Expand) -> Tensor:
        expected = z.type_as(self.labels.weight) @ self.labels.weight
        return h + expand(self.projection(expected))


OPERATORS: dict[str, type[Operator]] = {"concat": Concat, "add": Add, "gate": Gate, "label": Label}
"""The operators by the name used in ``--transfer``."""


@dataclass(frozen=True)
class Rows:
    """Which rows the input of a target holds.

    Attributes:
        kind: ``tokens`` (states of all, (B, T, H) or (N, H)), ``sparse`` (M, H) or ``sentence`` (B, H).
        positions_M: positions of the sparse rows.
    """

    kind: str
    positions_M: Tensor | None = None

    def of(self, state: Tensor) -> Tensor:
        """(M, H) the sparse rows of the states of all tokens."""
        assert self.positions_M is not None
        return rows_at(state, self.positions_M)


def shape_source(
    source: Tensor, scope: str, rows: Rows, sequences: Sequences, permuted: bool = False
) -> tuple[Tensor, Expand]:
    """Fit a source to the rows of a target.

    Args:
        source: (B, H) for ``scope`` sentence, states of all tokens for token; H may be any width.
        permuted: give every sample what is `another_sample`'s.

    Returns:
        The source, pooled or gathered where that saves work, and what takes it to the target's rows.
    """
    if scope == "sentence":
        source_BH = another_sample(source) if permuted else source
        if rows.kind == "tokens":
            return source_BH, sequences.spread
        if rows.kind == "sparse":
            assert rows.positions_M is not None
            samples_M = sequences.samples(rows.positions_M)
            return source_BH, lambda z_BH: F.embedding(samples_M, z_BH)
        return source_BH, _same
    if rows.kind == "sentence":  # a mean is over the words that z is of
        mean_BH = sequences.mean_of_words(source)
        return another_sample(mean_BH) if permuted else mean_BH, _same
    if permuted:
        source = _tokens_of_another(source, sequences)
    return rows.of(source) if rows.kind == "sparse" else source, _same


def another_sample(z_Bx: Tensor) -> Tensor:
    """Every sample's rows replaced by those of the sample before it in the batch, the first's by the last's; 0 in a
    batch of one.

    A cyclic shift leaves none at its own place, as a random permutation would. Batches are drawn anew every epoch.
    """
    return z_Bx.roll(1, 0) if z_Bx.shape[0] > 1 else torch.zeros_like(z_Bx)


def _tokens_of_another(state: Tensor, sequences: Sequences) -> Tensor:
    """`another_sample`, token by token; 0 where packed sequences are longer than the other."""
    packing = sequences.packing
    return another_sample(state) if packing is None else packing.unpad(another_sample(packing.pad(state)))


def _same(z: Tensor) -> Tensor:
    return z
