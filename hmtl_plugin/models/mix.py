"""A placement that is learnt: an objective reads several layers, and how much of each is weights of its own."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shares = dict[int, float]
"""Layer -> its share of a mix; they sum to 1."""


def shares_of(mixes: nn.ModuleDict) -> dict[str, Shares]:
    """Objective that reads a mix -> the share of each layer, of a model's ``mixes``."""
    found = {}
    for name, mix in mixes.items():
        assert isinstance(mix, Mix)
        found[name] = dict(zip(mix.layers, mix.shares().tolist(), strict=True))
    return found


def centre_of(shares: Mapping[int, float]) -> float:
    """Centre of gravity: the mean layer, weighted by shares."""
    return sum(layer * share for layer, share in shares.items()) / sum(shares.values())


def in_words(shares: Mapping[int, float]) -> str:
    """As ``layers 1 to 3: 0.20, 0.30, 0.50 (centre of gravity 2.30)``."""
    layers = sorted(shares)
    listed = ", ".join(f"{shares[layer]:.2f}" for layer in layers)
    return f"layers {layers[0]} to {layers[-1]}: {listed} (centre of gravity {centre_of(shares):.2f})"


class Mix(nn.Module):
    """Softmax-weighted sum of the normalised outputs of layers (the scalar mix of ELMo, Peters et al. 2018, equation 1,
    with its normalisation and without its scale, which the head's first layer has).

    Weights begin equal. They are of normalised states, so that a layer is not preferred for its size; how much a layer
    tells they do not say, see `alone`.

    Attributes:
        layers: 1..L, the lowest first.
        weights: (K,) before the softmax, fp32 in half-precision models too; undecayed, as all vectors are.
        alone: place of a layer that is read instead of the mix, None for the mix.
    """

    def __init__(self, layers: Sequence[int]) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.weights = nn.Parameter(torch.zeros(len(self.layers)))
        self.alone: int | None = None

    def shares(self) -> Tensor:
        """(K,) of each layer, in fp32; they sum to 1."""
        if self.alone is not None:
            return F.one_hot(torch.tensor(self.alone), len(self.layers)).float().to(self.weights.device)
        return torch.softmax(self.weights.float(), 0)

    def centre(self) -> Tensor:
        """Centre of gravity: the mean layer, weighted by shares; a scalar."""
        places = torch.arange(self.layers[0], self.layers[0] + len(self.layers), device=self.weights.device)
        return (self.shares() * places).sum()

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """The mix of K states (..., H), those of `layers`."""
        shares_K = self.shares()
        mixed = sum(
            share * F.layer_norm(state, state.shape[-1:]) for share, state in zip(shares_K, states, strict=True)
        )
        assert isinstance(mixed, Tensor)
        return mixed.type_as(states[0])
