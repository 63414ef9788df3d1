"""Export a checkpoint's encoder, and a fine-tuned head, to ONNX with dynamic batch and length; checked in onnxruntime.

    python scripts/export_onnx.py runs/my --out my.onnx

Inputs are input_ids and attention_mask, as the tokenizer of scripts/export_hf.py gives them.
"""

import argparse
from pathlib import Path

from hmtl_plugin import tasks  # noqa: F401
from hmtl_plugin.interop.onnx import export_onnx
from hmtl_plugin.user_dir import add_option


def main() -> None:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("run", help="checkpoint file or run folder, of pre-training or fine-tuning")
    p.add_argument("--out", required=True, type=Path, metavar="FILE", help="a new file")
    p.add_argument("--all-layers", action="store_true", help="also the states of every layer, embeddings first")
    add_option(p)
    args = p.parse_args()
    print(export_onnx(args.run, args.out, args.all_layers))
