"""One table: which of our weights is which of Hugging Face's ``BertForPreTraining``; both ways are read off it.

Two things are no renaming: our queries, keys and values are rows of one matrix, and the rows of everything that belongs to the
vocabulary stand in another order (our dictionary begins with fairseq's specials).
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

Weights = dict[str, Tensor]

_EMBEDDINGS = {
    "embeddings.token.weight": "embeddings.word_embeddings.weight",
    "embeddings.position.weight": "embeddings.position_embeddings.weight",
    "embeddings.segment.weight": "embeddings.token_type_embeddings.weight",
    "embeddings.norm.weight": "embeddings.LayerNorm.weight",
    "embeddings.norm.bias": "embeddings.LayerNorm.bias",
}
_LAYER = {
    "attention.out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "ffn_norm": "output.LayerNorm",
}
_QKV = tuple(f"attention.self.{name}" for name in ("query", "key", "value"))
_PARAMETERS = ("weight", "bias")
_TOKEN = "encoder.embeddings.token.weight"

POOLER = {f"heads.nsp.dense.{p}": f"bert.pooler.dense.{p}" for p in _PARAMETERS}
NSP = {f"heads.nsp.out.{p}": f"cls.seq_relationship.{p}" for p in _PARAMETERS}
MLM = {
    **{f"heads.mlm.dense.{p}": f"cls.predictions.transform.dense.{p}" for p in _PARAMETERS},
    **{f"heads.mlm.layer_norm.{p}": f"cls.predictions.transform.LayerNorm.{p}" for p in _PARAMETERS},
    "heads.mlm.bias": "cls.predictions.bias",
}
DECODER = {"heads.mlm.decoder.weight": "cls.predictions.decoder.weight"}  # where it is not the input embedding
_BY_ID = {_TOKEN, "heads.mlm.bias", *DECODER}  # a row an id
_NSP_ROWS = [1, 0]  # theirs: 0 it follows, 1 it is random; ours the other way


def encoder_names(layers: int) -> dict[str, str]:
    """Ours to theirs for the encoder, but for queries, keys and values."""
    names = {f"encoder.{ours}": f"bert.{theirs}" for ours, theirs in _EMBEDDINGS.items()}
    for layer in range(layers):
        for ours, theirs in _LAYER.items():
            for p in _PARAMETERS:
                names[f"encoder.layers.{layer}.{ours}.{p}"] = f"bert.encoder.layer.{layer}.{theirs}.{p}"
    return names


def qkv_names(layers: int) -> dict[str, list[str]]:
    """Our fused matrix or bias to their three, in the order of its rows."""
    return {
        f"encoder.layers.{layer}.attention.qkv.{p}": [f"bert.encoder.layer.{layer}.{name}.{p}" for name in _QKV]
        for layer in range(layers)
        for p in _PARAMETERS
    }


def to_ours(theirs: Weights, layers: int, parts: Iterable[dict[str, str]], their_id_V: Sequence[int]) -> Weights:
    """Our weights from theirs.

    Args:
        parts: of `POOLER`, `NSP`, `MLM`, `DECODER`, those there are.
        their_id_V: for each of our ids, theirs.
    """
    names = encoder_names(layers)
    for part in parts:
        names |= part
    order = torch.tensor(their_id_V)
    found = {}
    for ours, name in names.items():
        value = theirs[name].float()
        if ours in _BY_ID:
            value = value[order]
        found[ours] = (value[_NSP_ROWS] if ours in NSP else value).clone()
    for ours, three in qkv_names(layers).items():
        found[ours] = torch.cat([theirs[name].float() for name in three])
    return found


def to_theirs(ours: Weights, layers: int, parts: Iterable[dict[str, str]], our_id_V: Sequence[int]) -> Weights:
    """Their weights from ours; ``our_id_V``: for each of their ids, ours."""
    names = encoder_names(layers)
    for part in parts:
        names |= part
    order = torch.tensor(our_id_V)
    found = {}
    for name, theirs in names.items():
        value = ours[name].float()
        if name in _BY_ID:
            value = value[order]
        found[theirs] = (value[_NSP_ROWS] if name in NSP else value).contiguous()
    for name, three in qkv_names(layers).items():
        for theirs, rows in zip(three, ours[name].float().chunk(3), strict=True):
            found[theirs] = rows.contiguous()
    return found
