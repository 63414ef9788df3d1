"""What is probed: anything that turns sentences into one vector a layer. Checkpoints, their untrained twins, functions."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

import numpy as np
import numpy.typing as npt
import torch

from hmtl_plugin.errors import UserError
from hmtl_plugin.models.encoder import Encoder
from hmtl_plugin.models.mix import Shares
from hmtl_plugin.models.pooling import pool
from hmtl_plugin.precision import autocast
from hmtl_plugin.special_tokens import BOS, EOS, PAD
from hmtl_plugin.tokenizers.base import Tokenizer

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
        placements: objective and layer, of one that reads a mix of layers the highest.
        mixes: objective that reads a mix -> the share of each layer.
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
    mixes: Mapping[str, Shares] = field(default_factory=dict)


class LayerEncoder(Protocol):
    """Sentences to features of all layers."""

    about: About
    poolings: tuple[str, ...]
    keep: bool  # whether its features are of use to another run
    truncated: int  # sentences that were cut so far

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
        self.poolings, self.precision, self.device, self.keep = tuple(poolings), precision, device, True
        self.truncated = 0

    def row_bytes(self) -> int:
        config = self.encoder.config
        return 4 * len(self.poolings) * (config.layers + 1) * config.hidden

    @torch.inference_mode()
    def __call__(self, sentences: list[str]) -> Features:
        config = self.encoder.config
        shape = (len(sentences), config.layers + 1, config.hidden)
        features = {pooling: np.empty(shape, dtype=np.float32) for pooling in self.poolings}
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
    """Rows in order of length, at most `_BATCH_TOKENS` a batch; a batch mixes lengths only where one is too rare to
    fill it.
    """
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
    """A function from Python. Without a version its features and results are of no use to another run.

    Args:
        name: in reports; the key of a mapping wins over it.
        version: anything that changes when the function's features do; results of the same name and version are kept.
    """

    def __init__(self, name: str, function: GivenFeatures, version: str = "") -> None:
        unique = version or f"{id(function)}:{np.random.default_rng().integers(2**62)}"
        self.about = About(name, "given", fingerprint("given", name, unique), source="a function")
        self.function, self.keep, self.truncated = function, bool(version), 0
        self.poolings: tuple[str, ...] = ()
        self._shape: tuple[int, ...] = ()

    def look(self, sentences: list[str]) -> None:
        """Learn from a few sentences which poolings there are, and of what shape."""
        found = self._ask(sentences)
        shapes = {value.shape[1:] for value in found.values()}
        if len(shapes) != 1 or not all(re.fullmatch(r"[\w.+-]+", name) for name in found):
            self._refuse(
                f"gave {', '.join(f'{name!r} {v.shape}' for name, v in found.items()) or 'nothing'}: give poolings of one shape, "
                "named by letters and digits"
            )
        self.poolings, self._shape = tuple(found), shapes.pop()

    def row_bytes(self) -> int:
        return 4 * len(self.poolings) * int(np.prod(self._shape))

    def __call__(self, sentences: list[str]) -> Features:
        found = self._ask(sentences)
        if tuple(found) != self.poolings or any(value.shape[1:] != self._shape for value in found.values()):
            self._refuse("gave other poolings or shapes than before: it must give the same for all sentences")
        return found

    def _ask(self, sentences: list[str]) -> Features:
        given = self.function(sentences)
        by_pooling: Mapping[str, Any] = given if isinstance(given, Mapping) else {"given": given}
        found = {str(name): _float32(value) for name, value in by_pooling.items()}
        for name, value in found.items():
            if value.ndim != 3 or len(value) != len(sentences):
                self._refuse(
                    f"gave '{name}' of shape {value.shape} for {len(sentences)} sentences: return (sentences, layers, width)"
                )
        return found

    def _refuse(self, what: str) -> NoReturn:
        raise UserError(f"the encoder '{self.about.name}' {what}")


def _float32(value: Any) -> npt.NDArray[np.float32]:
    if isinstance(value, torch.Tensor):
        value = value.detach().float().cpu().numpy()
    return np.ascontiguousarray(value, dtype=np.float32)


def fingerprint(*parts: str) -> str:
    """sha256 of some texts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
