#!/usr/bin/env python3
"""Probe a Hugging Face encoder with the probes of scripts/probe.py, beside the same architecture with fresh weights.

    python recipes/probe_hugging_face.py path/to/model --tasks senteval/data/probing --out reports/model

Any model in any library is probed like this: a function from sentences to (sentences, layers, width). Needs
transformers.
"""

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hmtl_plugin.commands.run import run_cli, set_up_process

set_up_process(threads=True)

import torch  # noqa: E402
from transformers import AutoConfig, AutoModel, AutoTokenizer, set_seed  # noqa: E402

from hmtl_plugin.data.manifest import file_sha256  # noqa: E402
from hmtl_plugin.errors import UserError  # noqa: E402
from hmtl_plugin.precision import AUTOCAST, autocast  # noqa: E402
from hmtl_plugin.probing import GivenEncoder, probe  # noqa: E402
from hmtl_plugin.reporting.probing.html import write_html  # noqa: E402
from hmtl_plugin.reporting.probing.plots import write_plots  # noqa: E402
from hmtl_plugin.reporting.probing.table import probing_table  # noqa: E402

Features = dict[str, torch.Tensor]


def layer_features(model: Any, tokenizer: Any, precision: str) -> Callable[[list[str]], Features]:
    """The function that is probed: mean over tokens (specials left out) and the first token's state, at every layer."""
    # position tables that begin after the padding id (RoBERTa's) hold two positions less than they say
    longest = min(tokenizer.model_max_length, model.config.max_position_embeddings - 2)

    @torch.inference_mode()
    def features(sentences: list[str], batch_size: int = 64) -> Features:
        found: dict[str, list[torch.Tensor]] = {"mean": [], "cls": []}
        for start in range(0, len(sentences), batch_size):  # they come sorted by length
            batch = tokenizer(
                sentences[start : start + batch_size],
                padding=True,
                truncation=True,
                max_length=longest,
                return_special_tokens_mask=True,
                return_tensors="pt",
            )
            inside_BT1 = (batch.pop("special_tokens_mask") == 0)[..., None].float()
            count_B1 = inside_BT1.sum(1).clamp(min=1)
            with autocast(precision, "cpu"):
                states = model(**batch, output_hidden_states=True).hidden_states
            found["mean"].append(torch.stack([(h.float() * inside_BT1).sum(1) / count_B1 for h in states], 1))
            found["cls"].append(torch.stack([h[:, 0].float() for h in states], 1))
        return {pooling: torch.cat(parts) for pooling, parts in found.items()}

    return features


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", help="folder in Hugging Face's layout")
    p.add_argument("--tasks", nargs="+", required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--autocast", choices=AUTOCAST, default="none")
    args = p.parse_args()
    if not (Path(args.model) / "config.json").is_file():
        raise UserError(f"{args.model}: holds no config.json: give a folder that save_pretrained wrote")
    name, tokenizer = Path(args.model).name, AutoTokenizer.from_pretrained(args.model)
    trained = AutoModel.from_pretrained(args.model).eval()
    files = sorted(path for path in Path(args.model).iterdir() if path.is_file())
    content = hashlib.sha256("".join(file_sha256(path) for path in files).encode()).hexdigest()
    set_seed(1)
    fresh = AutoModel.from_config(AutoConfig.from_pretrained(args.model)).eval()
    encoders = {
        label: GivenEncoder(label, layer_features(model, tokenizer, args.autocast), f"{content} {args.autocast}")
        for label, model in ((name, trained), ("fresh weights", fresh))
    }
    study = probe(encoders, args.tasks, args.out, baseline="fresh weights", controls=False)
    print(probing_table(study))
    write_plots(study, args.out / "plots")
    write_html(study, args.out / "report.html")


if __name__ == "__main__":
    run_cli(main)
