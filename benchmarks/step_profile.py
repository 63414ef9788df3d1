"""Where the time of a training step goes, operator by operator, and how near its matrix products come to the machine's own limit.

    python benchmarks/step_profile.py [--sizes small,base] [--precisions fp32,bf16] [--json FILE]

The step is that of `train_step.py`, flat. Operators are summed by kind; shares are of the time in operators. The limit is a product of
2,048 x 2,048 matrices (on a GPU 8,192 x 8,192) in the same precision on as many threads, timed in turns with the step: what matrix products do not reach of
it, shapes and transposes cost; what is no matrix product bounds what could be won elsewhere.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from own_process import Step
from record import Recorder, Row
from train_step import BATCH, LENGTH, our_step

from hmtl_plugin.commands.run import run_cli
from hmtl_plugin.fairseq_hooks.host_memory import keep_freed_memory

KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "linear", "matmul"),
    "attention": ("_scaled_dot_product", "_flash_attention", "_efficient_attention", "_softmax"),
    "softmax over the vocabulary": ("_log_softmax", "nll_loss", "logsumexp", "argmax"),
    "copies between precisions and layouts": ("copy_", "_to_copy", "cat", "index", "index_select", "gather", "clone"),
    "clearing memory": ("fill_", "zero_"),
    "layer norm, GELU, dropout, sums": (
        "native_layer_norm",
        "native_dropout",
        "gelu",
        "mul",
        "add",
        "sum",
        "ge",
        "div",
        "random_",
        "where",
    ),
    "embedding's gradient": ("embedding_dense_backward",),
    "optimizer": ("_fused_adamw_", "_foreach"),
}
LIMIT = {"cpu": (2048, 1), "cuda": (8192, 10)}
"""Width of the product that is the limit, and how many are timed as one: enough that starting them does not count."""


def kind_of(operator: str) -> str:
    """Which of `KINDS` an operator's name belongs to; names that begin with another's count as that one's (``mul_``: ``mul``)."""
    name = operator.rpartition("::")[2]
    exact = next((kind for kind, names in KINDS.items() if name in names), None)
    begun = (kind for kind, names in KINDS.items() if any(name.startswith(own) for own in names if len(own) > 2))
    return exact or next(begun, "everything else")


def limit(bf16: bool, device: str) -> float:
    """Floating-point operations a second of large products."""
    width, number = LIMIT[device]
    a = torch.randn(width, width, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    a @ a
    _wait(device)
    begin = time.perf_counter()
    for _ in range(number):
        a @ a
    _wait(device)
    return 2 * number * width**3 / (time.perf_counter() - begin)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def profiled(step: Step, device: str) -> tuple[dict[str, float], float]:
    """Seconds by kind, and floating-point operations of the matrix products."""
    on_gpu = device == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if on_gpu else [])]
    with torch.profiler.profile(activities=activities, with_flops=True) as profiler:
        step()
        _wait(device)
    return by_kind(profiler.key_averages(), on_gpu)


def by_kind(events: Iterable[Any], on_gpu: bool) -> tuple[dict[str, float], float]:
    """Sums over a profiler's averages: time of the operators themselves, their callees not counted."""
    seconds, flops = defaultdict[str, float](float), 0.0
    for event in events:
        if event.key.startswith("aten::"):
            seconds[kind_of(event.key)] += 1e-6 * (
                event.self_device_time_total if on_gpu else event.self_cpu_time_total
            )
            flops += event.flops if kind_of(event.key) == "matrix products" else 0
    return seconds, flops


def measure(recorder: Recorder, size: str, precision: str, args: argparse.Namespace) -> None:
    """Rows of one size and precision."""
    rows, bf16 = args.rows or BATCH[size], precision == "bf16"
    step = our_step(size, rows, args.device, bf16)
    step()
    step()
    shares, reached, limits = defaultdict[str, list[float]](list), list[float](), list[float]()
    for _ in range(args.rounds):
        limits.append(limit(bf16, args.device))
        seconds, flops = profiled(step, args.device)
        whole = sum(seconds.values())
        for kind in (*KINDS, "everything else"):
            shares[kind].append(100 * seconds.get(kind, 0.0) / whole)
        reached.append(flops / seconds["matrix products"])
    label = f"{size}, {rows} x {LENGTH}, {precision}"
    device: Literal["cpu", "gpu"] = "gpu" if args.device == "cuda" else "cpu"
    for kind in sorted(shares, key=lambda kind: -sum(shares[kind])):
        recorder.add(Row(f"{label}: {kind}", "%", shares[kind], better="lower", device=device))
    peer_name = "one product of {0:,} x {0:,}".format(LIMIT[args.device][0])
    recorder.add(Row(f"{label}: speed of its matrix products", "FLOP/s", reached, "higher", limits, peer_name, device))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="small,base")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rows", type=int, help="sequences in a batch (default: by size)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    keep_freed_memory()  # as training with the plugin does
    with Recorder("step_profile", args.json) as recorder:
        for size in args.sizes.split(","):
            for precision in args.precisions.split(","):
                measure(recorder, size, precision, args)


if __name__ == "__main__":
    run_cli(main)
