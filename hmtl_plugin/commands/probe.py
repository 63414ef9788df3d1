"""Probe every layer of checkpoints on SentEval's tasks, or any in its layout: tables, plots, an HTML report.

python scripts/probe.py runs/books runs/books-flat --tasks senteval/data/probing --out reports/books
"""

import argparse
import importlib.util
from pathlib import Path

from hmtl_plugin.errors import UserError
from hmtl_plugin.finetuning.grid import parse_seeds
from hmtl_plugin.precision import AUTOCAST
from hmtl_plugin.probing import probe
from hmtl_plugin.probing.probes import PROBES
from hmtl_plugin.probing.results import ProbingResults
from hmtl_plugin.reporting.probing.table import probing_table
from hmtl_plugin.user_dir import add_option

_EPILOG = """
Work that is done is not done again: results stand in OUT/results.jsonl, features of all layers in OUT/features (delete them
when you like, or --drop-features). A task is a file of lines 'tr|va|te TAB label TAB sentence'.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("runs", nargs="+", metavar="RUN", help="checkpoint files or run folders")
    p.add_argument("--tasks", nargs="+", required=True, metavar="PLACE", help="task files, or folders of .txt files")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="results, plots, report.html")
    p.add_argument(
        "--pooling", default="mean,cls", metavar="A,B", help="mean, cls or first, max (default: %(default)s)"
    )
    p.add_argument("--probe", choices=PROBES, default="logistic", help="mlp: SentEval's grid; takes much longer")
    p.add_argument(
        "--seeds", default="1", metavar="N,N", help="of MLPs, control labels, untrained weights (default: 1)"
    )
    p.add_argument("--baseline", metavar="RUN", help="what differences are to (default: the last RUN, else untrained)")
    p.add_argument("--no-untrained", action="store_true", help="leave out the untrained encoder of the same shape")
    p.add_argument("--no-controls", action="store_true", help="leave out control tasks")
    p.add_argument("--no-plots", action="store_true", help="tables and results.json only; needs no matplotlib")
    p.add_argument("--autocast", choices=AUTOCAST, default="none", help="precision of features (default: fp32)")
    p.add_argument("--device", default="cpu")
    p.add_argument("--cache", type=Path, metavar="DIR", help="folder of features (default: OUT/features)")
    p.add_argument("--drop-features", action="store_true", help="delete a task's features when it is probed")
    add_option(p)
    return p


def main() -> None:
    args = parser().parse_args()
    if not args.no_plots and not importlib.util.find_spec("matplotlib"):
        raise UserError("plots need matplotlib: pip install matplotlib jinja2, or give --no-plots")
    study = probe(
        args.runs,
        args.tasks,
        args.out,
        poolings=args.pooling.split(","),
        probe=args.probe,
        seeds=parse_seeds(args.seeds),
        untrained=not args.no_untrained,
        controls=not args.no_controls,
        baseline=args.baseline,
        precision=args.autocast,
        device=args.device,
        cache=args.cache,
        keep_features=not args.drop_features,
    )
    print(probing_table(study))
    if not args.no_plots:
        _report(study, args.out)


def _report(study: ProbingResults, out: Path) -> None:
    from hmtl_plugin.reporting.probing.html import write_html
    from hmtl_plugin.reporting.probing.plots import write_plots

    plots = write_plots(study, out / "plots")
    write_html(study, out / "report.html")
    print(f"\n{out / 'report.html'}, {len(plots)} plots in {out / 'plots'}, {out / 'results.json'}")
