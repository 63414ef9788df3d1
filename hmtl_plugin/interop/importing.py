"""Hugging Face's folder of a BERT to a checkpoint of this project: encoder, pooler, masked-LM and next-sentence head,
vocabulary.

OUT/model.pt            as a run of fairseq-train leaves it, nothing of a trainer in it
OUT/dict.txt, tokenizer.json, import.json
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary
from omegaconf import OmegaConf

from hmtl_plugin.checkpoints import build_model
from hmtl_plugin.data.manifest import file_sha256
from hmtl_plugin.errors import UserError
from hmtl_plugin.files.shape import read_object
from hmtl_plugin.interop.bert_config import CONFIG, model_options, read_config
from hmtl_plugin.interop.names import BERT, Weights, to_ours
from hmtl_plugin.interop.output import refuse_existing, write_folder
from hmtl_plugin.interop.weights import check_weights, read_weights
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertConfig
from hmtl_plugin.tasks import PRETRAINING
from hmtl_plugin.tasks.pretraining import task_config
from hmtl_plugin.tokenizers.base import FILE_NAMES, VOCABULARY, Tokenizer
from hmtl_plugin.tokenizers.loading import find_tokenizer, load_tokenizer
from hmtl_plugin.tokenizers.vocabulary_state import vocabulary_state
from hmtl_plugin.tokenizers.wordpiece import FILLER, WordPieceTokenizer

HIERARCHY = "nsp@-1,mlm@-1"  # what BERT was trained with
MODEL, REPORT = "model.pt", "import.json"
_NO_OPTIMIZER = {
    "num_updates": 0,
    "optimizer_name": "HmtlAdamW",
    "lr_scheduler_state": {"best": None},
}  # as fairseq wants it
_PART_NAMES = (("pooler", BERT.pooler), ("NSP head", BERT.nsp), ("MLM head", BERT.mlm))


@dataclass(frozen=True)
class Imported:
    """What was imported.

    Attributes:
        fresh: parts that the folder lacks; their weights are as initialised.
        left_out: weights of the folder that have no place here (fine-tuning heads).
        fillers: rows of the embedding that no piece of the vocabulary has; they are kept, and no text reaches them.
        white_space: pieces that no text reaches either, and that the dictionary cannot hold; an export has them again.
        added: tokens that were added to the tokenizer beside its vocabulary; here they are plain text.
        followed: what counted where files of the tokenizer contradict each other.
    """

    out: Path
    vocabulary: int
    layers: int
    hidden: int
    fresh: list[str]
    left_out: list[str]
    untied: bool
    fillers: int
    added: list[str]
    white_space: list[str]
    followed: Sequence[str]

    def __str__(self) -> str:
        lines = [
            f"{self.out}: {self.layers} layers of width {self.hidden}, {self.vocabulary:,} pieces, hierarchy {HIERARCHY}"
        ]
        if self.fresh:
            lines.append(f"not in the folder, as initialised: {', '.join(self.fresh)}")
        if self.left_out:
            lines.append(f"left out, heads of fine-tuning: {', '.join(self.left_out)}")
        if self.fillers:
            lines.append(f"rows of the embedding without a piece, kept and never used: {self.fillers}")
        if self.white_space:
            lines.append(
                f"pieces of white space, fillers in dict.txt, never used: {', '.join(map(ascii, self.white_space))}"
            )
        lines += [f"tokenizer: followed {what}" for what in self.followed]
        if self.added:
            lines.append(f"tokens that were added to the tokenizer, plain text here: {', '.join(self.added)}")
        if self.untied:
            lines.append("its MLM head has an output matrix of its own: continue with --untied-output")
        return "\n".join(lines)


def import_bert(folder: Path, out: Path) -> Imported:
    """Import a folder into ``out``, which must not be there; it appears whole or not at all.

    Raises:
        UserError: naming what cannot be: another architecture, weights missing or unknown, a vocabulary that does not
            fit, a pickle that is not plain weights.
    """
    refuse_existing(out)
    config = read_config(folder)
    tokenizer = _tokenizer(folder)
    weights = read_weights(folder)
    parts, left_out = check_weights(weights, config, folder)
    symbols, their_id_V = _vocabulary(tokenizer, config["vocab_size"], folder)
    untied = BERT.mlm in parts and BERT.decoder in parts and not _tied(weights)
    if not untied:
        parts = [part for part in parts if part is not BERT.decoder]
    full = _configuration(config, untied)
    dictionary = _dictionary(symbols)
    state = _state(full, dictionary, tokenizer, to_ours(BERT, weights, config["num_hidden_layers"], parts, their_id_V))
    imported = Imported(
        out,
        len(symbols),
        config["num_hidden_layers"],
        config["hidden_size"],
        [name for name, part in _PART_NAMES if part not in parts],
        sorted({name.split(".")[0] for name in left_out}),
        untied,
        len(symbols) - len(tokenizer),
        tokenizer.added,
        tokenizer.fillers,
        tokenizer.followed,
    )
    _write(out, state, dictionary, tokenizer, _report(folder, imported))
    return imported


def _tied(weights: Weights) -> bool:
    (decoder,) = BERT.decoder.values()
    return torch.equal(weights[decoder], weights["bert.embeddings.word_embeddings.weight"])


def _tokenizer(folder: Path) -> WordPieceTokenizer:
    path = find_tokenizer(folder)
    if path is None:
        raise UserError(f"{folder}: holds no {FILE_NAMES[1]} or {VOCABULARY}: fetch the model's tokenizer too")
    tokenizer = load_tokenizer(path)
    if not isinstance(tokenizer, WordPieceTokenizer):
        raise UserError(f"{path}: is no WordPiece tokenizer, which a BERT has")
    tokenizer.dictionary_text()  # refuses what dict.txt cannot hold
    return tokenizer


def _vocabulary(tokenizer: WordPieceTokenizer, rows: int, folder: Path) -> tuple[list[str], list[int]]:
    """Symbols of the dictionary, and for each of our ids theirs. Rows beyond the vocabulary are kept, as fillers."""
    if len(tokenizer) > rows:
        raise UserError(
            f"{folder}: its vocabulary has {len(tokenizer):,} pieces, its embedding {rows:,} rows: they are not of one model"
        )
    fillers = [FILLER.format(len(tokenizer.fillers) + number) for number in range(rows - len(tokenizer))]
    their_id = {piece: number for number, piece in enumerate(tokenizer.pieces)}
    their_id |= {filler: len(tokenizer) + number for number, filler in enumerate(fillers)}
    symbols = [*tokenizer.symbols, *fillers]
    return symbols, [their_id[symbol] for symbol in symbols]


def _dictionary(symbols: list[str]) -> Dictionary:
    dictionary = Dictionary()
    for symbol in symbols[dictionary.nspecial :]:
        dictionary.add_symbol(symbol)
    return dictionary


def _configuration(config: dict[str, Any], untied: bool) -> dict[str, Any]:
    """Of a run that might have trained it."""
    model = OmegaConf.to_container(OmegaConf.structured(HierarchicalBertConfig), enum_to_str=True)
    task = OmegaConf.to_container(OmegaConf.structured(task_config()), enum_to_str=True)
    assert isinstance(model, dict) and isinstance(task, dict)
    model |= {
        **model_options(config),
        "hierarchy": HIERARCHY,
        "transfer": "",
        "untied_output": untied,
        "_name": "hmtl_bert",
    }
    task |= {"_name": PRETRAINING, "data": "", "tokens_per_sample": model["max_positions"], "seed": 1}
    return {"_name": None, "common": {"seed": 1}, "model": model, "task": task}


def _state(config: dict[str, Any], dictionary: Dictionary, tokenizer: Tokenizer, weights: Weights) -> dict[str, Any]:
    """The checkpoint's content; parts that ``weights`` lacks are as initialised."""
    torch.manual_seed(1)
    model, _ = build_model(config, dictionary)
    own = model.state_dict()
    unknown = [name for name in weights if name not in own or own[name].shape != weights[name].shape]
    assert not unknown, unknown
    return {
        "cfg": config,
        "model": {**own, **weights},
        "task_state": vocabulary_state(dictionary, tokenizer),
        "optimizer_history": [_NO_OPTIMIZER],
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "finetuning": {},
    }


def _report(folder: Path, imported: Imported) -> dict[str, Any]:
    """Where it comes from."""
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix in (".json", ".txt", ".bin", ".safetensors")
    ]
    return {
        "source": folder.name,
        "sha256": {path.name: file_sha256(path) for path in files},
        "architectures": read_object(folder / CONFIG).get("architectures"),
        "fresh": imported.fresh,
        "left_out": imported.left_out,
        "added_tokens": imported.added,
        "followed": list(imported.followed),
    }


def _write(
    out: Path, state: dict[str, Any], dictionary: Dictionary, tokenizer: Tokenizer, report: dict[str, Any]
) -> None:
    def fill(part: Path) -> None:
        torch.save(state, part / MODEL)
        dictionary.save(str(part / "dict.txt"))
        (part / tokenizer.file_name).write_bytes(tokenizer.to_bytes())
        (part / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

    write_folder(out, fill)
