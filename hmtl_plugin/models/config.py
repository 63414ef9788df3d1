"""Every option of the encoder, written once: fairseq's options, the record in a checkpoint and what fine-tuning passes
on derive from it.
"""

import logging
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from hmtl_plugin.errors import UserError
from hmtl_plugin.models.initialisation import STANDARD_DEVIATION
from hmtl_plugin.models.parts import ACTIVATIONS, FEED_FORWARDS, NORMS, POSITIONS, Positions, check_dropout, check_part

logger = logging.getLogger(__name__)

RECORDED, CARRIED, TRAINING = "recorded", "carried", "training"
"""What an option means for those who go on from a checkpoint: it is compared and passed on, passed on, or theirs to
choose.
"""


def _option(
    default: Any, help: str, role: str, name: str = "", choices: Mapping[str, Any] | None = None, given: Any = None
) -> Any:
    """A field of `EncoderConfig`.

    Args:
        name: of the option of ``fairseq-train`` in underscores, if it differs from the field's.
        choices: table whose names are the values; one that is registered later, by code of a user's own, is one too.
        given: the option's default where it stands for a size that is derived.
    """
    metadata = {
        "help": help,
        "role": role,
        "name": name,
        "choices": choices,
        "given": default if given is None else given,
    }
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes and parts of an encoder; the defaults are BERT base, and what checkpoints have that do not record an
    option.

    ``hidden`` is a multiple of ``heads``.
    """

    vocabulary: int
    hidden: int = _option(768, "width of the hidden states", RECORDED, "encoder_embed_dim")
    layers: int = _option(12, "number of layers", RECORDED, "encoder_layers")
    heads: int = _option(
        12, "attention heads; 0: one for every 64 of the hidden width", RECORDED, "encoder_attention_heads", given=0
    )
    ffn: int = _option(
        3072,
        "inner width of the feed-forward layers; 0: four times the hidden width",
        RECORDED,
        "encoder_ffn_embed_dim",
        given=0,
    )
    positions: str = _option(
        "learned",
        "learned: a table added to the embeddings; rotary: queries and keys turn",
        RECORDED,
        choices=POSITIONS,
    )
    rotary_base: float = _option(
        10000.0, "rotary positions: the slowest pair turns once in 2 pi times this many tokens", RECORDED
    )
    norm: str = _option("layer", "layer: layer norm; rms: RMS norm", RECORDED, choices=NORMS)
    layer_norm_eps: float = _option(1e-12, "epsilon of the norms", RECORDED)
    normalize_before: bool = _option(
        False, "norm before each block instead of after it (BERT)", RECORDED, "encoder_normalize_before"
    )
    feed_forward: str = _option(
        "plain", "plain: activation of one product; gated: times another product", RECORDED, choices=FEED_FORWARDS
    )
    activation_fn: str = _option(
        "gelu",
        "activation of the feed-forward layers and heads",
        RECORDED,
        choices=ACTIVATIONS,
    )
    max_positions: int = _option(
        512, "longest sequence; of learned positions the rows of the table, rotary ones go on beyond it", CARRIED
    )
    init_std: float = _option(
        STANDARD_DEVIATION,
        "standard deviation of the first weights; narrow models learn faster from larger ones",
        CARRIED,
    )
    zero_init_outputs: bool = _option(
        False, "the matrices that end attention and feed-forward blocks start at zero", CARRIED
    )
    local_init: float = _option(
        0.0,
        "rotary positions: first biases of queries and keys, of this size, with which heads begin by attending to the "
        "tokens before and after; 0: none",
        CARRIED,
    )
    dropout: float = _option(0.1, "dropout of embeddings and block outputs", TRAINING)
    attention_dropout: float = _option(0.1, "dropout of attention probabilities", TRAINING)
    activation_dropout: float = _option(0.0, "dropout after the feed-forward activation", TRAINING)
    checkpoint_activations: bool = _option(
        False, "recompute activations in the backward pass: less memory, more time", TRAINING
    )

    @classmethod
    def options(cls, *roles: str) -> list[Field[Any]]:
        """The fields that are options of ``fairseq-train``; of these roles, if any are given."""
        found = [option for option in fields(cls) if option.metadata]
        return [option for option in found if not roles or option.metadata["role"] in roles]

    @classmethod
    def of(cls, config: Any, vocabulary: int) -> "EncoderConfig":
        """From a model's configuration; options that it lacks, being older than they are, have their default.

        Raises:
            UserError: for parts that do not fit together.
        """
        values = {
            option.name: _plain(getattr(config, option_name(option), option.default), option)
            for option in cls.options()
        }
        encoder = cls(vocabulary, **values)
        encoder._check()
        return encoder

    def _check(self) -> None:
        for option in self.options():
            if option.metadata["choices"]:
                check_part(option.metadata["choices"], flag(option), getattr(self, option.name))
            if option.name.endswith("dropout"):
                check_dropout(flag(option), getattr(self, option.name))
        if self.hidden % self.heads:
            raise UserError(
                f"--encoder-embed-dim {self.hidden} does not divide by --encoder-attention-heads "
                f"{self.heads}: give a multiple of the number of heads"
            )
        find_positions(self.positions).check(self.hidden // self.heads, self.rotary_base)
        if not 0 <= self.local_init <= 10:
            raise UserError(f"--local-init {self.local_init:g}: use a number from 0 (none) to 10, as in 2")

    @property
    def has_position_table(self) -> bool:
        """Whether sequences may not be longer than `max_positions`."""
        return find_positions(self.positions).has_table


def find_positions(name: str) -> type[Positions]:
    """Positions by the name of the option.

    Raises:
        UserError: if there are none of this name.
    """
    check_part(POSITIONS, "--positions", name)
    return POSITIONS[name]


def hold_sequences(config: Any, tokens: int) -> None:
    """See to it that a model built from a configuration takes sequences of ``tokens`` tokens (``--tokens-per-sample``).

    Raises:
        UserError: if its position table is shorter.
    """
    if config.max_positions >= tokens:
        return
    if find_positions(str(getattr(config, "positions", "learned"))).has_table:
        raise UserError(
            f"--tokens-per-sample {tokens} is more than the model's --max-positions {config.max_positions}: "
            "lower the one, or raise the other (for a trained model with --resize-positions)"
        )
    logger.info(
        f"sequences of {tokens} tokens, beyond --max-positions {config.max_positions}: that is raised to {tokens}"
    )
    config.max_positions = tokens


def option_name(option: Field[Any]) -> str:
    """Name of an option in configurations, with underscores."""
    return str(option.metadata["name"] or option.name)


def flag(option: Field[Any]) -> str:
    """Name of an option on the command line."""
    return f"--{option_name(option).replace('_', '-')}"


def fairseq_fields() -> list[tuple[str, Any, Any]]:
    """(name, type, field) of every option, as fairseq reads them off a dataclass."""
    return [
        (
            option_name(option),
            option.type,
            field(
                default=option.metadata["given"],
                metadata={name: option.metadata[name] for name in ("help", "choices")},
            ),
        )
        for option in EncoderConfig.options()
    ]


def _plain(value: Any, option: Field[Any]) -> Any:
    """The value, of a choice its name."""
    assert option.default is not MISSING
    return str(value) if option.metadata["choices"] else value
