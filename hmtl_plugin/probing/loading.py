"""Checkpoints as encoders to probe, and their untrained twins."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hmtl_plugin.checkpoints import LoadedCheckpoint, load_checkpoint
from hmtl_plugin.data.manifest import file_sha256
from hmtl_plugin.errors import UserError
from hmtl_plugin.models.config import EncoderConfig
from hmtl_plugin.models.encoder import Encoder
from hmtl_plugin.models.mix import shares_of
from hmtl_plugin.models.pooling import POOLINGS, find_pooling
from hmtl_plugin.precision import check_device, resolved
from hmtl_plugin.probing.encoders import About, TransformerEncoder, fingerprint
from hmtl_plugin.tokenizers.base import Tokenizer


def checkpoint_encoder(
    path: Path | str, poolings: Sequence[str] = ("mean",), precision: str = "none", device: str = "cpu", name: str = ""
) -> TransformerEncoder:
    """The encoder of a checkpoint, pre-trained or fine-tuned.

    Raises:
        UserError: no checkpoint, or none with a tokenizer.
    """
    loaded = load_checkpoint(path)
    precision, sha256 = _precision(precision, device), file_sha256(loaded.path)
    placements, hierarchy, transfer = _hierarchy(loaded)
    about = About(
        name or str(path).rstrip("/"),
        "checkpoint",
        fingerprint("checkpoint", sha256, _tokenizer(loaded).sha256, _computed_in(precision, device)),
        source=str(loaded.path),
        run=str(path),
        checkpoint_sha256=sha256,
        hierarchy=hierarchy,
        transfer=transfer,
        placements=placements,
        mixes=shares_of(loaded.model.mixes),
    )
    return TransformerEncoder(about, loaded.model.encoder, _tokenizer(loaded), _checked(poolings), precision, device)


def untrained_encoder(
    path: Path | str,
    seed: int,
    poolings: Sequence[str] = ("mean",),
    precision: str = "none",
    device: str = "cpu",
    name: str = "untrained",
) -> TransformerEncoder:
    """An encoder of a checkpoint's shape and tokenizer with random weights, drawn under ``seed`` as for training.

    All of them: with ``--zero-init-outputs`` training begins with zeros in each layer's last matrices, so that all
        layers
    would be copies of the embeddings, and no control.
    """
    loaded = load_checkpoint(path)
    config, precision = replace(loaded.model.config, zero_init_outputs=False), _precision(precision, device)
    about = About(
        name,
        "untrained",
        fingerprint("untrained", _shape(config), str(seed), _tokenizer(loaded).sha256, _computed_in(precision, device)),
        source=f"shape and tokenizer of {loaded.path}",
        run=str(path),
    )
    return TransformerEncoder(about, Encoder(config, seed), _tokenizer(loaded), _checked(poolings), precision, device)


def shape_of(encoder: TransformerEncoder) -> str:
    """Encoders of one shape and tokenizer share their untrained twin."""
    return fingerprint(_shape(encoder.encoder.config), encoder.tokenizer.sha256)


def _shape(config: EncoderConfig) -> str:
    """All that features depend on but the weights: no dropout, no memory savings, not where weights began."""
    plain = replace(config, dropout=0, attention_dropout=0, activation_dropout=0, checkpoint_activations=False)
    return repr(replace(plain, zero_init_outputs=False))


def _precision(choice: str, device: str) -> str:
    """As `resolved`; `UserError` for a device that is not there."""
    check_device(device)
    return resolved(choice, device.split(":")[0])


def _computed_in(precision: str, device: str) -> str:
    """Low precision differs between devices beyond rounding of the last digits."""
    return precision if precision == "none" else f"{precision} {device.split(':')[0]}"


def _hierarchy(loaded: LoadedCheckpoint) -> tuple[tuple[tuple[str, int], ...], str, str]:
    if loaded.head:
        return (), "", ""
    hierarchy = loaded.hierarchy
    layers = hierarchy.layers(loaded.model.config.layers)
    return tuple(sorted(layers.items(), key=lambda item: item[1])), str(hierarchy), hierarchy.transfer


def _tokenizer(loaded: LoadedCheckpoint) -> Tokenizer:
    if loaded.tokenizer is None:
        raise UserError(
            f"{loaded.path}: no tokenizer inside or beside it: copy the data folder's (sentencepiece.bpe.model or tokenizer.json) there"
        )
    return loaded.tokenizer


def _checked(poolings: Sequence[str]) -> Sequence[str]:
    if not poolings:
        raise UserError(f"no pooling: use some of {', '.join(POOLINGS)}")
    return list(dict.fromkeys(map(find_pooling, poolings)))
