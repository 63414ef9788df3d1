"""Reading the weights of a Hugging Face folder: safetensors, or a pickle that holds plain tensors and nothing else."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.shape import read_object
from hmtl_plugin.interop.names import BERT, Names, Weights

SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"
_INDEX = (f"{SAFETENSORS}.index.json", f"{PICKLE}.index.json")  # of weights in several files
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
_BUFFERS = ("embeddings.position_ids",)
_DECODER_BIAS = "cls.predictions.decoder.bias"  # where it is stored it is what the model adds
_FINETUNING_HEADS = ("classifier.", "qa_outputs.")
_LAYER = re.compile(r"bert\.encoder\.layer\.(\d+)\.")
_SHOWN = 3


def read_weights(folder: Path) -> Weights:
    """All weights of a folder, by the names of ``BertForPreTraining``.

    Raises:
        UserError: if there are none, or a file cannot be read without running code that is in it.
    """
    found: Weights = {}
    for path in _files(folder):
        found |= _safetensors(path) if path.suffix == ".safetensors" else _pickle(path)
    named: Weights = {}
    for name, value in found.items():
        for old, new in _OLD_NAMES.items():
            name = name.replace(old, new)
        bare = name.removeprefix("bert.")
        if bare not in _BUFFERS:
            ours = bare.startswith(("embeddings.", "encoder.", "pooler."))
            named[f"bert.{bare}" if ours else name] = value
    if _DECODER_BIAS in named:
        named["cls.predictions.bias"] = named.pop(_DECODER_BIAS)
    return named


def check_weights(weights: Weights, config: dict[str, Any], folder: Path) -> tuple[list[Names], list[str]]:
    """Which heads there are, and the names of fine-tuning's, which are left out.

    Raises:
        UserError: naming weights that are missing, unknown, or of another shape than config.json says.
    """
    held = {found[1] for name in weights if (found := _LAYER.match(name))}
    layers = min(config["num_hidden_layers"], len(held) + 1)  # one more than there are is enough to be refused
    encoder = [*BERT.encoder(layers).values(), *(name for three in BERT.qkv(layers).values() for name in three)]
    _refuse(folder, "lacks", [name for name in encoder if name not in weights])
    parts = [
        part
        for part in (BERT.pooler, BERT.nsp, BERT.mlm, BERT.decoder)
        if any(name in weights for name in part.values())
    ]
    _refuse(folder, "lacks", [name for part in parts for name in part.values() if name not in weights])
    known = {*encoder, *(name for part in parts for name in part.values())}
    heads = [name for name in weights if name.startswith(_FINETUNING_HEADS)]
    _refuse(folder, "holds weights that a BERT has not:", [n for n in weights if n not in known and n not in heads])
    for name in sorted(known & set(weights)):
        shape = _shape(name, config)
        if tuple(weights[name].shape) != shape:
            raise UserError(f"{folder}: {name} has shape {tuple(weights[name].shape)}, config.json says {shape}")
    return parts, heads


def _shape(name: str, config: dict[str, Any]) -> tuple[int, ...]:
    """What config.json says of a weight."""
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    for part, rows in (
        ("word_embeddings.weight", vocabulary),
        ("position_embeddings.weight", config["max_position_embeddings"]),
        ("token_type_embeddings.weight", 2),
        ("cls.predictions.decoder.weight", vocabulary),
        ("cls.seq_relationship.weight", 2),
        ("intermediate.dense.weight", inner),
    ):
        if name.endswith(part):
            return rows, hidden
    sizes = {"cls.predictions.bias": vocabulary, "cls.seq_relationship.bias": 2}
    if name.endswith("bias") or "LayerNorm" in name:
        return (inner if name.endswith("intermediate.dense.bias") else sizes.get(name, hidden),)
    feeds_back = name.endswith("output.dense.weight") and "attention" not in name
    return hidden, inner if feeds_back else hidden


def _refuse(folder: Path, what: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise UserError(
            f"{folder}: {what} {', '.join(names[:_SHOWN])}{more}: give a whole BERT, as save_pretrained wrote it"
        )


def _files(folder: Path) -> list[Path]:
    for index in _INDEX:
        if (folder / index).is_file():
            try:
                names = sorted(set(read_object(folder / index)["weight_map"].values()))
            except (KeyError, AttributeError, TypeError):
                raise UserError(f"{folder / index}: no index of weights: fetch it again") from None
            return [_inside(folder, name) for name in names]
    for name in (SAFETENSORS, PICKLE):
        if (folder / name).is_file():
            return [folder / name]
    raise UserError(f"{folder}: holds no {SAFETENSORS} or {PICKLE}: give a folder that save_pretrained wrote")


def _inside(folder: Path, name: Any) -> Path:
    if name not in [path.name for path in folder.iterdir() if path.is_file()]:
        raise UserError(f"{folder / str(name)}: is named in the index of weights and not there: fetch it too")
    return folder / str(name)


def _safetensors(path: Path) -> Weights:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise UserError(f"{path}: needs the package safetensors: pip install safetensors") from None
    try:
        return dict(load_file(path))
    except Exception as error:  # the library raises one of its own that is no other's child
        raise UserError(f"{path}: cannot be read ({error}): fetch it again") from None


def _pickle(path: Path) -> Weights:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # of bytes that are no pickle the reader raises whatever it stumbles over
        raise UserError(
            f"{path}: is not plain weights, and is not opened, since it could run code: use {SAFETENSORS}"
        ) from None
    return dict(_tensors(content, path))


def _tensors(content: Any, path: Path) -> Iterable[tuple[str, torch.Tensor]]:
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{path}: is not a table of tensors: give the weights of a model, not a training checkpoint")
    yield from content.items()
