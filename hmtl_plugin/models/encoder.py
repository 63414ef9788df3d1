"""The BERT encoder: token, position and segment embeddings, and layers of self-attention and feed-forward that run up
to the highest tap.
"""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from hmtl_plugin.models.config import EncoderConfig
from hmtl_plugin.models.cpu import add_dropout, attend_on_cpu, dropout
from hmtl_plugin.models.initialisation import embedding, generator_for, initialise, linear
from hmtl_plugin.models.parts import ACTIVATIONS, FEED_FORWARDS, NORMS, POSITIONS, rotated
from hmtl_plugin.models.sequences import Packing, Sequences, rows_at
from hmtl_plugin.optim.marks import mark_layers
from hmtl_plugin.precision import recomputing

_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class SelfAttention(nn.Module):
    """Softmax attention within each sequence; queries, keys and values come from one fused matrix (3H, H)."""

    def __init__(self, hidden: int, heads: int, p: float) -> None:
        super().__init__()
        self.heads, self.p = heads, p
        self.qkv = linear(hidden, 3 * hidden)
        self.out = linear(hidden, hidden)

    def context(
        self, x: Tensor, mask: Tensor | None, packing: Packing | None = None, rotation: Tensor | None = None
    ) -> Tensor:
        """Attended values in the shape of ``x``, (B, T, H) or packed (N, H), before the output projection `out`.

        ``mask`` (B, 1, 1, T) is of the rows; packed sequences have one too, for devices without a kernel that does
        without. ``rotation`` (T, D/2, 2), if any, turns queries and keys, see `positions`.
        """
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))
        p = self.p if self.training else 0.0
        if packing is None:
            return _attend(qkv, mask, p, rotation)
        if packing.has_kernel and _kernel_takes(qkv):
            return _attend_packed(qkv, packing, p, rotation)
        return packing.unpad(_attend(packing.pad(qkv), mask, p, rotation))


