"""A checkpoint to a folder in Hugging Face's layout, which ``AutoModel.from_pretrained`` opens. Needs no transformers.

OUT/config.json, model.safetensors, README.md (the model card), and the tokenizer, see `tokenizer_files`

The encoder always goes along. Heads do where Hugging Face's classes compute the same; what they cannot is named, in the
summary and on the card. States above the highest layer that was trained are not exported: they mean nothing.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hmtl_plugin.checkpoints import LoadedCheckpoint, load_checkpoint
from hmtl_plugin.errors import UserError
from hmtl_plugin.glue.tasks import TASKS
from hmtl_plugin.interop.bert_config import CONFIG, config_of, refuse_other_parts
from hmtl_plugin.interop.card import CARD, model_card
from hmtl_plugin.interop.names import BERT, PRE_NORM, Family, Names, Weights, first_position, to_theirs
from hmtl_plugin.interop.output import refuse_existing, write_folder
from hmtl_plugin.interop.tokenizer_files import id_order, special_ids, tokenizer_files
from hmtl_plugin.models.finetuned_heads import SentenceHead

MODEL = "model.safetensors"
_CLASSES: Mapping[str, Mapping[str, str]] = {
    "bert": {
        "encoder": "BertModel",
        "mlm": "BertForMaskedLM",
        "nsp": "BertForNextSentencePrediction",
        "pretraining": "BertForPreTraining",
        "sentence": "BertForSequenceClassification",
        "span": "BertForQuestionAnswering",
    },
    "roberta-prelayernorm": {
        "encoder": "RobertaPreLayerNormModel",
        "mlm": "RobertaPreLayerNormForMaskedLM",
        "sentence": "RobertaPreLayerNormForSequenceClassification",
        "span": "RobertaPreLayerNormForQuestionAnswering",
    },
}


@dataclass
class Plan:
    """What is exported of a checkpoint.

    Attributes:
        kind: of `_CLASSES`; parts: the heads that go along.
        layers: the encoder's, from below.
        left_out: what Hugging Face's classes cannot represent, and why.
        settings: more of config.json.
    """

    family: Family
    kind: str
    parts: list[Names]
    layers: int
    left_out: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """Their class."""
        return _CLASSES[self.family.model_type][self.kind]


@dataclass(frozen=True)
class Exported:
    """What was written."""

    out: Path
    architecture: str
    layers: int
    vocabulary: int
    left_out: list[str]

    def __str__(self) -> str:
        lines = [f"{self.out}: {self.architecture}, {self.layers} layers, {self.vocabulary:,} ids"]
        return "\n".join([*lines, *(f"not exported: {what}" for what in self.left_out)])


def export_hf(run: str | Path, out: Path, encoder_only: bool = False) -> Exported:
    """Export a checkpoint into ``out``, which must not be there; it appears whole or not at all.

    Raises:
        UserError: for a checkpoint without a tokenizer, a fine-tuned head that none of their classes has, or a folder
            that is there.
    """
    refuse_existing(out)
    loaded = load_checkpoint(run)
    if loaded.tokenizer is None:
        raise UserError(f"{loaded.path}: no tokenizer inside or beside it: copy the data folder's there")
    plan = make_plan(loaded, encoder_only)
    order = id_order(loaded.tokenizer, loaded.dictionary.symbols)
    first = first_position(plan.family, special_ids(loaded.tokenizer)["<pad>"])
    weights = to_theirs(plan.family, loaded.model.state_dict(), plan.layers, plan.parts, order, first)
    config = config_of(loaded.model.config, plan.family, plan.architecture, plan.layers, len(order), loaded.tokenizer)
    config |= plan.settings | {"tie_word_embeddings": plan.family.decoder not in plan.parts}
    exported = Exported(out, plan.architecture, plan.layers, len(order), plan.left_out)
    files = {
        CONFIG: json.dumps(config, indent=2) + "\n",
        CARD: model_card(loaded, plan.architecture, plan.layers, plan.left_out),
    }
    files |= tokenizer_files(
        loaded.tokenizer, loaded.dictionary.symbols, plan.family, loaded.model.config.max_positions
    )
    _write(out, weights, files)
    return exported


def make_plan(loaded: LoadedCheckpoint, encoder_only: bool = False) -> Plan:
    """Which of their classes serves a checkpoint, and what it cannot hold.

    Raises:
        UserError: if none holds its encoder.
    """
    refuse_other_parts(loaded.model.config, loaded.path)
    family = PRE_NORM if loaded.model.config.normalize_before else BERT
    if loaded.head:
        return _finetuned(loaded, family, encoder_only)
    placed = loaded.model.plan
    assert placed is not None
    plan = Plan(family, "encoder", [], placed.top)
    if placed.top < loaded.model.config.layers:
        plan.left_out.append(
            f"layers {placed.top + 1} to {loaded.model.config.layers}: no objective stands above layer {placed.top}, they were not trained"
        )
    served = {} if encoder_only else {name: _reason(loaded, name, family, placed.layers) for name in placed.order}
    kept = [name for name, reason in served.items() if not reason]
    if "mlm" in kept:
        plan.kind, plan.parts = "mlm", [family.mlm, *([family.decoder] if loaded.model.untied_output else [])]
    if "nsp" in kept:
        plan.kind = "pretraining" if "mlm" in kept else "nsp"
        plan.parts += [family.pooler, family.nsp]
    reasons = served or dict.fromkeys(placed.order, "only the encoder was asked for")
    plan.left_out += [f"the head of {name}: {reason}" for name, reason in reasons.items() if reason]
    return plan


def _reason(loaded: LoadedCheckpoint, name: str, family: Family, layers: Mapping[str, int]) -> str:
    """Why a head cannot go along; empty if it can."""
    placed = loaded.model.plan
    assert placed is not None
    if name not in ("mlm", "nsp"):
        return "Hugging Face has no such head"
    if name in placed.mixes:
        return "it reads a mix of layers, theirs read the last"
    if layers[name] != placed.top:
        return f"it reads layer {layers[name]}, theirs read the last"
    if placed.hierarchy.into(name):
        return f"it reads {', '.join(edge.source for edge in placed.hierarchy.into(name))} through a transfer"
    if name in loaded.model.poolings:
        return f"it pools by {loaded.model.sentence_pooling}, theirs read the first position"
    if name == "nsp" and not family.nsp:
        return f"{family.model_type} has none"
    if name == "mlm" and family is PRE_NORM and loaded.model.config.activation_fn != "gelu":
        return f"its activation is {loaded.model.config.activation_fn}, theirs is gelu"
    return ""


def _finetuned(loaded: LoadedCheckpoint, family: Family, encoder_only: bool) -> Plan:
    head, layer = loaded.model.task_head, loaded.model.task_layer
    plan = Plan(family, "encoder", [], layer)
    if layer < loaded.model.config.layers:
        plan.left_out.append(f"layers {layer + 1} to {loaded.model.config.layers}: the head reads layer {layer}")
    if encoder_only:
        plan.left_out.append(f"the head of {loaded.head}: only the encoder was asked for")
    elif isinstance(head, SentenceHead):
        if head.pooling != "cls":
            raise UserError(
                f"{loaded.path}: its head pools by {head.pooling} (--head-pooling), theirs read the first position: "
                "give --encoder-only"
            )
        plan.kind, plan.parts, plan.settings = "sentence", [family.sentence], _label_settings(loaded.head)
    else:
        plan.kind, plan.parts = "span", [family.span]
        threshold = loaded.finetuning.get("no_answer_threshold", math.inf)
        if math.isfinite(threshold):
            plan.left_out.append(
                f"the threshold of SQuAD 2.0, {threshold:.6g}: theirs have no place for it; a question has no answer where the "
                "logits of the first position exceed those of the best span by more"
            )
    return plan


def _label_settings(task: str) -> dict[str, Any]:
    """What config.json says of a GLUE task's labels."""
    labels = TASKS[task].labels
    names = {str(number): label for number, label in enumerate(labels or ("score",))}
    return {
        "id2label": names,
        "label2id": {label: int(number) for number, label in names.items()},
        "problem_type": "single_label_classification" if labels else "regression",
    }


def _write(out: Path, weights: Weights, files: Mapping[str, str]) -> None:
    try:
        from safetensors.torch import save_file
    except ImportError:
        raise UserError("exporting needs the package safetensors: pip install safetensors") from None

    def fill(part: Path) -> None:
        save_file(weights, part / MODEL, metadata={"format": "pt"})
        for name, text in files.items():
            (part / name).write_text(text, encoding="utf-8")

    write_folder(out, fill)
