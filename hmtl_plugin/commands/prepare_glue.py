"""Binarise GLUE's official files with a checkpoint's own tokenizer, in the layout of fairseq's sentence_prediction.

    python scripts/prepare_glue.py runs/books RTE SST-2 --glue-dir glue --out data/glue

DIR holds a folder for each task (CoLA, SST-2, ...) with its files as they were published. What is prepared already
is kept. Tasks: CoLA SST-2 MRPC STS-B QQP MNLI QNLI RTE WNLI SNLI, or `all` of which there are files.
"""

import argparse
from pathlib import Path

from hmtl_plugin.checkpoints import load_vocabulary
from hmtl_plugin.errors import UserError
from hmtl_plugin.glue.prepare import PreparedTask, prepare_glue
from hmtl_plugin.glue.tasks import choose_tasks
from hmtl_plugin.parallel import cpu_count


def main() -> None:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("checkpoint", help="whose tokenizer and dictionary are used: a file or a folder")
    p.add_argument("tasks", nargs="+", metavar="TASK", help="tasks, or all")
    p.add_argument("--glue-dir", required=True, type=Path, metavar="DIR")
    p.add_argument("--out", required=True, type=Path, metavar="DIR", help="gets a folder for each task")
    p.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: one a processor)")
    p.add_argument("--overwrite", action="store_true", help="prepare again what is there")
    args = p.parse_args()
    if args.workers < 0:
        raise UserError(f"--workers {args.workers}: give 1 or more")
    tasks = choose_tasks(args.tasks, args.glue_dir)
    dictionary, tokenizer = load_vocabulary(args.checkpoint)
    workers = args.workers or cpu_count()
    for prepared in prepare_glue(tasks, args.glue_dir, args.out, dictionary, tokenizer, workers, args.overwrite):
        print(_line(prepared), flush=True)


def _line(prepared: PreparedTask) -> str:
    parts = []
    for split, counts in prepared.manifest["splits"].items():
        left_out = counts["broken_rows"] + counts["unlabelled_rows"]
        parts.append(f"{split} {counts['rows']:,}" + (f" ({left_out:,} left out)" if left_out else ""))
    return f"{prepared.folder}: {', '.join(parts)}{' (already prepared)' if prepared.known else ''}"
