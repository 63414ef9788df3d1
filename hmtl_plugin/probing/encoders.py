"""What is probed: anything that turns sentences into one vector a layer. Checkpoints, their untrained twins, functions."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from hmtl_plugin.checkpoints import LoadedCheckpoint, load_checkpoint
from hmtl_plugin.data.manifest import file_sha256
from hmtl_plugin.data.tokenizer import Tokenizer
from hmtl_plugin.errors import UserError
from hmtl_plugin.models.encoder import PAD, Encoder
from hmtl_plugin.models.pooling import POOLINGS, pool
from hmtl_plugin.precision import autocast

BOS, EOS = 0, 2
_BATCH_TOKENS = 4096
Features = dict[str, npt.NDArray[np.float32]]
"""Pooling -> (N, L+1, H), layer 0 the embeddings."""
GivenFeatures = Callable[[list[str]], Any]
"""Sentences to (N, L+1, H), as an array or tensor, or to a mapping from names of poolings to such."""


@dataclass(frozen=True)
class About:
    """What a result line says of an encoder.

    Attributes:
        name: unique among the encoders of a report.
        kind: ``checkpoint``, ``untrained`` or ``given``.
        fingerprint: sha256 of all that its features depend on.
        hierarchy, transfer: of pre-training; "" where unknown.
        placements: objective and layer.
    """

    name: str
    kind: str
    fingerprint: str
    source: str = ""
    run: str = ""
    checkpoint_sha256: str = ""
    hierarchy: str = ""
    transfer: str = ""
    placements: tuple[tuple[str, int], ...] = ()


class LayerEncoder(Protocol):
    """Sentences to features of all layers."""

    about: About
    poolings: tuple[str, ...] | None  # None: only its answer tells
    keep: bool  # whether its features are of use to another run

    def __call__(self, sentences: list[str]) -> Features:
        """Features of at most some thousand sentences."""
        ...

    def row_bytes(self) -> int:
        """Bytes of the features of one sentence, all poolings."""
        ...


class TransformerEncoder:
    """An encoder of this project with its tokenizer: every layer in one pass, pooled as it goes.

    Args:
        precision: ``none`` (fp32), ``bf16`` or ``auto``.
    """

    def __init__(
        self, about: About, encoder: Encoder, tokenizer: Tokenizer, poolings: Sequence[str], precision: str, device: str
    ) -> None:
        self.about = about
        self.encoder, self.tokenizer = encoder.to(device).eval(), tokenizer
        self.poolings: tuple[str, ...] | None = tuple(poolings)
        self.precision, self.device, self.keep = precision, device, True
        self.truncated = 0

    def row_bytes(self) -> int:
        config = self.encoder.config
        return 4 * len(self.poolings or ()) * (config.layers + 1) * config.hidden

    @torch.inference_mode()
    def __call__(self, sentences: list[str]) -> Features:
        config = self.encoder.config
        shape = (len(sentences), config.layers + 1, config.hidden)
        features = {pooling: np.empty(shape, dtype=np.float32) for pooling in self.poolings or ()}
        ids, length_N = self._tokenise(sentences)
        order = np.argsort(length_N, kind="stable")
        begin_N = np.cumsum(length_N) - length_N
        for rows in _batches(order, length_N):
            tokens_BT = torch.from_numpy(_padded(ids, begin_N[rows], length_N[rows])).to(self.device)
            padded = bool(length_N[rows[0]] != length_N[rows[-1]])
            with autocast(self.precision, self.device.split(":")[0]):
                states = self.encoder(tokens_BT, range(config.layers + 1), padded)
            for pooling in features:
                for layer, hidden_BTH in states.items():
                    features[pooling][rows, layer] = pool(hidden_BTH.float(), tokens_BT, pooling).cpu().numpy()
        return features

    def _tokenise(self, sentences: list[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """All ids, ``<s> sentence </s>`` after one another, cut to the position table, and the lengths."""
        pieces, length_N = self.tokenizer.encode_flat(sentences)
        longest = self.encoder.config.max_positions - 2
        self.truncated += int((length_N > longest).sum())
        begin_N = np.cumsum(length_N) - length_N
        within = np.arange(len(pieces)) - np.repeat(begin_N, length_N)
        kept = within < longest
        length_N = np.minimum(length_N, longest) + 2
        ids = np.full(int(length_N.sum()), EOS, dtype=np.int64)
        begin_N = np.cumsum(length_N) - length_N
        ids[begin_N] = BOS
        ids[(np.repeat(begin_N, length_N - 2) + 1) + within[kept]] = pieces[kept]
        return ids, length_N


def _batches(order: npt.NDArray[np.int64], length_N: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Rows in order of length, at most `_BATCH_TOKENS` a batch; a batch mixes lengths only where one is too rare to fill it."""
    batches, start = [], 0
    while start < len(order):
        shortest = int(length_N[order[start]])
        stop = min(len(order), start + max(1, _BATCH_TOKENS // shortest))
        # one more token of width costs as much as a mask saves
        stop = start + int(
            np.searchsorted(length_N[order[start:stop]], shortest + max(1, shortest // 16), side="right")
        )
        batches.append(order[start:stop])
        start = stop
    return batches


def _padded(
    ids: npt.NDArray[np.int64], begin_B: npt.NDArray[np.int64], length_B: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    column_T = np.arange(int(length_B.max()))
    inside_BT = column_T < length_B[:, None]
    return np.where(inside_BT, ids[np.minimum(begin_B[:, None] + column_T, len(ids) - 1)], PAD)


class GivenEncoder:
    """A function from Python. Without a fingerprint its features are not kept for another run."""

    def __init__(self, name: str, function: GivenFeatures, fingerprint: str = "") -> None:
        unique = fingerprint or f"{name}:{id(function)}:{np.random.default_rng().integers(2**62)}"
        self.about = About(name, "given", hashlib.sha256(unique.encode()).hexdigest(), source="a function")
        self.function = function
        self.poolings: tuple[str, ...] | None = None
        self.keep = bool(fingerprint)
        self._row_bytes = 0

    def row_bytes(self) -> int:
        if not self._row_bytes:
            self._row_bytes = sum(value.nbytes for value in self(["a", "b"]).values()) // 2
        return self._row_bytes

    def __call__(self, sentences: list[str]) -> Features:
        given = self.function(sentences)
        by_pooling: Mapping[str, Any] = given if isinstance(given, Mapping) else {"given": given}
        features = {name: _float32(value) for name, value in by_pooling.items()}
        for name, value in features.items():
            if value.ndim != 3 or len(value) != len(sentences):
                raise UserError(
                    f"the encoder '{self.about.name}' gave '{name}' of shape {value.shape} for {len(sentences)} sentences: "
                    "return (sentences, layers, width)"
                )
        return features


def _float32(value: Any) -> npt.NDArray[np.float32]:
    if isinstance(value, torch.Tensor):
        value = value.detach().float().cpu().numpy()
    return np.ascontiguousarray(value, dtype=np.float32)


def checkpoint_encoder(
    path: Path | str, poolings: Sequence[str] = ("mean",), precision: str = "none", device: str = "cpu", name: str = ""
) -> TransformerEncoder:
    """The encoder of a checkpoint, pre-trained or fine-tuned.

    Raises:
        UserError: no checkpoint, or none with a tokenizer.
    """
    loaded = load_checkpoint(path)
    sha256 = file_sha256(loaded.path)
    placements, hierarchy, transfer = _hierarchy(loaded)
    about = About(
        name or str(path).rstrip("/"),
        "checkpoint",
        _fingerprint("checkpoint", sha256, _tokenizer(loaded).sha256, precision),
        source=str(loaded.path),
        run=str(path),
        checkpoint_sha256=sha256,
        hierarchy=hierarchy,
        transfer=transfer,
        placements=placements,
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
    """An encoder of a checkpoint's shape and tokenizer with the weights that training would begin with under ``seed``."""
    loaded = load_checkpoint(path)
    config = loaded.model.config
    about = About(
        name,
        "untrained",
        _fingerprint("untrained", repr(config), str(seed), _tokenizer(loaded).sha256, precision),
        source=f"shape and tokenizer of {loaded.path}",
        run=str(path),
    )
    return TransformerEncoder(about, Encoder(config, seed), _tokenizer(loaded), _checked(poolings), precision, device)


def shape_of(encoder: TransformerEncoder) -> str:
    """Encoders of one shape and tokenizer share their untrained twin."""
    return _fingerprint(repr(encoder.encoder.config), encoder.tokenizer.sha256)


def _hierarchy(loaded: LoadedCheckpoint) -> tuple[tuple[tuple[str, int], ...], str, str]:
    if loaded.head:
        return (), "", ""
    hierarchy = loaded.hierarchy
    layers = hierarchy.layers(loaded.model.config.layers)
    return tuple(sorted(layers.items(), key=lambda item: item[1])), str(hierarchy), hierarchy.transfer


def _tokenizer(loaded: LoadedCheckpoint) -> Tokenizer:
    if loaded.tokenizer is None:
        raise UserError(
            f"{loaded.path}: no tokenizer inside or beside it: copy the data folder's sentencepiece.bpe.model there"
        )
    return loaded.tokenizer


def _checked(poolings: Sequence[str]) -> Sequence[str]:
    for pooling in poolings:
        if pooling not in POOLINGS:
            raise UserError(f"pooling '{pooling}': use one of {', '.join(POOLINGS)}")
    return poolings


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
