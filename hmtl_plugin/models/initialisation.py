"""Initial weights: every part of the model draws from a generator of its own, keyed by (seed, name).

So the encoder is the same for the same seed whatever heads stand on it, and adding an objective changes no
other's weights.
"""

import hashlib

import torch
from torch import Tensor, nn

STANDARD_DEVIATION = 0.02  # BERT's


def generator_for(seed: int, name: str) -> torch.Generator:
    """A CPU generator that depends on ``seed`` and ``name`` alone; the global generator is not touched."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator, std: float = STANDARD_DEVIATION) -> None:
    """Fill every parameter: matrices from N(0, std), vectors called ``weight``, the scales of norms, 1, all others 0.

    Modules with weights that must start elsewhere (transfer operators) set them afterwards.
    """
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if parameter.ndim >= 2:
                parameter.copy_(_normal(parameter, generator, std))
            else:  # a scale must not be 0, of whatever norm it is: nothing would pass it
                parameter.fill_(1.0 if name == "weight" else 0.0)


def _normal(like: Tensor, generator: torch.Generator, std: float) -> Tensor:
    return torch.empty(like.shape).normal_(0.0, std, generator=generator)


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """An `nn.Linear` without values: torch's own initialisation would draw from the global generator.

    Not by `skip_init`, which imports what it does not use: sympy, a quarter of a second, and for embeddings the
    compiler.
    """
    layer = nn.Linear(inputs, outputs, bias=bias, device="meta")
    for name, parameter in list(layer.named_parameters()):
        setattr(layer, name, nn.Parameter(torch.empty(parameter.shape)))
    return layer


def embedding(rows: int, width: int) -> nn.Embedding:
    """An `nn.Embedding` without values, see `linear`."""
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)
