"""The part of the command line that fine-tuning on GLUE and on SQuAD have in common."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from hmtl_plugin.errors import UserError
from hmtl_plugin.finetuning.experiment import Settings, update_frequency
from hmtl_plugin.finetuning.grid import OPTIONS, Cell, parse_grid, parse_seeds
from hmtl_plugin.finetuning.pretrained import PretrainedCheckpoint
from hmtl_plugin.parallel import cpu_count
from hmtl_plugin.precision import AUTOCAST
from hmtl_plugin.user_dir import add_option

GRID_NAMES = tuple(OPTIONS)
_EPILOG = """
A grid names options and their values; every combination is trained with every seed, and the cell with the best median
score on the validation set is chosen: --grid lr=1e-4,3e-4 batch-size=16,32 epochs=3
Names: {names}.

Options of fairseq-train that are not listed here are passed on. The same command again trains what is not finished.
"""


def parser(description: str | None, names: tuple[str, ...]) -> argparse.ArgumentParser:
    """A parser with the shared options; ``names`` are those of a grid."""
    p = argparse.ArgumentParser(
        description=description,
        epilog=_EPILOG.format(names=", ".join(names)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # an option meant for fairseq-train must not be taken for one of these
    )
    p.add_argument("run", help="pre-training checkpoint: a file, or a folder that a run saved into")
    p.add_argument("--grid", nargs="+", default=[], metavar="NAME=VALUES", help="hyperparameters, see below")
    p.add_argument("--seeds", default="1", metavar="N,N", help="a training for each (default: 1)")
    p.add_argument("--tokens-per-sample", type=int, metavar="N", help="longest sequence")
    p.add_argument("--resize-positions", action="store_true", help="allow longer sequences than pre-training had")
    p.add_argument("--autocast", choices=AUTOCAST, default="auto", help="precision of forward passes (default: auto)")
    p.add_argument("--processes", type=int, default=1, metavar="N", help="share each batch among N processes")
    p.add_argument("--out", type=Path, metavar="DIR", help="where runs go (default: beside the checkpoint)")
    p.add_argument("--results", type=Path, metavar="FILE", help="store of results (default: results.jsonl beside it)")
    p.add_argument("--variant", metavar="NAME", help="name of the pre-training in tables (default: its folder's)")
    p.add_argument("--keep-models", action="store_true", help="keep the weights of every run, not the best alone")
    p.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read (default: one a processor)")
    p.add_argument("--overwrite", action="store_true", help="prepare the data again")
    add_option(p)
    return p


def settings(args: argparse.Namespace, extra: list[str]) -> Settings:
    """What the options mean; raises `UserError` for those that cannot be."""
    if extra and not extra[0].startswith("-"):
        raise UserError(f"'{extra[0]}' is no option: options of fairseq-train begin with --")
    for name, least in (("workers", 0), ("tokens_per_sample", 1)):
        if getattr(args, name) is not None and getattr(args, name) < least:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: give 1 or more")
    if args.processes < 1:
        raise UserError(f"--processes {args.processes}: give 1 or more")
    update_frequency(extra)
    start = PretrainedCheckpoint.find(args.run)
    return Settings(
        start=start,
        run=str(args.run),
        results=args.results or folder_of(start) / "results.jsonl",
        variant=args.variant or folder_of(start).resolve().name,
        seeds=parse_seeds(args.seeds),
        processes=args.processes,
        autocast=args.autocast,
        options=tuple(extra),
        keep_models=args.keep_models,
    )


def folder_of(start: PretrainedCheckpoint) -> Path:
    """Where everything of a checkpoint goes by default."""
    return start.path.parent


def cells(args: argparse.Namespace, defaults: Mapping[str, str], names: tuple[str, ...]) -> list[Cell]:
    """The grid's combinations."""
    return parse_grid(args.grid, defaults, names)


def workers(args: argparse.Namespace) -> int:
    """Processes that read and encode."""
    return int(args.workers) or cpu_count()
