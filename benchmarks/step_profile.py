"""Where the time of a training step goes, operator by operator, and how near its matrix products come to the machine's
own limit.

    python benchmarks/step_profile.py [--sizes small,base] [--precisions fp32,bf16] [--json FILE]

The step is that of `train_step.py`, flat. Operators are summed by kind; shares are of the time in operators. The limit
is a product of 2,048 x 2,048 matrices (on a GPU 8,192 x 8,192) in the same precision on as many threads, timed in turns
with the step: what matrix products do not reach of it, shapes and transposes cost; what is no matrix product bounds what
could be won elsewhere.
"""

from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from model_step import ModelStep, Setting
from record import Recorder, Row, command_line
from train_step import BATCH
from turns import interleaved, seconds_of

from hmtl_plugin.commands.run import run_cli
from hmtl_plugin.fairseq_hooks.host_memory import keep_freed_memory

PRODUCTS = "matrix products"
KINDS = {
    PRODUCTS: "mm addmm bmm baddbmm linear matmul",
    "attention": "_scaled_dot_product _flash_attention _efficient_attention _softmax",
    "softmax over the vocabulary": "_log_softmax nll_loss logsumexp argmax",
    "copies between precisions and layouts": "copy_ _to_copy cat index index_select gather clone",
    "clearing memory": "fill_ zero_",
    "layer norm, GELU, dropout, sums": "native_layer_norm native_dropout gelu mul add sum ge div random_ where",
    "embedding's gradient": "embedding_dense_backward",
    "optimizer": "_fused_adamw_ _foreach",
}
LIMIT = {"cpu": (2048, 1), "cuda": (8192, 10)}
"""Width of the product that is the limit, and how many are timed as one: enough that starting them does not count."""


def kind_of(operator: str) -> str:
    """Which of `KINDS` an operator's name belongs to; names that begin with another's count as that one's (``mul_``:
    ``mul``).
    """
    name = operator.rpartition("::")[2]
    kinds = {own: kind for kind, names in KINDS.items() for own in names.split()}
    begun = (kind for own, kind in kinds.items() if len(own) > 2 and name.startswith(own))
    return kinds.get(name) or next(begun, "everything else")


def limit(precision: str, device: str) -> float:
    """Floating-point operations a second of large products."""
    width, number = LIMIT[device]
    a = torch.randn(width, width, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    a @ a
    return 2 * number * width**3 / seconds_of(lambda: [a @ a for _ in range(number)], device)


def profiled(step: ModelStep, device: str) -> tuple[dict[str, float], float]:
    """Seconds by kind, and floating-point operations of the matrix products."""
    kinds = ["CPU", *(["CUDA"] if device == "cuda" else [])]
    activities = [getattr(torch.profiler.ProfilerActivity, kind) for kind in kinds]
    with torch.profiler.profile(activities=activities, with_flops=True) as profiler:
        seconds_of(step, device)
    return by_kind(profiler.key_averages(), device == "cuda")


def by_kind(events: Iterable[Any], on_gpu: bool) -> tuple[dict[str, float], float]:
    """Sums over a profiler's averages: time of the operators themselves, their callees not counted."""
    seconds, flops = defaultdict[str, float](float), 0.0
    for event in events:
        if event.key.startswith("aten::"):
            kind = kind_of(event.key)
            seconds[kind] += 1e-6 * (event.self_device_time_total if on_gpu else event.self_cpu_time_total)
            flops += event.flops if kind == PRODUCTS else 0
    return seconds, flops


def measure(recorder: Recorder, setting: Setting, device: str, rounds: int) -> None:
    """Rows of one size and precision."""
    step = ModelStep(setting, device)
    step()
    step()
    runs: dict[str, Any] = {
        "limit": partial(limit, setting.precision, device),
        "profile": partial(profiled, step, device),
    }
    found = interleaved(runs, rounds)
    shares = {
        kind: [100 * seconds.get(kind, 0.0) / sum(seconds.values()) for seconds, _ in found["profile"]]
        for kind in (*KINDS, "everything else")
    }
    for kind in sorted(shares, key=lambda kind: -sum(shares[kind])):
        recorder.add(Row(f"{setting}: {kind}", "%", shares[kind], better="lower", device=device))
    reached = [flops / seconds[PRODUCTS] for seconds, flops in found["profile"]]
    peer_name = "one product of {0:,} x {0:,}".format(LIMIT[device][0])
    what = f"{setting}: speed of its matrix products"
    recorder.add(Row(what, "FLOP/s", reached, "higher", found["limit"], peer_name, device))


def main() -> None:
    """Measure and print one line a row."""
    parser = command_line(__doc__, device=True)
    parser.add_argument("--sizes", default="small,base")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--rows", type=int, help="sequences in a batch (default: by size)")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    keep_freed_memory()  # as training with the plugin does
    with Recorder("step_profile", args.json) as recorder:
        for size in args.sizes.split(","):
            for precision in args.precisions.split(","):
                setting = Setting.sized(size, args.rows or BATCH[size], precision)
                measure(recorder, setting, args.device, args.rounds)


if __name__ == "__main__":
    run_cli(main)
