"""Whether all that makes a step fast leaves it the same: packed, compiled, in bfloat16, on a GPU.

    python benchmarks/same_step.py [--device cuda] [--compiled] [--json FILE]

The plain step is padded fp32 on the CPU, with three objectives, a transfer and weights large enough for sharp attention.
For each variant

gradient   without dropout on the same samples: the distance from the plain step's, in percent of that one's length, of
           the matrix where it is largest. What bfloat16 rounds away is a percent or two; attention to what it may not
           see is twenty.
dropout    of attention: how far the mean of ones scatters when some of 128 are dropped, of what it must.
loss       on these samples after some updates with dropout: does it train?
"""

import argparse
import logging
import tempfile
from pathlib import Path

import torch
from own_process import reason
from record import Recorder, Row, command_line
from synthetic import write_data
from systems import FairseqTraining, three_objectives

from hmtl_plugin.commands.run import run_cli
from hmtl_plugin.errors import UserError
from hmtl_plugin.models.encoder import SelfAttention
from hmtl_plugin.models.sequences import Sequences

VOCABULARY, SENTENCES, SAMPLES = 1001, 5000, 64  # words: no multiple of 64
LENGTH, DROPPED = 128, 0.1
VARIANTS = {
    "padded, fp32": "",
    "packed, fp32": "--pack",
    "padded, bf16": "--autocast bf16",
    "packed, bf16": "--pack --autocast bf16",
}
COMPILED = {
    "padded, bf16, compiled": "--autocast bf16 --compile",
    "packed, bf16, compiled": "--pack --autocast bf16 --compile",
}


def training(data: Path, device: str, options: str, dropout: float) -> FairseqTraining:
    """The plugin on a model of two layers of width 128, its data loaded."""
    more = (
        f"--max-tokens 4096 --tokens-per-sample {LENGTH} --dropout {dropout} --attention-dropout {dropout} "
        f"--init-std 0.1 --lr 1e-3 --lr-scheduler fixed --num-workers 0 {options}"
    )
    made = FairseqTraining(three_objectives(data, "tiny", device, more))
    next(made.updates)
    return made


def gradient(trained: FairseqTraining) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss a token, and its gradient by parameter, on the first samples of the data set."""
    trainer, task = trained.trainer, trained.task
    sample, _ = trainer._prepare_sample(task.dataset("train").collater(list(range(SAMPLES))))
    trainer.zero_grad()
    loss, tokens, _ = task.train_step(sample, trainer.model, trainer.criterion, trainer.optimizer, 0)
    gradients = {n: p.grad.float().cpu() / tokens for n, p in trainer.model.named_parameters() if p.grad is not None}
    return loss.item() / tokens, gradients


def farthest(found: dict[str, torch.Tensor], plain: dict[str, torch.Tensor]) -> tuple[float, str]:
    """The largest distance in percent of a matrix's gradient from the plain one, and whose it is. Vectors' gradients are
    sums that cancel: what bfloat16 rounds is no small share of them.
    """
    return max((100 * float((found[n] - plain[n]).norm() / plain[n].norm()), n) for n in plain if plain[n].ndim > 1)


def scatter(device: str, packed: bool, bf16: bool) -> float:
    """Standard deviation of averages of `LENGTH` ones of which some are dropped, of the one expected."""
    attention = SelfAttention(128, 2, DROPPED).to(device)
    for parameter in attention.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        attention.qkv.bias[256:] = 1.0
    ids = torch.full((64, LENGTH), 5, device=device)
    starts = torch.arange(65, dtype=torch.int32, device=device) * LENGTH
    sequences = Sequences.packed(ids.flatten(), starts, LENGTH) if packed else Sequences(ids, False)
    states = torch.zeros((*sequences.tokens.shape, 128), device=device)
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=bf16):
        context = attention.context(states, sequences.mask(), sequences.packing).float()
    averages = context.reshape(-1, 2, 64)[..., 0]  # of a head, all values of a token share their dropout
    return float(averages.std()) / (DROPPED / (1 - DROPPED) / LENGTH) ** 0.5


def measure(recorder: Recorder, data: Path, args: argparse.Namespace) -> dict[str, str]:
    """The rows; which variants failed, and why."""
    _, plain = gradient(training(data, "cpu", "", dropout=0.0))
    trains = loss_after(training(data, "cpu", "", DROPPED), args.updates)
    failed: dict[str, str] = {}
    for name, options in (COMPILED if args.compiled else VARIANTS).items():
        try:
            _, found = gradient(training(data, args.device, options, dropout=0.0))
            percent, matrix = farthest(found, plain)
            what, details = f"gradient of a step, {name}: distance from the plain one", {"matrix": matrix}
            recorder.add(Row(what, "%", [percent], better="lower", device=args.device, details=details))
            if not args.compiled:
                what, scattered = f"dropout of attention, {name}: its scatter", ("packed" in name, "bf16" in name)
                recorder.add(Row(what, "x", [scatter(args.device, *scattered)], device=args.device))
            loss = loss_after(training(data, args.device, options, DROPPED), args.updates)
            what = f"loss after {args.updates} updates with dropout, {name}"
            recorder.add(Row(what, "nats", [loss], "lower", [trains], "the plain step", args.device))
        except Exception as error:
            failed[name] = reason(error)
    return failed


def loss_after(trained: FairseqTraining, updates: int) -> float:
    """Loss a token on the same samples once so many updates are done."""
    for _ in range(updates):
        trained()
    return gradient(trained)[0]


def main() -> None:
    """Measure and print one line a row."""
    parser = command_line(__doc__, device=True)
    parser.add_argument("--compiled", action="store_true", help="the compiled variants instead, which take minutes")
    parser.add_argument("--updates", type=int, default=20)
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # fairseq's and hydra's
    with tempfile.TemporaryDirectory() as folder, Recorder("same_step", args.json) as recorder:
        write_data(Path(folder), VOCABULARY, SENTENCES)
        failed = measure(recorder, Path(folder), args)
    if failed:
        raise UserError("; ".join(f"{name}: {why}" for name, why in failed.items()))


if __name__ == "__main__":
    run_cli(main)
