"""Whether all that makes a step fast leaves it the same: packed, compiled and in bfloat16 against padded fp32, before anything is timed.

    python benchmarks/same_step.py [--device cuda] [--compiled] [--json FILE]

A small model with three objectives and a transfer. First the gradient of one step on the same samples, without dropout: its distance
from the one of padded fp32, in percent of that one's length; what bfloat16 rounds away is about one percent. Then the loss on those samples after some updates with dropout.
"""

import argparse
import tempfile
import traceback
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from record import Recorder, Row
from synthetic import make_dictionary, write_corpus
from systems import FairseqTraining
from train_pairs import HIERARCHY, PLUGIN

from hmtl_plugin.errors import UserError, run_cli

VOCABULARY, SENTENCES, SAMPLES = 1001, 5000, 64  # no multiple of 64
REFERENCE = "padded, fp32"
VARIANTS: dict[str, tuple[str, ...]] = {
    REFERENCE: (),
    "padded, bf16": ("--autocast", "bf16"),
    "packed, fp32": ("--pack",),
    "packed, bf16": ("--pack", "--autocast", "bf16"),
}
COMPILED: dict[str, tuple[str, ...]] = {
    REFERENCE: (),
    "padded, bf16, compiled": ("--autocast", "bf16", "--compile"),
    "packed, bf16, compiled": ("--pack", "--autocast", "bf16", "--compile"),
}


def training(data: Path, device: str, options: tuple[str, ...], dropout: float) -> FairseqTraining:
    """The plugin on a model of two layers of width 128, its data loaded."""
    made = FairseqTraining(
        [
            *(str(data), "--user-dir", PLUGIN, "--task", "hmtl_pretraining", "--criterion", "hmtl"),
            *("--arch", "hmtl_bert_tiny", *HIERARCHY, "--max-tokens", "4096", "--tokens-per-sample", "128"),
            *("--dropout", str(dropout), "--attention-dropout", str(dropout), "--optimizer", "hmtl_adamw"),
            *("--lr", "1e-3", "--lr-scheduler", "fixed", "--clip-norm", "1.0", "--num-workers", "0", "--no-save"),
            *(*options, *(["--cpu"] if device == "cpu" else [])),
        ]
    )
    next(made.updates)
    return made


def gradient(trained: FairseqTraining) -> tuple[float, torch.Tensor]:
    """Loss a token and its whole gradient on the first samples of the data set."""
    trainer, task = trained.trainer, trained.task
    sample, _ = trainer._prepare_sample(task.dataset("train").collater(list(range(SAMPLES))))
    trainer.zero_grad()
    loss, tokens, _ = task.train_step(sample, trainer.model, trainer.criterion, trainer.optimizer, 0)
    gradients = [p.grad.float().flatten() for p in trainer.model.parameters() if p.grad is not None]
    return loss.item() / tokens, (torch.cat(gradients) / tokens).cpu()


def measure(recorder: Recorder, data: Path, args: argparse.Namespace) -> dict[str, str]:
    """The rows; which variants failed, and why."""
    device: Literal["cpu", "gpu"] = "gpu" if args.device == "cuda" else "cpu"
    reference: torch.Tensor | None = None
    losses: dict[str, float] = {}
    failed: dict[str, str] = {}
    for name, options in (COMPILED if args.compiled else VARIANTS).items():
        try:
            _, found = gradient(training(data, args.device, options, dropout=0.0))
            losses[name] = loss_after(training(data, args.device, options, dropout=0.1), args.updates)
        except Exception as error:
            traceback.print_exc()
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            continue
        if name == REFERENCE:
            reference = found
        elif reference is not None:
            percent = 100 * float((found - reference).norm() / reference.norm())
            what = f"gradient of a step, {name}: distance from {REFERENCE}"
            recorder.add(Row(what, "%", [percent], better="lower", device=device))
            what = f"loss after {args.updates} updates with dropout, {name}"
            peer = [losses[REFERENCE]]
            recorder.add(Row(what, "nats", [losses[name]], "lower", peer, REFERENCE, device))
    return failed


def loss_after(trained: FairseqTraining, updates: int) -> float:
    """Loss a token on the same samples once so many updates are done."""
    for _ in range(updates):
        trained()
    return gradient(trained)[0]


def main() -> None:
    """Measure and print one line a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compiled", action="store_true", help="the compiled ones, which take minutes")
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Recorder("same_step", args.json) as recorder:
        dictionary = make_dictionary(VOCABULARY)
        dictionary.save(f"{folder}/dict.txt")
        write_corpus(Path(folder), len(dictionary), SENTENCES, np.random.default_rng(0))
        if failed := measure(recorder, Path(folder), args):
            raise UserError("; ".join(f"{name}: {why}" for name, why in failed.items()))


if __name__ == "__main__":
    run_cli(main)
