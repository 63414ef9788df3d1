"""Export a checkpoint in Hugging Face's layout: AutoModel and AutoTokenizer open it, without this project.

    python scripts/export_hf.py runs/my --out hf/my
    python scripts/export_hf.py runs/my/glue/RTE --out hf/my-rte

What Hugging Face's classes cannot hold (heads below the last layer, transfers, bigram shift) is named here and on the
model card.
"""

import argparse
from pathlib import Path

from hmtl_plugin import tasks  # noqa: F401
from hmtl_plugin.interop.exporting import export_hf
from hmtl_plugin.user_dir import add_option


def main() -> None:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("run", help="checkpoint file or run folder, of pre-training or fine-tuning")
    p.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new folder")
    p.add_argument("--encoder-only", action="store_true", help="leave heads out that could go along")
    add_option(p)
    args = p.parse_args()
    print(export_hf(args.run, args.out, args.encoder_only))
