"""The model card of an exported checkpoint: what it was trained with, on what, and what it does not hold."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from hmtl_plugin.checkpoints import LoadedCheckpoint
from hmtl_plugin.data.manifest import file_sha256, read_manifest
from hmtl_plugin.errors import UserError
from hmtl_plugin.interop.provenance import RESULTS, Provenance, find_provenance
from hmtl_plugin.models.mix import in_words, shares_of
from hmtl_plugin.results import read_results

CARD = "README.md"


def model_card(loaded: LoadedCheckpoint, architecture: str, layers: int, left_out: Sequence[str]) -> str:
    """Markdown with the metadata that Hugging Face's hub reads.

    Args:
        architecture: the class of Hugging Face's that holds it.
        layers: that are exported.
        left_out: what is not, and why.
    """
    config = loaded.config
    dictionary = hashlib.sha256("\n".join(loaded.dictionary.symbols).encode()).hexdigest()
    origin = find_provenance(loaded)
    hierarchy, transfer = origin.hierarchy, origin.transfer
    if not loaded.head:
        hierarchy, transfer = str(loaded.hierarchy), loaded.hierarchy.transfer
    trained = [
        f"Fine-tuned on {loaded.head}." if loaded.head else "",
        f"Hierarchy of pre-training: `{hierarchy}`." if hierarchy else "",
        f"Transfer: `{transfer}`." if transfer else "",
    ]
    parts = [
        "---\nlibrary_name: transformers\ntags: [bert, hmtl_plugin]\n---",
        f"# {loaded.path.parent.name}",
        f"`{architecture}`, {layers} layers of width {loaded.model.config.hidden}, exported from a checkpoint "
        "of hmtl_plugin (fairseq).",
        " ".join(filter(None, trained)) + f" Updates: {loaded.updates:,}.",
        f"Checkpoint sha256 `{file_sha256(loaded.path)}`, dictionary sha256 `{dictionary}`{_data(config['task'].get('data') or '')}.",
    ]
    if origin.checkpoint:
        parts.append(
            f"Began with checkpoint sha256 `{origin.checkpoint}`; data and its options sha256 `{origin.data}`; "
            f"{', '.join(f'{name} {value}' for name, value in origin.cell.items())}, seed {origin.seed}."
        )
    parts += [
        f"`{name}` reads a learnt mix of {in_words(shares)}: weights of normalised states, which are no importance."
        for name, shares in shares_of(loaded.model.mixes).items()
    ]
    if left_out:
        parts += ["## Not in this export", "\n".join(f"* {what}" for what in left_out)]
    if architecture.startswith("RobertaPreLayerNorm"):
        parts.append(
            "The encoder normalises before each block, which Hugging Face has under the name of RoBERTa-PreLayerNorm. For pairs, pass "
            "the `token_type_ids` that the tokenizer gives. `hidden_states` below the last are not normalised."
        )
    elif architecture in ("BertModel", "BertForMaskedLM"):
        parts.append("There is no pooler here: `pooler_output` of `AutoModel` comes from random weights.")
    metrics = _metrics(loaded, origin)
    return "\n\n".join([*parts, *(["## Metrics", metrics] if metrics else [])]) + "\n"


def _data(folders: str) -> str:
    """Name and fingerprint of the data (of each shard), where they are still at their place."""
    named = [_one_folder(folder) for folder in folders.split(os.pathsep) if folder]
    return f", trained on data {', '.join(named)}" if named else ""


def _one_folder(folder: str) -> str:
    try:
        manifest = read_manifest(Path(folder))
    except UserError:
        manifest = None
    digest = (manifest or {}).get("data_sha256", {})
    train = f" (sha256 `{digest['train']}`)" if isinstance(digest, dict) and "train" in digest else ""
    return f"`{Path(folder).name}`{train}"


def _metrics(loaded: LoadedCheckpoint, origin: Provenance) -> str:
    """A fine-tuned checkpoint's own; else results of this very checkpoint that stand in the store beside it."""
    found = [(loaded.head, name, value, "valid") for name, value in origin.metrics.items()]
    own = "" if loaded.head else file_sha256(loaded.path)
    for line in read_results(loaded.path.parent / RESULTS) if own else []:
        if line.get("checkpoint_sha256") == own and line.get("kind") in ("pretrain", "glue", "squad"):
            metrics = line["metrics"]
            name, value = metrics.get("metric", "score"), metrics.get("value", metrics.get("score"))
            found.append((line["task"], name, value, line.get("split", "")))
    rows = [
        f"| {task} | {name} | {value:.3f} | {split} |"
        for task, name, value, split in found
        if isinstance(value, int | float)
    ]
    return "\n".join(["| task | metric | value | split |", "| --- | --- | ---: | --- |", *rows]) if rows else ""
