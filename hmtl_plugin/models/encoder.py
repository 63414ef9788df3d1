"""The BERT encoder: token, position and segment embeddings, and layers that run up to the highest tap."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hmtl_plugin.errors import UserError
from hmtl_plugin.models.attention import SelfAttention, attention_mask
from hmtl_plugin.models.dropout import add_dropout, dropout
from hmtl_plugin.models.initialisation import STANDARD_DEVIATION, embedding, generator_for, initialise, linear

PAD, EOS = 1, 2  # fairseq's ids, the same in every dictionary


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


def segments(tokens_BT: Tensor) -> Tensor:
    """Segment of each position (B, T), 0 or 1: min(1, number of ``</s>`` strictly before it)."""
    is_end_BT = tokens_BT.eq(EOS).long()
    return (is_end_BT.cumsum(1) - is_end_BT).clamp_(max=1)


class Embeddings(nn.Module):
    """Sum of token, learned position (0..T-1) and segment embedding, layer norm, dropout."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.token = embedding(config.vocabulary, config.hidden)
        self.position = embedding(config.max_positions, config.hidden)
        self.segment = embedding(2, config.hidden)
        self.norm = nn.LayerNorm(config.hidden, eps=config.layer_norm_eps)
        self.p = config.dropout

    def forward(self, tokens_BT: Tensor) -> Tensor:
        length = tokens_BT.shape[1]
        x_BTH = self.token(tokens_BT) + self.segment(segments(tokens_BT)) + self.position.weight[:length]
        return dropout(self.norm(x_BTH), self.p, self.training)


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

    def forward(self, x_BTH: Tensor, mask: Tensor | None, rows_R: Tensor | None = None) -> Tensor:
        """One layer. With ``rows_R``, indices into the B*T positions, only these are finished: (R, H)."""
        context_BTH = self.attention.context(self.attention_norm(x_BTH) if self.pre_norm else x_BTH, mask)
        if rows_R is not None:
            x_BTH, context_BTH = x_BTH.flatten(0, 1)[rows_R], context_BTH.flatten(0, 1)[rows_R]
        x = add_dropout(x_BTH, self.attention.out(context_BTH), self.p, self.training)
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

    def forward(
        self,
        tokens_BT: Tensor,
        layers: Collection[int],
        padded: bool | None = None,
        top_rows_R: Tensor | None = None,
    ) -> dict[int, Tensor]:
        """Hidden states at ``layers`` (0: embeddings, 1..L); runs no layer above the highest of them.

        Args:
            tokens_BT: (B, T) ids, padded with 1.
            padded: whether the batch holds padding; False saves the mask, None (unknown) builds it.
            top_rows_R: indices into the flattened B*T positions. If given, the highest layer returns only
                these
                rows, (R, H), which saves most of its feed-forward.

        Returns:
            layer -> (B, T, H). States at padded positions mean nothing.

        Raises:
            UserError: if T exceeds the position table.
        """
        self._check_length(tokens_BT.shape[1])
        mask = None if padded is False else attention_mask(tokens_BT.ne(PAD))
        top = max(layers)
        x = self.embeddings(tokens_BT)
        states = {0: x} if 0 in layers else {}
        for number in range(1, top + 1):
            x = self._run(self.layers[number - 1], x, mask, top_rows_R if number == top else None)
            if number in layers:
                states[number] = self.output_norms[number - 1](x) if self.config.normalize_before else x
        return states

    def _run(self, layer: nn.Module, x: Tensor, mask: Tensor | None, rows_R: Tensor | None) -> Tensor:
        if self.config.checkpoint_activations and self.training and torch.is_grad_enabled():
            output: Tensor = checkpoint(layer, x, mask, rows_R, use_reentrant=False)
            return output
        return layer(x, mask, rows_R)

    def _check_length(self, length: int) -> None:
        if length > self.config.max_positions:
            raise UserError(
                f"a sequence of {length} tokens is longer than the model's {self.config.max_positions} "
                f"positions: shorten the input, or continue training "
                f"with --max-positions {length} --resize-positions"
            )
