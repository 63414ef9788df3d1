"""Hugging Face's config.json of a BERT, and what it means here."""

from pathlib import Path
from typing import Any

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.shape import read_object
from hmtl_plugin.interop.names import Family, first_position
from hmtl_plugin.interop.tokenizer_files import special_ids
from hmtl_plugin.models.config import RECORDED, EncoderConfig, flag
from hmtl_plugin.tokenizers.base import Tokenizer

CONFIG = "config.json"
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "relu": "relu",
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}
"""Their names of activation functions, and ours; of several for one of ours the first is exported."""

_COUNTS = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("max_position_embeddings",),
)
_SHARES = {  # name -> the default, and whether it may be 0
    "layer_norm_eps": (1e-12, False),
    "initializer_range": (0.02, False),
    "hidden_dropout_prob": (0.1, True),
    "attention_probs_dropout_prob": (0.1, True),
}
_ONLY: dict[str, tuple[Any, str]] = {
    "type_vocab_size": (2, "two segments"),
    "position_embedding_type": ("absolute", "learned absolute positions"),
    "is_decoder": (False, "attention to both sides"),
    "add_cross_attention": (False, "attention within the sequence only"),
}
"""What a value must be (also where it is left out), and what is known here."""


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration in a folder.

    Raises:
        UserError: naming file and entry, for another architecture or a BERT that cannot be built here.
    """
    path = folder / CONFIG
    try:
        config = read_object(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: give a folder that save_pretrained wrote") from None
    kind = config.get("model_type")
    if kind != "bert":
        raise UserError(
            f"{path}: model_type is {kind!r}: only BERT can be imported ('bert'), cased, uncased or Chinese"
        )
    for name in _COUNTS:
        if type(config.get(name)) is not int or config[name] < 1:
            raise UserError(f"{path}: {name} is {config.get(name)!r}, not a whole number above 0: fetch it again")
    for name, (usual, zero) in _SHARES.items():
        value = config.setdefault(name, usual)
        if type(value) not in (int, float) or not (0 <= value < 1 if zero else 0 < value < 1):
            low = "from 0" if zero else "above 0"
            raise UserError(f"{path}: {name} is {value!r}, not a number {low} and below 1: fetch it again")
    for name, (value, known) in _ONLY.items():
        if config.get(name, value) != value:
            raise UserError(f"{path}: {name} is {config[name]!r}: here is only {known} ({value!r})")
    if str(config.get("hidden_act", "gelu")) not in ACTIVATIONS:
        raise UserError(f"{path}: hidden_act is {config['hidden_act']!r}: known are {', '.join(ACTIVATIONS)}")
    if config["hidden_size"] % config["num_attention_heads"]:
        raise UserError(f"{path}: hidden_size {config['hidden_size']} does not divide by num_attention_heads")
    return config


def model_options(config: dict[str, Any]) -> dict[str, Any]:
    """As options of the model ``hmtl_bert``, by the names of its configuration."""
    return {
        "encoder_layers": config["num_hidden_layers"],
        "encoder_embed_dim": config["hidden_size"],
        "encoder_ffn_embed_dim": config["intermediate_size"],
        "encoder_attention_heads": config["num_attention_heads"],
        "max_positions": config["max_position_embeddings"],
        "activation_fn": ACTIVATIONS[config.get("hidden_act", "gelu")],
        "layer_norm_eps": float(config["layer_norm_eps"]),
        "init_std": float(config["initializer_range"]),
        "dropout": float(config["hidden_dropout_prob"]),
        "attention_dropout": float(config["attention_probs_dropout_prob"]),
    }


def refuse_other_parts(encoder: EncoderConfig, path: Path) -> None:
    """Of the encoder's parts their classes have BERT's alone, and the activations of `ACTIVATIONS`.

    Raises:
        UserError: naming the options that none of their classes holds.
    """
    known = {
        "positions": ["learned"],
        "norm": ["layer"],
        "feed_forward": ["plain"],
        "activation_fn": list(ACTIVATIONS.values()),
    }
    other = [
        option
        for option in EncoderConfig.options(RECORDED)
        if option.metadata["choices"] and getattr(encoder, option.name) not in known[option.name]
    ]
    if other:
        found = [f"{flag(option)} {getattr(encoder, option.name)}" for option in other]
        held = [f"{flag(option)} {known[option.name][0]}" for option in other]
        raise UserError(
            f"{path}: no Hugging Face class that is known here holds an encoder with {', '.join(found)}: "
            f"use it through this project's hub interface, or pre-train with {', '.join(held)}"
        )


def config_of(
    encoder: EncoderConfig, family: Family, architecture: str, layers: int, vocabulary: int, tokenizer: Tokenizer
) -> dict[str, Any]:
    """config.json of an encoder that is exported: its lowest ``layers`` layers, ``vocabulary`` ids in the order of
    `id_order`.
    """
    theirs = {ours: name for name, ours in reversed(ACTIVATIONS.items())}
    specials = special_ids(tokenizer)
    return {
        "architectures": [architecture],
        "model_type": family.model_type,
        "vocab_size": vocabulary,
        "hidden_size": encoder.hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": encoder.heads,
        "intermediate_size": encoder.ffn,
        "hidden_act": theirs[encoder.activation_fn],
        "layer_norm_eps": encoder.layer_norm_eps,
        "initializer_range": encoder.init_std,
        "hidden_dropout_prob": encoder.dropout,
        "attention_probs_dropout_prob": encoder.attention_dropout,
        "max_position_embeddings": encoder.max_positions + first_position(family, specials["<pad>"]),
        "type_vocab_size": 2,
        "position_embedding_type": "absolute",
        "pad_token_id": specials["<pad>"],
        "bos_token_id": specials["<s>"],
        "eos_token_id": specials["</s>"],
        "torch_dtype": "float32",
    }
