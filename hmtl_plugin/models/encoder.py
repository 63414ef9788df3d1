"""The BERT encoder: token, position and segment embeddings, and layers that run up to the highest tap."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hmtl_plugin.errors import UserError
from hmtl_plugin.models.attention import SelfAttention
from hmtl_plugin.models.dropout import add_dropout, dropout
from hmtl_plugin.models.initialisation import STANDARD_DEVIATION, embedding, generator_for, initialise, linear
from hmtl_plugin.models.sequences import Packing, Sequences, rows_at
from hmtl_plugin.optim.marks import mark_layers
from hmtl_plugin.precision import recomputing


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "gelu_tanh": _gelu_tanh, "relu": F.relu}
"""Activation functions by the name of ``--activation-fn``; ``gelu`` is the exact one."""


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and functions of an encoder. ``hidden`` is a multiple of ``heads``."""

    vocabulary: int
    hidden: int = 768
    layers: int = 12
    heads: int = 12
    ffn: int = 3072
    max_positions: int = 512
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    activation_fn: str = "gelu"
    normalize_before: bool = False
    layer_norm_eps: float = 1e-12
    init_std: float = STANDARD_DEVIATION
    checkpoint_activations: bool = False


class Embeddings(nn.Module):
    """Sum of token, learned position (0..T-1) and segment embedding, layer norm, dropout."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.token = embedding(config.vocabulary, config.hidden)
        self.position = embedding(config.max_positions, config.hidden)
        self.segment = embedding(2, config.hidden)
        self.norm = nn.LayerNorm(config.hidden, eps=config.layer_norm_eps)
        self.p = config.dropout

    def forward(self, sequences: Sequences) -> Tensor:
        x = self.token(sequences.tokens) + sequences.at_positions(self.position.weight)
        first_H, second_H = self.segment.weight.unbind(0)
        # no look-up: on a GPU the gradient of a table of two rows would add up the tokens of each one after the other
        x = x + first_H + sequences.segments()[..., None] * (second_H - first_H)
        return dropout(self.norm(x), self.p, self.training)


class Layer(nn.Module):
    """Self-attention and feed-forward, each with a residual; layer norm after (BERT) or before each."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config.hidden, config.heads, config.attention_dropout)
        self.attention_norm = nn.LayerNorm(config.hidden, eps=config.layer_norm_eps)
        self.fc1 = linear(config.hidden, config.ffn)
        self.fc2 = linear(config.ffn, config.hidden)
        self.ffn_norm = nn.LayerNorm(config.hidden, eps=config.layer_norm_eps)
        self.activation = ACTIVATIONS[config.activation_fn]
        self.pre_norm = config.normalize_before
        self.p, self.activation_p = config.dropout, config.activation_dropout

    def forward(
        self, x: Tensor, mask: Tensor | None, packing: Packing | None = None, rows_R: Tensor | None = None
    ) -> Tensor:
        """One layer on states (B, T, H) or (N, H). With ``rows_R``, positions, only these are finished: (R, H)."""
        context = self.attention.context(self.attention_norm(x) if self.pre_norm else x, mask, packing)
        if rows_R is not None:
            x, context = rows_at(x, rows_R), rows_at(context, rows_R)
        x = add_dropout(x, self.attention.out(context), self.p, self.training)
        if not self.pre_norm:
            x = self.attention_norm(x)
        inner = self.activation(self.fc1(self.ffn_norm(x) if self.pre_norm else x))
        x = add_dropout(x, self.fc2(dropout(inner, self.activation_p, self.training)), self.p, self.training)
        return x if self.pre_norm else self.ffn_norm(x)


class Encoder(nn.Module):
    """A BERT encoder whose hidden states can be read at any layer.

    With layers that normalise before (``normalize_before``), each layer's *output* has a layer norm of its
    own that is applied where the layer is read, never on the way up: every tap sees a normalised state.
    """

    def __init__(self, config: EncoderConfig, seed: int) -> None:
        """Weights depend on ``seed`` and the sizes alone."""
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.output_norms = nn.ModuleList(
            nn.LayerNorm(config.hidden, eps=config.layer_norm_eps)
            for _ in range(config.layers if config.normalize_before else 0)
        )
        for name, part in [*self.embeddings.named_children(), *self.layers.named_children()]:
            initialise(part, generator_for(seed, f"encoder.{name}"), config.init_std)
        mark_layers(self.layers)

    def forward(
        self,
        tokens: Tensor | Sequences,
        layers: Collection[int],
        padded: bool | None = None,
        top_rows_R: Tensor | None = None,
        trunk: dict[int, Tensor] | None = None,
    ) -> dict[int, Tensor]:
        """Hidden states at ``layers`` (0: embeddings, 1..L); runs no layer above the highest of them.

        Args:
            tokens: (B, T) ids, padded with 1; or `Sequences`, which may be packed.
            padded: whether ids (B, T) hold padding; False saves the mask, None (unknown) builds it.
            top_rows_R: positions. If given, the highest layer returns only these rows, (R, H), which saves most of its
                feed-forward.
            trunk: is given the same layers' states as the next layer reads them: before the output norm, where there is one.

        Returns:
            layer -> (B, T, H), packed (N, H). States at padded positions mean nothing.

        Raises:
            UserError: if T exceeds the position table.
        """
        sequences = tokens if isinstance(tokens, Sequences) else Sequences(tokens, padded)
        self._check_length(sequences.width)
        mask, top = sequences.mask(), max(layers)
        x = self.embeddings(sequences)
        states = {0: x} if 0 in layers else {}
        for number in range(1, top + 1):
            x = self._run(self.layers[number - 1], x, mask, sequences.packing, top_rows_R if number == top else None)
            if number in layers:
                if trunk is not None:
                    trunk[number] = x
                states[number] = self.output_norms[number - 1](x) if self.config.normalize_before else x
        return states

    def _run(self, layer: nn.Module, *inputs: Tensor | Packing | None) -> Tensor:
        if self.config.checkpoint_activations and self.training and torch.is_grad_enabled():
            output: Tensor = checkpoint(layer, *inputs, use_reentrant=False, context_fn=recomputing)
            return output
        return layer(*inputs)

    def _check_length(self, length: int) -> None:
        if length > self.config.max_positions:
            raise UserError(
                f"a sequence of {length} tokens is longer than the model's {self.config.max_positions} "
                f"positions: shorten the input, or continue training "
                f"with --max-positions {length} --resize-positions"
            )
