"""Solving the objectives of a hierarchy in order: read the tap, apply transfers, run the head."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from hmtl_plugin.hierarchy import Hierarchy, Transfer
from hmtl_plugin.models.encoder import Encoder
from hmtl_plugin.models.sequences import Sequences, rows_at
from hmtl_plugin.models.transfer import Rows, shape_source
from hmtl_plugin.objectives.base import Head, Objective, Targets

__all__ = ["Solver", "Targets"]


@dataclass(frozen=True)
class _Solved:
    """What a solved objective can hand on: its representation z and the logits of its first target."""

    z: Tensor
    logits: Tensor


class Solver:
    """The plan of one hierarchy on an encoder of L layers; holds no weights.

    The highest tap is computed only at the rows its heads need, when these are few: ``<s>`` and masked
    positions.

    Attributes:
        layers: objective -> layer 1..L; of one that reads a mix of layers the highest.
        mixes: objective -> the layers of its mix.
        plain: layers that are read as they are.
        order: the objectives, sources before their targets.
    """

    def __init__(
        self,
        hierarchy: Hierarchy,
        num_layers: int,
        objectives: Mapping[str, Objective],
        reads_all: Collection[str] = (),
    ) -> None:
        """``reads_all``: sentence objectives whose pooling reads the states of all tokens."""
        self.hierarchy = hierarchy
        self.layers = hierarchy.layers(num_layers)
        self.mixes = hierarchy.mixes(num_layers)
        self.plain = {layer for name, layer in self.layers.items() if name not in self.mixes}
        self.order = hierarchy.order(num_layers)
        self.objectives = {name: objectives[name] for name in self.order}
        sources = {edge.source for edge in hierarchy.transfers}
        self.kinds = {name: self._kind(name, name in sources) for name in self.order}
        self.top = max(self.layers.values())
        self.at_top = [name for name in self.order if self.layers[name] == self.top]
        self.few_rows_at_top = all(self.kinds[name] != "tokens" and name not in reads_all for name in self.at_top)

    def _kind(self, name: str, is_source: bool) -> str:
        """The rows an objective's head works on. A sparse one that hands its z on needs every token."""
        objective = self.objectives[name]
        if objective.scope == "sentence":
            return "sentence"
        return "sparse" if objective.sparse and not is_source else "tokens"

    def solve(
        self,
        encoder: Encoder,
        heads: nn.ModuleDict,
        poolings: nn.ModuleDict,
        transfers: nn.ModuleDict,
        mixes: nn.ModuleDict,
        sequences: Sequences,
        targets: Targets,
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Run encoder and heads; see `HierarchicalBertModel.forward`."""
        rows = {name: Rows(kind, self._positions(name, sequences, targets)) for name, kind in self.kinds.items()}
        first_B = sequences.first()
        top_rows = self._top_rows(rows, first_B) if self.few_rows_at_top else None
        trunk: dict[int, Tensor] = {}
        states = encoder(
            sequences,
            self.plain,
            top_rows_R=None if top_rows is None else torch.cat(list(top_rows.values())),
            trunk=trunk,
            mixed={layer for layers in self.mixes.values() for layer in layers},
        )
        at_top, mixed_at_top = (
            {} if top_rows is None else _split(found.get(self.top), top_rows) for found in (states, trunk)
        )
        solved: dict[str, _Solved] = {}
        logits: dict[str, Tensor] = {}
        for name in self.order:
            pooling = poolings[name] if name in poolings else None  # noqa: SIM401  a ModuleDict has no `get`
            if name in self.mixes:
                h = self._mixed(name, mixes[name], trunk, mixed_at_top, rows[name], pooling, sequences)
            elif name in at_top:
                h = at_top[name]
            else:
                h = _select(states[self.layers[name]], rows[name], pooling, sequences)
            for edge in self.hierarchy.into(name):
                operator = transfers[f"{edge.source}>{edge.target}:{edge.operator}"]
                h = self._transfer(operator, edge, h, solved[edge.source], rows[name], sequences)
            head = cast(Head, heads[name])
            z = head.transform(h)
            classified = head.classify(
                self._classified_rows(name, z, rows[name]), encoder.embeddings.token.weight, first_B
            )
            logits.update(classified | head.read_out(h))
            solved[name] = _Solved(z, classified[self.objectives[name].target_names[0]])
        return logits, {"taps": {name: trunk[self.layers[name]] for name in self.order}}

    def _positions(self, name: str, sequences: Sequences, targets: Targets) -> Tensor | None:
        """Positions of a sparse objective's targets, none where the batch has no such target."""
        objective = self.objectives[name]
        if not (objective.sparse and objective.scope == "token"):
            return None
        target = targets.get(objective.target_names[0])
        return sequences.tokens.new_zeros(0) if target is None else target["positions"]

    def _top_rows(self, rows: Mapping[str, Rows], first_B: Tensor) -> dict[str, Tensor]:
        """Objective at the top -> positions its head reads."""
        positions = {name: rows[name].positions_M for name in self.at_top}
        return {name: first_B if own is None else own for name, own in positions.items()}

    def _mixed(
        self,
        name: str,
        mix: nn.Module,
        trunk: Mapping[int, Tensor],
        at_top: Mapping[str, Tensor],
        rows: Rows,
        pooling: nn.Module | None,
        sequences: Sequences,
    ) -> Tensor:
        """The rows that a head reads of a mix; only these are mixed, unless its pooling reads all."""
        layers = self.mixes[name]
        if pooling is not None:
            return _select(mix([trunk[layer] for layer in layers]), rows, pooling, sequences)
        parts = [
            at_top[name] if layer == self.top and name in at_top else _select(trunk[layer], rows, None, sequences)
            for layer in layers
        ]
        mixed: Tensor = mix(parts)
        return mixed

    def _transfer(
        self, operator: nn.Module, edge: Transfer, h: Tensor, source: _Solved, rows: Rows, sequences: Sequences
    ) -> Tensor:
        # of labels the probabilities: their mean over tokens is one too, that of logits would not be
        z = torch.softmax(source.logits.float(), -1) if edge.operator == "label" else source.z
        if edge.stop_gradient:
            z = z.detach()
        z, expand = shape_source(z, self.objectives[edge.source].scope, rows, sequences, edge.permuted)
        result: Tensor = operator(h, z, expand)
        return result

    def _classified_rows(self, name: str, z: Tensor, rows: Rows) -> Tensor:
        """A sparse objective transforms every token if it is a source, but classifies at its targets only."""
        if self.objectives[name].sparse and rows.kind == "tokens":
            return rows.of(z)
        return z


def _split(state: Tensor | None, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Objective -> its part of the rows that the highest layer has finished."""
    return {} if state is None else dict(zip(rows, state.split([len(r) for r in rows.values()]), strict=True))


def _select(state: Tensor, rows: Rows, pooling: nn.Module | None, sequences: Sequences) -> Tensor:
    """The rows that a head reads."""
    if rows.kind == "sentence":
        return rows_at(state, sequences.first()) if pooling is None else pooling(state, sequences)
    return rows.of(state) if rows.kind == "sparse" else state