def _split(qkv: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys, turned in fp32 if there is a rotation, and values of (..., T, 3, A, D), as views where they can
    be.
    """
    if rotation is None:
        q, k, v = qkv.unbind(-3)
    else:
        turned, values = qkv.split((2, 1), -3)  # whose gradient is one copy; of slices it is sums of zeros
        (q, k), v = rotated(turned, rotation).unbind(-3), values.squeeze(-3)
    return q, k, v


def _attend(qkv_BT3AD: Tensor, mask: Tensor | None, p: float, rotation: Tensor | None) -> Tensor:
    """(B, T, H) of rows."""
    q, k, v = (x.transpose(1, 2) for x in _split(qkv_BT3AD, rotation))  # three of (B, A, T, D)
    if v.device.type == "cpu":
        context_BATD = attend_on_cpu(q, k, v, mask, p)
    else:
        context_BATD = _attend_without_cudnn(q.to(v.dtype), k.to(v.dtype), v, mask, p)
    return context_BATD.transpose(1, 2).flatten(2)


def _kernel_takes(qkv_N3AD: Tensor) -> bool:
    """Half precision, and heads as wide as FlashAttention has them; SDPA pads others, its operator does not."""
    width = qkv_N3AD.shape[-1]
    return qkv_N3AD.dtype in (torch.bfloat16, torch.float16) and width % 8 == 0 and width <= 256


def _attend_packed(qkv_N3AD: Tensor, packing: Packing, p: float, rotation: Tensor | None = None) -> Tensor:
    """(N, H) of sequences that lie end to end, without any work on padding.

    `torch.nn.attention.varlen` is this operator without dropout, which BERT has.
    """
    q, k, v = _split(qkv_N3AD, None if rotation is None else rotation[packing.position_N])
    q, k = q.to(v.dtype), k.to(v.dtype)
    context_NAD = torch.ops.aten._flash_attention_forward(
        *(q, k, v, packing.starts, packing.starts, packing.longest, packing.longest, p), False, False
    )[0]
    return context_NAD.flatten(1)


def _attend_without_cudnn(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float) -> Tensor:
    """SDPA by torch's own kernels. cuDNN, which torch prefers on Hopper and Blackwell, plans anew for each shape, up to
    a second; our batches have hundreds of shapes. With masks it has also given NaN gradients (pytorch/pytorch#196678).
    """
    with sdpa_kernel(_BACKENDS):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)


class Embeddings(nn.Module):
    """Sum of token embedding, learned positions if the encoder has these, and segment embedding; norm, dropout."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.token = embedding(config.vocabulary, config.hidden)
        self.position = POSITIONS[config.positions](
            config.max_positions, config.hidden, config.hidden // config.heads, config.rotary_base
        )
        self.segment = embedding(2, config.hidden)
        self.norm = _norm(config)
        self.p = config.dropout

    def forward(self, sequences: Sequences) -> Tensor:
        x = self.token(sequences.tokens)
        places = self.position.added(sequences)
        if places is not None:
            x = x + places
        first_H, second_H = self.segment.weight.unbind(0)
        # no look-up: on a GPU the gradient of a table of two rows would add up the tokens of each one after the other
        x = x + first_H + sequences.segments()[..., None] * (second_H - first_H)
        return dropout(self.norm(x), self.p, self.training)


def _norm(config: EncoderConfig) -> nn.Module:
    return NORMS[config.norm](config.hidden, eps=config.layer_norm_eps)


class Layer(nn.Module):
    """Self-attention and feed-forward, each with a residual; a norm after (BERT) or before each."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config.hidden, config.heads, config.attention_dropout)
        self.attention_norm = _norm(config)
        self.feed_forward = FEED_FORWARDS[config.feed_forward]
        self.fc1 = linear(config.hidden, self.feed_forward.blocks * config.ffn)
        # for optimizers that take a weight of several matrices apart
        self.fc1.blocks = self.feed_forward.blocks  # type: ignore[assignment]
        self.fc2 = linear(config.ffn, config.hidden)
        self.ffn_norm = _norm(config)
        self.activation = ACTIVATIONS[config.activation_fn]
        self.pre_norm = config.normalize_before
        self.p, self.activation_p = config.dropout, config.activation_dropout

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        packing: Packing | None = None,
        rotation: Tensor | None = None,
        rows_R: Tensor | None = None,
    ) -> Tensor:
        """One layer on states (B, T, H) or (N, H). With ``rows_R``, positions, only these are finished: (R, H)."""
        context = self.attention.context(self.attention_norm(x) if self.pre_norm else x, mask, packing, rotation)
        if rows_R is not None:
            x, context = rows_at(x, rows_R), rows_at(context, rows_R)
        x = add_dropout(x, self.attention.out(context), self.p, self.training)
        if not self.pre_norm:
            x = self.attention_norm(x)
        inner = self.feed_forward.combine(self.fc1(self.ffn_norm(x) if self.pre_norm else x), self.activation)
        x = add_dropout(x, self.fc2(dropout(inner, self.activation_p, self.training)), self.p, self.training)
        return x if self.pre_norm else self.ffn_norm(x)


class Encoder(nn.Module):
    """A BERT encoder whose hidden states can be read at any layer.

    With layers that normalise before (``normalize_before``), each layer's *output* has a norm of its own that is
    applied where the layer is read, never on the way up: every tap sees a normalised state.
    """

    def __init__(self, config: EncoderConfig, seed: int) -> None:
        """Weights depend on ``seed`` and the sizes alone."""
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.output_norms = nn.ModuleList(_norm(config) for _ in range(config.layers if config.normalize_before else 0))
        for name, part in [*self.embeddings.named_children(), *self.layers.named_children()]:
            initialise(part, generator_for(seed, f"encoder.{name}"), config.init_std)
        initialise(self.output_norms, generator_for(seed, "encoder.output_norms"), config.init_std)
        if config.zero_init_outputs:
            for name, weight in self.layers.named_parameters():
                if name.endswith(("attention.out.weight", "fc2.weight")):
                    nn.init.zeros_(weight)
        if config.local_init:
            self._begin_locally(config.local_init)
        mark_layers(self.layers)

    @torch.no_grad()
    def _begin_locally(self, size: float) -> None:
        """Attention starts at the tokens before and after, where positions can say which these are."""
        biases = self.embeddings.position.local_biases(self.config.heads, size)
        if biases is not None:
            for name, bias in self.layers.named_parameters():
                if name.endswith("attention.qkv.bias"):
                    bias[: biases.numel()] = biases.flatten()

    def forward(
        self,
        tokens: Tensor | Sequences,
        layers: Collection[int],
        padded: bool | None = None,
        top_rows_R: Tensor | None = None,
        trunk: dict[int, Tensor] | None = None,
        mixed: Collection[int] = (),
    ) -> dict[int, Tensor]:
        """Hidden states at ``layers`` (0: embeddings, 1..L); runs no layer above the highest of them, and of ``mixed``.

        Args:
            tokens: (B, T) ids, padded with 1; or `Sequences`, which may be packed.
            padded: whether ids (B, T) hold padding; False saves the mask, None (unknown) builds it.
            top_rows_R: positions. If given, the highest layer returns only these rows, (R, H), which saves most of its
                feed-forward.
            trunk: is given the same layers' states as the next layer reads them: before the output norm, where there is
                one.
            mixed: layers whose states are wanted in ``trunk`` alone.

        Returns:
            layer -> (B, T, H), packed (N, H). States at padded positions mean nothing.

        Raises:
            UserError: if T exceeds the table of learned positions.
        """
        sequences = tokens if isinstance(tokens, Sequences) else Sequences(tokens, padded)
        self.embeddings.position.check_length(sequences.width)
        mask, rotation, top = sequences.mask(), self.embeddings.position.rotation(sequences), max([*layers, *mixed])
        x = self.embeddings(sequences)
        states = {0: x} if 0 in layers else {}
        for number in range(1, top + 1):
            rows_R = top_rows_R if number == top else None
            x = self._run(self.layers[number - 1], x, mask, sequences.packing, rotation, rows_R)
            if trunk is not None and (number in layers or number in mixed):
                trunk[number] = x
            if number in layers:
                states[number] = self.output_norms[number - 1](x) if self.config.normalize_before else x
        return states

    def _run(self, layer: nn.Module, *inputs: Tensor | Packing | None) -> Tensor:
        if self.config.checkpoint_activations and self.training and torch.is_grad_enabled():
            output: Tensor = checkpoint(layer, *inputs, use_reentrant=False, context_fn=recomputing)
            return output
        return layer(*inputs)
