"""The hierarchy of objectives: which objective is solved at which layer, and which hands information to which.

    hierarchy := placement (',' placement)*      placement := objective '@' layer ['*' weight]
    layer     := 1..L | -1..-L from the top | P% of the depth (ceil(P*L/100))
               | mix | mix:first-last   a learnt mix of all layers, or of those (numbers or P%)
    transfer  := edge (',' edge)*                edge      := source '>' target ':' operator ['!'] ['~']

This module knows names only: what the objectives and operators are is told to `Hierarchy.validate`.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, isfinite
from typing import Protocol

from hmtl_plugin.user_dir import how_to_find

NAME = r"[a-z][a-z0-9_]*"
"""Of an objective or operator."""
_NUMBER = "[0-9]{1,9}"
_SHARE = rf"{_NUMBER}(?:\.[0-9]{{1,30}})?%"
_PLACEMENT = re.compile(
    rf"(?P<objective>{NAME})@(?P<layer>-?{_NUMBER}|{_SHARE}|mix(:[^*@,]*)?)(\*(?P<weight>[^*@,]+))?"
)
_EDGE = re.compile(rf"(?P<source>{NAME})>(?P<target>{NAME}):(?P<operator>{NAME})(?P<stop>!?)(?P<permuted>~?)")


class Kind(Protocol):
    """What a hierarchy asks of an objective, or of its class.

    Attributes:
        pairing: the kind of sentence pairs that it needs, if any: a sample is of one kind.
        num_labels: classes that a ``label`` transfer embeds; None if it has no small set of them.
    """

    @property
    def pairing(self) -> str | None: ...
    @property
    def num_labels(self) -> int | None: ...


_BOUNDS = re.compile(rf"(?P<first>{_NUMBER}|{_SHARE})-(?P<last>{_NUMBER}|{_SHARE})")
MIX = "mix"


class HierarchyError(ValueError):
    """A hierarchy that cannot be; the message names the placement or edge and how to fix it, in one line."""


@dataclass(frozen=True)
class Placement:
    """One objective at one layer, or at a mix of several. ``layer`` is as written: '8', '-1', '50%', 'mix' or
    'mix:1-8'; ``weight`` multiplies its loss.
    """

    objective: str
    layer: str
    weight: float = 1.0

    @property
    def is_mix(self) -> bool:
        """Whether it reads a mix of layers."""
        return self.layer.startswith(MIX)

    def resolve(self, num_layers: int) -> int:
        """The concrete layer, 1 (first) to ``num_layers`` (top); of a mix the highest.

        Raises:
            HierarchyError: if the encoder has no such layer.
        """
        return self.reads(num_layers)[-1]

    def reads(self, num_layers: int) -> tuple[int, ...]:
        """The layers that are read, the lowest first: one, or those of a mix.

        Raises:
            HierarchyError: if the encoder has no such layer, or the bounds of a mix cannot be.
        """
        if not self.is_mix:
            return (self._concrete(self.layer, num_layers),)
        bounds = self.layer[len(MIX) + 1 :] if self.layer != MIX else f"1-{num_layers}"
        found = _BOUNDS.fullmatch(bounds)
        if found is None:
            raise HierarchyError(
                f"hierarchy: cannot read '{self}': write mix, or its bounds as in mix:1-8 or mix:1-66.6%"
            )
        first, last = (self._concrete(found[name], num_layers) for name in ("first", "last"))
        if first > last:
            raise HierarchyError(f"hierarchy: '{self}' begins above its end: write the lower layer first")
        return tuple(range(first, last + 1))

    def _concrete(self, layer: str, num_layers: int) -> int:
        if layer.endswith("%"):
            number = ceil(Fraction(layer[:-1]) * num_layers / 100)  # exact: no float error before the ceiling
        else:
            number = int(layer)
            if number < 0:
                number += num_layers + 1
        if not 1 <= number <= num_layers:
            raise HierarchyError(
                f"hierarchy: '{self}' names no layer of an encoder with {num_layers}: "
                f"use 1..{num_layers}, -1..-{num_layers} or a percentage above 0 and up to 100%"
            )
        return number

    def __str__(self) -> str:
        weight = "" if self.weight == 1.0 else f"*{self.weight!r}"  # repr keeps every digit
        return f"{self.objective}@{self.layer}{weight}"


@dataclass(frozen=True)
class Transfer:
    """One edge: the representation of ``source`` enters the input of ``target`` through ``operator``.

    Attributes:
        stop_gradient: no gradient flows back into the source ('!').
        permuted: a sample gets the representation of another one of its batch ('~'): a control with the operator's
            parameters and without its information.
    """

    source: str
    target: str
    operator: str
    stop_gradient: bool = False
    permuted: bool = False

    def __str__(self) -> str:
        marks = ("!" if self.stop_gradient else "") + ("~" if self.permuted else "")
        return f"{self.source}>{self.target}:{self.operator}{marks}"


@dataclass(frozen=True)
class Hierarchy:
    """Placements and transfers, in the order written. `parse` and ``str()`` are inverses."""

    placements: tuple[Placement, ...]
    transfers: tuple[Transfer, ...] = ()

    @classmethod
    def parse(cls, hierarchy: str, transfer: str = "") -> "Hierarchy":
        """Read ``--hierarchy`` and ``--transfer``; blanks around items are ignored.

        Raises:
            HierarchyError: naming the item that cannot be read.
        """
        return cls(
            placements=tuple(_parse_placement(item) for item in _items(hierarchy)),
            transfers=tuple(_parse_edge(item) for item in _items(transfer)),
        )

    def __str__(self) -> str:
        return ",".join(map(str, self.placements))

    @property
    def transfer(self) -> str:
        """The transfers as written on the command line."""
        return ",".join(map(str, self.transfers))

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the placed objectives, in the order written."""
        return tuple(placement.objective for placement in self.placements)

    @property
    def weights(self) -> dict[str, float]:
        """Objective -> weight of its loss."""
        return {placement.objective: placement.weight for placement in self.placements}

    def layers(self, num_layers: int) -> dict[str, int]:
        """Objective -> concrete layer, 1..``num_layers``; of a mix the highest."""
        return {placement.objective: placement.resolve(num_layers) for placement in self.placements}

    def mixes(self, num_layers: int) -> dict[str, tuple[int, ...]]:
        """Objective that reads a mix -> its layers."""
        return {placement.objective: placement.reads(num_layers) for placement in self.placements if placement.is_mix}

    def into(self, target: str) -> tuple[Transfer, ...]:
        """The edges into ``target``, in the order written."""
        return tuple(edge for edge in self.transfers if edge.target == target)

    def order(self, num_layers: int) -> list[str]:
        """Solving order: by layer, at the same layer sources before their targets, else as written.

        Raises:
            HierarchyError: if transfers at one layer form a cycle.
        """
        layers = self.layers(num_layers)
        waiting = sorted(self.objectives, key=lambda name: layers[name])
        solved: list[str] = []
        while waiting:
            ready = [n for n in waiting if not any(edge.source in waiting for edge in self.into(n))]
            if not ready:
                edge = next(e for e in self.transfers if e.source in waiting and e.target in waiting)
                raise HierarchyError(f"transfer: '{edge}' is part of a cycle: leave one of its edges out")
            solved.append(ready[0])
            waiting.remove(ready[0])
        return solved

    def validate(self, num_layers: int, objectives: Mapping[str, Kind], operators: Collection[str]) -> None:
        """Check the hierarchy against an encoder of ``num_layers`` and the known objectives and operators.

        Raises:
            HierarchyError: one line that names the placement or edge and how to fix it.
        """
        if not self.placements:
            raise HierarchyError("hierarchy: no objective is placed; write for example 'nsp@-1,mlm@-1'")
        seen: set[str] = set()
        for placement in self.placements:
            _check_placement(placement, objectives, seen)
            placement.resolve(num_layers)
            seen.add(placement.objective)
        paired = {objectives[name].pairing: name for name in self.objectives if objectives[name].pairing}
        if len(paired) > 1:
            one, other = sorted(paired.values())[:2]
            raise HierarchyError(
                f"hierarchy: '{one}' and '{other}' cannot be placed together, they need different pairs of sentences: "
                "leave one out"
            )
        if not any(placement.weight > 0 for placement in self.placements):
            raise HierarchyError(
                "hierarchy: every weight is 0, nothing would be learned; give one objective a weight above 0"
            )
        self._validate_transfers(num_layers, objectives, operators)
        self.order(num_layers)

    def _validate_transfers(self, num_layers: int, objectives: Mapping[str, Kind], operators: Collection[str]) -> None:
        layers = self.layers(num_layers)
        pairs: set[tuple[str, str]] = set()
        for edge in self.transfers:
            for name in (edge.source, edge.target):
                if name not in layers:
                    raise HierarchyError(
                        f"transfer: '{edge}' names '{name}', which is not in the hierarchy '{self}': place it or drop the edge"
                    )
            if edge.source == edge.target:
                raise HierarchyError(f"transfer: '{edge}' is a cycle of one: drop it")
            if edge.operator not in operators:
                raise HierarchyError(
                    f"transfer: '{edge}' uses an unknown operator: use one of {', '.join(sorted(operators))}, "
                    f"or {how_to_find()}"
                )
            if edge.operator == "label" and objectives[edge.source].num_labels is None:
                raise HierarchyError(
                    f"transfer: '{edge}': {edge.source} has no small label set to embed: use concat, add or gate"
                )
            if layers[edge.source] > layers[edge.target]:
                raise HierarchyError(
                    f"transfer: '{edge}' runs downwards, from layer {layers[edge.source]} to layer {layers[edge.target]}: "
                    f"place {edge.source} at or below {edge.target}"
                )
            if (edge.source, edge.target) in pairs:
                raise HierarchyError(f"transfer: '{edge}' joins two objectives that are joined already: keep one edge")
            pairs.add((edge.source, edge.target))


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")] if text.strip() else []


