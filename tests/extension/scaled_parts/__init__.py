"""Parts of an encoder outside of the project, as docs/extending.md has them: a norm, an activation, a transfer."""

import torch
from torch import nn
from torch.nn import functional as F

import hmtl_plugin  # noqa: F401
from hmtl_plugin.models.initialisation import linear
from hmtl_plugin.models.parts import ACTIVATIONS, NORMS, register_part
from hmtl_plugin.models.transfer import OPERATORS, Operator


class ScaleNorm(nn.Module):
    """One scale for the whole state (Nguyen and Salazar 2019)."""

    def __init__(self, hidden, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.size, self.eps = hidden**0.5, eps

    def forward(self, x):
        return x * (self.weight * self.size / x.norm(dim=-1, keepdim=True).clamp(min=self.eps))


class Scale(Operator):
    """h * (1 + W z): what the source has found amplifies."""

    def build(self, hidden, num_labels):
        self.projection = linear(hidden, hidden)

    def last(self):
        return self.projection  # starts at zero, so that training begins from h

    def forward(self, h, z, expand):
        return h * (1 + expand(self.projection(z)))


register_part(NORMS, "scale", ScaleNorm)
register_part(ACTIVATIONS, "silu", F.silu)
register_part(OPERATORS, "scale", Scale)
