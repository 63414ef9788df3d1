"""Where the time of an update goes in fairseq's trainer: the model, and everything beside it.

    python benchmarks/trainer_parts.py [--size base] [--device cuda] [--json FILE]

Batches are as small as they can be (one sample), so that what is counted is the trainer and not the model. The peer is
the same training with fairseq's own statistics, which derive every metric at every update. On a GPU these are times of
the host, which waits for the device only where the trainer makes it.
"""

import logging
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from fairseq.logging import metrics
from fairseq.trainer import Trainer
from record import Recorder, Row, command_line
from synthetic import write_data
from systems import VOCABULARY, FairseqTraining, three_objectives
from turns import interleaved

from hmtl_plugin.commands.run import run_cli

OPTIONS = (
    "--batch-size 1 --required-batch-size-multiple 1 --tokens-per-sample 32 --lr 1e-4 --lr-scheduler fixed "
    "--num-workers 0"
)
SENTENCES = 20_000
WARM_UP = 3  # updates


class Parts:
    """Seconds by part and update of one training."""

    def __init__(self, training: FairseqTraining) -> None:
        self.training, self.seconds = training, defaultdict[str, float](float)
        trainer, task = training.trainer, training.task
        for owner, name, part in (
            (task, "train_step", "forward and backward"),
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
        metrics.reset()  # of the other: fairseq has one set of meters a process
        self.seconds.clear()
        if self.training.trainer.cuda:
            torch.cuda.synchronize()  # what the other training has left to do is not ours
        begin = time.perf_counter()
        self.training()
        whole = time.perf_counter() - begin
        return {**self.seconds, "rest": whole - sum(self.seconds.values())}


def main() -> None:
    """Measure and print one line a row."""
    parser = command_line(__doc__, device=True)
    parser.add_argument("--size", default="base")
    parser.add_argument("--updates", type=int, default=30)
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # fairseq's and hydra's
    with tempfile.TemporaryDirectory() as folder, Recorder("trainer_parts", args.json) as recorder:
        write_data(Path(folder), VOCABULARY, SENTENCES)
        arguments = three_objectives(Path(folder), args.size, args.device, OPTIONS)
        ours, peer = FairseqTraining(arguments), FairseqTraining(arguments)
        peer.trainer._reduce_and_log_stats = Trainer._reduce_and_log_stats.__get__(peer.trainer)
        found = interleaved({"ours": Parts(ours).update, "peer": Parts(peer).update}, args.updates, WARM_UP)
        for part in sorted(found["peer"][0], key=lambda part: -median(update[part] for update in found["peer"])):
            mine, theirs = ([update[part] for update in updates] for updates in found.values())
            what, peer_name = f"{args.size}: {part}", "with fairseq's statistics"
            recorder.add(Row(what, "s", mine, "lower", theirs, peer_name, args.device))


if __name__ == "__main__":
    run_cli(main)
