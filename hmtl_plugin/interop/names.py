"""One table a family: which of our weights is which of Hugging Face's; both ways are read off it.

BERT itself is their ``bert``. Encoders that normalise before each block are their ``roberta-prelayernorm``, which
computes the same but for its masked-LM activation (always gelu), and begins its positions behind the padding's id.

Two things are no renaming: our queries, keys and values are rows of one matrix, and the rows of all that belongs to the
vocabulary may stand in another order (our dictionary begins with fairseq's specials).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Weights = dict[str, Tensor]
Names = Mapping[str, str]

PARAMETERS = ("weight", "bias")
TOKEN, POSITION = "encoder.embeddings.token.weight", "encoder.embeddings.position.weight"
_EMBEDDINGS = {
    "token.weight": "word_embeddings.weight",
    "position.weight": "position_embeddings.weight",
    "segment.weight": "token_type_embeddings.weight",
    "norm.weight": "LayerNorm.weight",
    "norm.bias": "LayerNorm.bias",
}
_QKV = tuple(f"attention.self.{name}" for name in ("query", "key", "value"))
_BY_ID = (TOKEN, "heads.mlm.bias", "heads.mlm.decoder.weight")  # a row an id
_NSP = "heads.nsp.out."
_NSP_ROWS = [1, 0]  # theirs: 0 it follows, 1 it is random; ours the other way


def _both(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.{p}": f"{theirs}.{p}" for p in PARAMETERS}


@dataclass(frozen=True)
class Family:
    """A kind of model of theirs.

    Attributes:
        model_type: in config.json; prefix: of the encoder's weights.
        layer: parts of a layer; last_norm: of the top layer's states, if there is one.
        pooler, nsp, mlm, decoder: heads of pre-training (decoder: an output matrix that is not the input embedding).
        sentence, span: heads of fine-tuning.
        skips_padding: their positions begin behind the padding's id, not at 0.
        decoder_bias: where the bias of an output matrix that is not the input embedding is stored, besides its usual
            name.
    """

    model_type: str
    prefix: str
    layer: Names
    last_norm: str
    pooler: Names
    nsp: Names
    mlm: Names
    decoder: Names
    sentence: Names
    span: Names
    skips_padding: bool = False
    decoder_bias: str = ""

    def encoder(self, layers: int) -> dict[str, str]:
        """Ours to theirs for the encoder, but for queries, keys and values."""
        names = {f"encoder.embeddings.{o}": f"{self.prefix}embeddings.{t}" for o, t in _EMBEDDINGS.items()}
        for number in range(layers):
            for ours, theirs in self.layer.items():
                names |= _both(f"encoder.layers.{number}.{ours}", f"{self.prefix}encoder.layer.{number}.{theirs}")
        if self.last_norm:
            names |= _both(f"encoder.output_norms.{layers - 1}", self.prefix + self.last_norm)
        return names

    def qkv(self, layers: int) -> dict[str, list[str]]:
        """Our fused matrix or bias to their three, in the order of its rows."""
        return {
            f"encoder.layers.{number}.attention.qkv.{p}": [
                f"{self.prefix}encoder.layer.{number}.{name}.{p}" for name in _QKV
            ]
            for number in range(layers)
            for p in PARAMETERS
        }


_MLM = {**_both("heads.mlm.dense", "cls.predictions.transform.dense"), "heads.mlm.bias": "cls.predictions.bias"}
BERT = Family(
    model_type="bert",
    prefix="bert.",
    layer={
        "attention.out": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "fc1": "intermediate.dense",
        "fc2": "output.dense",
        "ffn_norm": "output.LayerNorm",
    },
    last_norm="",
    pooler=_both("heads.nsp.dense", "bert.pooler.dense"),
    nsp=_both("heads.nsp.out", "cls.seq_relationship"),
    mlm={**_MLM, **_both("heads.mlm.layer_norm", "cls.predictions.transform.LayerNorm")},
    decoder={"heads.mlm.decoder.weight": "cls.predictions.decoder.weight"},
    sentence={**_both("task_head.dense", "bert.pooler.dense"), **_both("task_head.out", "classifier")},
    span=_both("task_head.out", "qa_outputs"),
    decoder_bias="cls.predictions.decoder.bias",
)
PRE_NORM = Family(
    model_type="roberta-prelayernorm",
    prefix="roberta_prelayernorm.",
    layer={
        "attention_norm": "attention.LayerNorm",
        "attention.out": "attention.output.dense",
        "ffn_norm": "intermediate.LayerNorm",
        "fc1": "intermediate.dense",
        "fc2": "output.dense",
    },
    last_norm="LayerNorm",
    pooler=_both("heads.nsp.dense", "roberta_prelayernorm.pooler.dense"),
    nsp={},
    mlm={
        **_both("heads.mlm.dense", "lm_head.dense"),
        **_both("heads.mlm.layer_norm", "lm_head.layer_norm"),
        "heads.mlm.bias": "lm_head.bias",
    },
    decoder={"heads.mlm.decoder.weight": "lm_head.decoder.weight"},
    sentence={**_both("task_head.dense", "classifier.dense"), **_both("task_head.out", "classifier.out_proj")},
    span=_both("task_head.out", "qa_outputs"),
    skips_padding=True,
    decoder_bias="lm_head.decoder.bias",
)


def to_ours(family: Family, theirs: Weights, layers: int, parts: Iterable[Names], their_id_V: Sequence[int]) -> Weights:
    """Our weights from theirs.

    Args:
        parts: of the family's heads, those there are.
        their_id_V: for each of our ids, theirs.
    """
    order, found = torch.tensor(their_id_V), {}
    for ours, name in _all(family, layers, parts).items():
        value = theirs[name].float()
        value = value[order] if ours in _BY_ID else value[_NSP_ROWS] if ours.startswith(_NSP) else value
        found[ours] = value.clone()
    for ours, three in family.qkv(layers).items():
        found[ours] = torch.cat([theirs[name].float() for name in three])
    return found


def to_theirs(
    family: Family, ours: Weights, layers: int, parts: Sequence[Names], our_id_V: Sequence[int], first_position: int = 0
) -> Weights:
    """Their weights from ours.

    Args:
        our_id_V: for each of their ids, ours.
        first_position: row of their position table where ours begins.
    """
    order, found = torch.tensor(our_id_V), {}
    for name, theirs in _all(family, layers, parts).items():
        value = ours[name].float()
        value = value[order] if name in _BY_ID else value[_NSP_ROWS] if name.startswith(_NSP) else value
        if name == POSITION:
            value = torch.cat([value.new_zeros(first_position, value.shape[1]), value])
        found[theirs] = value.clone()
    for name, three in family.qkv(layers).items():
        for theirs, rows in zip(three, ours[name].float().chunk(3), strict=True):
            found[theirs] = rows.clone()
    if family.decoder in parts:
        found[family.decoder_bias] = found[family.mlm["heads.mlm.bias"]].clone()
    return found


def first_position(family: Family, pad: int) -> int:
    """Row of their position table where ours begins; ``pad``: id of the padding in the export."""
    return pad + 1 if family.skips_padding else 0


def _all(family: Family, layers: int, parts: Iterable[Names]) -> dict[str, str]:
    names = family.encoder(layers)
    for part in parts:
        names |= part
    return names
