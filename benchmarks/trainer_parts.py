"""Where the time of an update goes in fairseq's trainer: the model, and everything beside it.

    python benchmarks/trainer_parts.py [--size base] [--device cuda] [--json FILE]

Batches are as small as they can be (one sample), so that what is counted is the trainer and not the model. The peer is the same
training with fairseq's own statistics, which derive every metric at every update. On a GPU these are times of the host,
which waits for the device only where the trainer makes it.
"""

import argparse
import logging
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from fairseq.logging import metrics
from fairseq.trainer import Trainer
from record import Recorder, Row
from synthetic import make_dictionary, write_corpus
from systems import FairseqTraining
from train_pairs import HIERARCHY, PLUGIN, VOCABULARY

from hmtl_plugin.commands.run import run_cli

MODEL = "forward and backward"
SENTENCES = 20_000


def arguments(args: argparse.Namespace, data: Path) -> list[str]:
    """One sample a batch, three objectives."""
    return [
        *(str(data), "--user-dir", PLUGIN, "--task", "hmtl_pretraining", "--criterion", "hmtl"),
        *("--arch", f"hmtl_bert_{args.size}", *HIERARCHY, "--batch-size", "1", "--required-batch-size-multiple", "1"),
        *("--tokens-per-sample", "32", "--optimizer", "hmtl_adamw", "--lr", "1e-4", "--clip-norm", "1.0", "--no-save"),
        *("--lr-scheduler", "fixed", "--num-workers", "0", *(["--cpu"] if args.device == "cpu" else [])),
    ]


class Parts:
    """Seconds by part and update of one training."""

    def __init__(self, training: FairseqTraining) -> None:
        self.training, self.seconds = training, defaultdict[str, float](float)
        trainer, task = training.trainer, training.task
        for owner, name, part in (
            (task, "train_step", MODEL),
            (task, "optimizer_step", "optimizer"),
            (trainer, "clip_grad_norm", "gradient norm and clipping"),
            (trainer, "_reduce_and_log_stats", "statistics"),
            (trainer, "zero_grad", "clearing gradients"),
            (trainer.optimizer, "multiply_grads", "dividing gradients by the tokens"),
        ):
            setattr(owner, name, self._timed(getattr(owner, name), part))

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[part] += time.perf_counter() - begin

        return timed

    def update(self) -> dict[str, float]:
        """Seconds of one update by part; ``rest`` is loading and Python between the parts."""
        self.seconds.clear()
        if self.training.trainer.cuda:
            torch.cuda.synchronize()  # what the other training has left to do is not ours
        begin = time.perf_counter()
        self.training()
        whole = time.perf_counter() - begin
        return {**self.seconds, "rest": whole - sum(self.seconds.values())}


def measure(args: argparse.Namespace, data: Path) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Seconds by part of every update, ours and with fairseq's own statistics, in turns."""
    both = []
    for own in (True, False):
        training = FairseqTraining(arguments(args, data))
        if not own:
            training.trainer._reduce_and_log_stats = Trainer._reduce_and_log_stats.__get__(training.trainer)
        both.append(Parts(training))
    found: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    for number in range(args.updates + args.warm_up):
        for parts, updates in zip(both, found, strict=True):
            metrics.reset()  # of the other: fairseq has one set of meters a process
            updates.append(parts.update())
        if number < args.warm_up:
            for updates in found:
                updates.clear()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the record")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    dictionary = make_dictionary(VOCABULARY)
    with tempfile.TemporaryDirectory() as folder, Recorder("trainer_parts", args.json) as recorder:
        dictionary.save(f"{folder}/dict.txt")
        write_corpus(Path(folder), len(dictionary), SENTENCES, np.random.default_rng(0))
        ours, theirs = measure(args, Path(folder))
        for part in sorted(ours[0], key=lambda part: -median(update[part] for update in theirs)):
            recorder.add(
                Row(
                    f"{args.size}: {part}",
                    "s",
                    [update[part] for update in ours],
                    better="lower",
                    peer=[update[part] for update in theirs],
                    peer_name="with fairseq's statistics",
                    device="gpu" if args.device == "cuda" else "cpu",
                )
            )


if __name__ == "__main__":
    run_cli(main)