def _parse_placement(item: str) -> Placement:
    match = _PLACEMENT.fullmatch(item)
    if match is None:
        raise HierarchyError(
            f"hierarchy: cannot read '{item}': write objective@layer or objective@layer*weight, as in 'nsp@8*0.5'"
        )
    try:
        weight = float(match["weight"]) if match["weight"] else 1.0
    except ValueError:
        raise HierarchyError(f"hierarchy: '{item}': the weight '{match['weight']}' is not a number") from None
    return Placement(match["objective"], match["layer"], weight)


def _parse_edge(item: str) -> Transfer:
    match = _EDGE.fullmatch(item)
    if match is None:
        raise HierarchyError(
            f"transfer: cannot read '{item}': write source>target:operator, as in 'nsp>mlm:concat' (with ! to stop the gradient)"
        )
    return Transfer(match["source"], match["target"], match["operator"], bool(match["stop"]), bool(match["permuted"]))


def _check_placement(placement: Placement, objectives: Collection[str], seen: set[str]) -> None:
    if placement.objective not in objectives:
        raise HierarchyError(
            f"hierarchy: '{placement}' names an unknown objective: use one of {', '.join(sorted(objectives))}, "
            f"or {how_to_find()}"
        )
    if placement.objective in seen:
        raise HierarchyError(f"hierarchy: '{placement}' places {placement.objective} a second time: keep one placement")
    if not isfinite(placement.weight) or placement.weight < 0:
        raise HierarchyError(f"hierarchy: '{placement}' has a weight that is negative or not finite: use 0 or more")
