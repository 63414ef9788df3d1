"""The model card of an exported checkpoint: what it was trained with, on what, and what it does not hold."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from hmtl_plugin.checkpoints import LoadedCheckpoint
from hmtl_plugin.data.manifest import file_sha256, read_manifest
from hmtl_plugin.errors import UserError
from hmtl_plugin.reporting.results import read_results

if TYPE_CHECKING:
    from hmtl_plugin.interop.exporting import Exported

CARD, RESULTS = "README.md", "results.jsonl"


def model_card(loaded: LoadedCheckpoint, exported: "Exported") -> str:
    """Markdown with the metadata that Hugging Face's hub reads."""
    config = loaded.config
    dictionary = hashlib.sha256("\n".join(loaded.dictionary.symbols).encode()).hexdigest()
    if loaded.head:
        trained = [f"Fine-tuned on {loaded.head}."]
    else:
        hierarchy = loaded.hierarchy
        trained = [
            f"Hierarchy of pre-training: `{hierarchy}`.",
            f"Transfer: `{hierarchy.transfer}`." if hierarchy.transfer else "",
        ]
    parts = [
        "---\nlibrary_name: transformers\ntags: [bert, hmtl_plugin]\n---",
        f"# {loaded.path.parent.name}",
        f"`{exported.architecture}`, {exported.layers} layers of width {loaded.model.config.hidden}, exported from a checkpoint "
        "of hmtl_plugin (fairseq).",
        " ".join(filter(None, trained)) + f" Updates: {loaded.updates:,}.",
        f"Checkpoint sha256 `{file_sha256(loaded.path)}`, dictionary sha256 `{dictionary}`{_data(config['task'].get('data') or '')}.",
    ]
    if exported.left_out:
        parts += ["## Not in this export", "\n".join(f"* {what}" for what in exported.left_out)]
    if exported.architecture.startswith("RobertaPreLayerNorm"):
        parts.append(
            "The encoder normalises before each block, which Hugging Face has under the name of RoBERTa-PreLayerNorm. For pairs, pass "
            "the `token_type_ids` that the tokenizer gives. `hidden_states` below the last are not normalised."
        )
    metrics = _metrics(loaded)
    return "\n\n".join([*parts, *(["## Metrics", metrics] if metrics else [])]) + "\n"


def _data(folder: str) -> str:
    """Name and fingerprint of the data, where they are still at their place."""
    if not folder:
        return ""
    try:
        manifest = read_manifest(Path(folder))
    except UserError:
        manifest = None
    digest = (manifest or {}).get("data_sha256", {})
    train = f", sha256 `{digest['train']}`" if isinstance(digest, dict) and "train" in digest else ""
    return f", trained on data `{Path(folder).name}`{train}"


def _metrics(loaded: LoadedCheckpoint) -> str:
    """Results of this very checkpoint that stand in the store beside it."""
    own = file_sha256(loaded.path)
    rows = []
    for line in read_results(loaded.path.parent / RESULTS):
        if line.get("checkpoint_sha256") == own and line.get("kind") in ("pretrain", "glue", "squad"):
            metrics = line["metrics"]
            value = metrics.get("value", metrics.get("score"))
            rows.append(
                f"| {line['task']} | {metrics.get('metric', 'score')} | {value:.3f} | {line.get('split', '')} |"
            )
    return "\n".join(["| task | metric | value | split |", "| --- | --- | ---: | --- |", *rows]) if rows else ""
