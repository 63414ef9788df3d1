"""Held-out value of every objective of one or several checkpoints, with 95 % intervals, beside its baseline.

python scripts/evaluate.py runs/books runs/books-flat --data data/books

Samples are the same for every model of one vocabulary, whatever it was trained with (--view fixed). mlm_words are
bits a character for whole words, which compare models of different vocabularies too: give each its own data folder,
made from the same text.

"counts" is what counting the training text reaches (neighbouring pieces; pieces that two segments share): what a
model falls short of it, the text would still give.
"""

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hmtl_plugin.checkpoints import find_checkpoint, load_checkpoint
from hmtl_plugin.data.manifest import file_sha256
from hmtl_plugin.evaluation.held_out import FIXED, TRAINING, Estimate, evaluate
from hmtl_plugin.files.shape import whole
from hmtl_plugin.models.mix import in_words
from hmtl_plugin.objectives.measure import find_metric
from hmtl_plugin.precision import AUTOCAST
from hmtl_plugin.reporting.text_table import text_table
from hmtl_plugin.results import append_results, read_results
from hmtl_plugin.user_dir import add_option


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="checkpoint files or folders")
    parser.add_argument("--data", required=True, type=Path, help="folder of binarised data")
    parser.add_argument("--split", default="valid", help="NAME.bin and NAME.idx of the data (default: %(default)s)")
    parser.add_argument(
        "--samples", type=_positive, default=2000, help="samples of each validation view (default: %(default)s)"
    )
    parser.add_argument(
        "--view",
        choices=(FIXED, TRAINING),
        default=FIXED,
        help="fixed: samples of 64 tokens, 15 %% of the pieces masked, whatever training did; training: those of "
        "fairseq-train's validation (default: %(default)s)",
    )
    parser.add_argument("--max-tokens", type=_positive, default=8192, help="tokens of a batch (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: %(default)s)")
    parser.add_argument(
        "--autocast",
        choices=AUTOCAST,
        default="none",
        help="auto: bf16 where the device computes in it (default: %(default)s)",
    )
    parser.add_argument("--results", type=Path, help="append the values to this results.jsonl")
    add_option(parser)
    arguments = parser.parse_args()

    done = read_results(arguments.results) if arguments.results else []
    rows: list[list[str]] = []
    mixes: list[str] = []
    for run in arguments.runs:
        estimates = _estimates(run, arguments, done)
        rows += [[str(run), *_columns(estimate)] for estimate in estimates]
        mixes += [
            f"{run}: {estimate.target} reads a mix of {in_words({int(k): v for k, v in estimate.shares.items()})}"
            for estimate in estimates
            if estimate.shares
        ]
    header = [
        "run",
        "objective",
        "metric",
        "held out",
        "95 % interval",
        "baseline",
        "counts",
        "beats counts",
        "samples",
    ]
    print(text_table(header, rows))
    if mixes:
        print(
            "",
            *mixes,
            "NAME@3 is the value with layer 3 alone: weights of normalised states are no importance",
            sep="\n",
        )


def _positive(text: str) -> int:
    if not (number := whole(text)):
        raise argparse.ArgumentTypeError(f"{text}: give a whole number from 1")
    return number


def _estimates(run: str, arguments: argparse.Namespace, done: list[dict[str, Any]]) -> list[Estimate]:
    """Values of one run; taken from the results store if the same checkpoint was evaluated on the same data before."""
    started = time.perf_counter()
    file = find_checkpoint(run)
    data = (arguments.data / f"{arguments.split}.bin").resolve()
    question = {
        "kind": "pretrain",
        "checkpoint_sha256": file_sha256(file),
        "split": arguments.split,
        "hyper": {
            "data_sha256": file_sha256(data) if data.is_file() else None,
            "samples": arguments.samples,
            "autocast": arguments.autocast,
            "view": arguments.view,
        },
    }
    known = [result for result in done if _answers(result, question)]
    if known:
        return [Estimate.of_record(result["metrics"]) for result in known]
    checkpoint = load_checkpoint(file)
    hierarchy = checkpoint.hierarchy
    estimates = evaluate(
        checkpoint,
        arguments.data,
        arguments.split,
        arguments.samples,
        arguments.max_tokens,
        arguments.autocast,
        arguments.device,
        arguments.view,
    )
    if arguments.results:
        shared = {
            **question,
            "run": str(run),
            "checkpoint": str(checkpoint.path),
            "hierarchy": str(hierarchy),
            "transfer": hierarchy.transfer,
            "seed": checkpoint.config["common"]["seed"],
            "updates": checkpoint.updates,
            "seconds": round(time.perf_counter() - started, 2),
        }
        append_results(arguments.results, [{**shared, "task": e.target, "metrics": asdict(e)} for e in estimates])
    return estimates


def _answers(result: dict[str, Any], question: dict[str, Any]) -> bool:
    """Whether a stored result is of this question. Without a view it is of training's; without counts it is too old."""
    if any(result.get(key) != value for key, value in question.items() if key != "hyper"):
        return False
    counted = not {"counts", "bigrams"}.isdisjoint(result["metrics"])
    whole_line = {"target", "low", "high", "samples"} <= result["metrics"].keys()
    return counted and whole_line and {"view": TRAINING, **result.get("hyper", {})} == question["hyper"]


def _columns(estimate: Estimate) -> list[str]:
    metric = find_metric(estimate.metric)
    digits, baseline = metric.digits, metric.baseline
    if estimate.sizes is not None:
        baseline += f"; sizes {estimate.sizes:.{digits}f}"
    return [
        estimate.target,
        metric.unit,
        f"{estimate.value:.{digits}f}",
        f"{estimate.low:.{digits}f} to {estimate.high:.{digits}f}",
        f"{estimate.baseline:.{digits}f} ({baseline})",
        "-" if estimate.counts is None else f"{estimate.counts:.{digits}f}",
        "-" if estimate.beats_counts is None else "yes" if estimate.beats_counts else "no",
        str(estimate.samples),
    ]
