"""Speed of pre-training on pairs of mixed lengths, data loading included, against Hugging Face and fairseq's own masked
LM.

    python benchmarks/train_pairs.py [--sizes mini,base] [--lengths 128] [--device cuda] [--json FILE]

Ours is fairseq's trainer on this plugin: three objectives with a transfer, dropout 0.1, fused AdamW, batches of a number
of tokens. Hugging Face's BertForPreTraining (two objectives, sdpa) gets the same samples in random order, padded to the
longest of their batch, as many of them as hold that number of tokens on average. fairseq's masked_lm (one objective)
reads the same corpus in full blocks. All take turns of some steps each; speeds are of tokens that are no padding. On a
CPU each system has a process of its own (`own_process.py`) and its memory as its users have it; once more
BertForPreTraining keeps what it frees, as training with the plugin does.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from fairseq.logging import metrics
from flops import model_flops_per_token, utilisation
from hugging_face import BertTraining, bert_batch, shape_of
from own_process import Here, Started, Step, System, reason
from record import Recorder, Row, command_line
from row import Detail
from synthetic import make_dictionary, open_data, write_data
from systems import PLUGIN, VOCABULARY, FairseqTraining, three_objectives

from hmtl_plugin.commands.run import run_cli
from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.errors import UserError
from hmtl_plugin.models.hierarchical_bert import ARCHITECTURES
from hmtl_plugin.precision import computes_in_bf16

MASKED = 0.15
OURS, PEER = "ours", "BertForPreTraining"
TOKENS = {
    "cpu": {"tiny": 4096, "mini": 4096, "small": 4096, "base": 1024},
    "cuda": {"tiny": 131072, "mini": 131072, "small": 65536, "base": 32768, "large": 16384},
}
"""Tokens of a batch by device and size."""
DEFAULTS = {
    "cpu": {"steps": 15, "peer_steps": 15, "warm_up": 2, "rounds": 5, "sentences": 100_000},
    "cuda": {"steps": 200, "peer_steps": 60, "warm_up": 10, "rounds": 4, "sentences": 1_000_000},
}
WORKERS = {"cpu": 0, "cuda": 6}


def shared(args: argparse.Namespace, size: str, length: int) -> str:
    """Arguments that both fairseq trainings have in common."""
    return (
        f"--max-tokens {TOKENS[args.device][size]} --tokens-per-sample {length} --max-positions {max(length, 512)} "
        f"--num-workers {WORKERS[args.device]} --seed 1 --lr 1e-4 --lr-scheduler polynomial_decay "
        "--total-num-update 100000 --warmup-updates 1000"
    )


def ours(args: argparse.Namespace, data: Path, size: str, length: int, extra: str) -> FairseqTraining:
    """The plugin."""
    more = f"{shared(args, size, length)} --autocast {args.precision.replace('fp32', 'none')} {extra}"
    return FairseqTraining(three_objectives(data, size, args.device, more))


def masked_lm(args: argparse.Namespace, data: Path, size: str, length: int) -> Step:
    """fairseq's own pre-training, in the half precision it has on a GPU."""
    layers, hidden = ARCHITECTURES[size]
    model = (
        "--task masked_lm --criterion masked_lm --arch roberta_base --sample-break-mode none "
        f"--encoder-layers {layers} --encoder-embed-dim {hidden} --encoder-ffn-embed-dim {4 * hidden} "
        f"--encoder-attention-heads {max(1, hidden // 64)} --optimizer adam --adam-betas (0.9,0.98) "
        f"--weight-decay 0.01 --clip-norm 1.0 --no-save {'--fp16' if args.device == 'cuda' else '--cpu'}"
    )
    return FairseqTraining([str(data), "--user-dir", PLUGIN, *f"{model} {shared(args, size, length)}".split()])


def bert_for_pretraining(args: argparse.Namespace, data: Path, size: str, length: int, compiled: bool) -> Step:
    """Hugging Face's."""
    batches = Samples(data, length).batches(TOKENS[args.device][size], 8)  # no more than the warm-up on a GPU sees
    shape = shape_of(*ARCHITECTURES[size], VOCABULARY) | {"max_position_embeddings": max(length, 512)}
    return BertTraining(shape, batches, args.device, args.precision == "bf16", compiled)


class Samples:
    """The epoch's samples, for peers that want them as padded batches."""

    def __init__(self, data: Path, length: int) -> None:
        self.vocabulary = Vocabulary.from_dictionary(make_dictionary(VOCABULARY))
        self.dataset = open_data(data / "train", self.vocabulary, ("nsp", "mlm"), length)
        self.dataset.set_epoch(1)
        self.order = np.random.default_rng(0).permutation(len(self.dataset))

    def attended(self) -> float:
        """Mean over tokens of the tokens each attends to."""
        sizes = self.dataset.sizes.astype(np.float64)
        return float((sizes**2).sum() / sizes.sum())

    def batches(self, tokens: int, number: int) -> list[dict[str, Any]]:
        """Of so many tokens on average, in random order, as BertForPreTraining takes them."""
        rows = max(1, round(tokens / self.dataset.mean_tokens))
        parts = (self.order[n * rows : (n + 1) * rows] for n in range(min(number, len(self.order) // rows)))
        return [bert_batch(self.dataset.collater(part.tolist()), self.vocabulary) for part in parts]


@dataclass
class Found:
    """By system: tokens a second, one number a turn; on a GPU the bytes of a step; why it failed."""

    speeds: dict[str, list[float]] = field(default_factory=dict)
    step_bytes: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def fastest(self, whose: str) -> str | None:
        """The fastest variant, if any was measured."""
        variants = [name for name in self.speeds if name.startswith(f"{whose},")]
        return max(variants, key=lambda name: median(self.speeds[name]), default=None)


def take_turns(
    systems: Mapping[str, System], found: Found, args: argparse.Namespace, changed: Callable[[], None]
) -> None:
    """Start the systems one after the other and fill in what is measured: a number a turn.

    The first ``--warm-up`` steps and each turn's first do not count. The first turn follows the warm-up, what may take
    minutes to begin comes last, and ``changed`` is called whenever there is more: even if this is killed, the record
    holds all measured so far. A system that fails is left out from then on. Loaders go on between turns, so that a short
    turn may live on what they have ready.
    """
    order = sorted(systems, key=lambda name: "compiled" in name)
    with ExitStack() as stack:
        started: dict[str, Started] = {}
        for number in range(args.rounds):
            for name in order:
                if name in found.failed:
                    continue
                try:
                    if name not in started:
                        started[name] = stack.enter_context(systems[name].start(args.device))
                        warm_up(name, started[name], found, args.warm_up)
                    turn(name, started[name], found, args)
                except Exception as error:
                    if name in started:
                        started.pop(name).close()  # others want its memory
                    found.failed[name] = reason(error)
                if number == 0:
                    changed()
            changed()


def warm_up(name: str, system: Started, found: Found, steps: int) -> None:
    """The steps that do not count."""
    begin = time.perf_counter()
    metrics.reset()
    system(steps)
    if isinstance(system, Here):
        found.step_bytes[name] = step_bytes(system.step)
    print(f"  {name}: warm after {time.perf_counter() - begin:.0f} s", flush=True)


def turn(name: str, system: Started, found: Found, args: argparse.Namespace) -> None:
    """A number more."""
    metrics.reset()  # of whoever came before: fairseq has one set of meters a process
    system(1)
    steps = args.steps if name.startswith(f"{OURS},") else args.peer_steps
    taken = system(max(1, steps // args.rounds))
    found.speeds.setdefault(name, []).append(taken.tokens / taken.seconds)


def step_bytes(step: Step) -> int:
    """What a step takes on the GPU beyond what lies there between steps."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with patch("torch.cuda.reset_peak_memory_stats"):  # fairseq resets it at every update
        step()
    return torch.cuda.max_memory_allocated() - before


def systems_of(args: argparse.Namespace, data: Path, size: str, length: int) -> dict[str, dict[str, System]]:
    """Whose -> variant -> the system."""
    on_gpu, what = args.device == "cuda", (args, data, size, length)
    variants = {"padded": ""} | ({"packed": "--pack", "packed, compiled": "--pack --compile"} if on_gpu else {})
    systems = {OURS: {name: System(ours, (*what, extra), keeps_memory=True) for name, extra in variants.items()}}
    if "hf" in args.peers:
        modes = {"eager": False, "compiled": True} if on_gpu else {"eager": False}
        systems[PEER] = {name: System(bert_for_pretraining, (*what, mode)) for name, mode in modes.items()}
        if not on_gpu:
            system = System(bert_for_pretraining, (*what, False), keeps_memory=True)
            systems[f"{PEER} that keeps memory too"] = {"eager": system}
    if "fairseq" in args.peers:
        systems["fairseq masked_lm"] = {"fp16" if on_gpu else "fp32": System(masked_lm, what)}
    return systems


def measure(args: argparse.Namespace, size: str, length: int, data: Path, recorder: Recorder) -> list[str]:
    """The rows of one size and length; what failed, in a line each."""
    systems = systems_of(args, data, size, length)
    flat = {f"{whose}, {name}": system for whose, variants in systems.items() for name, system in variants.items()}
    samples, found = Samples(data, length), Found()

    def changed() -> None:
        recorder.keep(*rows_of(args, size, length, samples, found))

    take_turns(flat, found, args, changed)
    for row in rows_of(args, size, length, samples, found):
        recorder.add(row)
    return [f"{size}, {length}, {name}: {why}" for name, why in found.failed.items()]


def rows_of(args: argparse.Namespace, size: str, length: int, samples: Samples, found: Found) -> list[Row]:
    """Our fastest variant with all that is known of this size, and it beside the fastest of each peer; none without ours."""
    fastest = found.fastest(OURS)
    if fastest is None:
        return []
    what = f"{size}, pairs of at most {length} tokens, {args.precision}"
    mine = found.speeds[fastest]
    details = details_of(args, size, length, samples, found, fastest)
    rows = [Row(what, "tokens/s", mine, device=args.device, details=details)]
    for whose in dict.fromkeys(name.split(",")[0] for name in found.speeds):
        peer = found.fastest(whose)
        if whose != OURS and peer is not None:
            theirs = found.speeds[peer]
            rows.append(Row(f"{what}, against {whose}", "tokens/s", mine, "higher", theirs, peer, args.device))
    return rows


def details_of(
    args: argparse.Namespace, size: str, length: int, samples: Samples, found: Found, fastest: str
) -> dict[str, Detail]:
    """What a reader should know besides."""
    details: dict[str, Detail] = {
        "tokens of a batch": TOKENS[args.device][size],
        "filled": round(samples.dataset.mean_tokens / length, 3),
        "all, median tokens/s": "; ".join(f"{name} {median(values):.0f}" for name, values in found.speeds.items()),
    }
    if found.failed:
        details["failed"] = "; ".join(found.failed)
    if args.device == "cuda":
        layers, hidden = ARCHITECTURES[size]
        flops = model_flops_per_token(layers, hidden, VOCABULARY, MASKED, samples.attended())
        used = utilisation(median(found.speeds[fastest]), flops, torch.cuda.get_device_name())
        details["MFU"] = "peak unknown" if used is None else round(used, 3)
        details["GB of a step"] = "; ".join(f"{name} {taken / 1e9:.2f}" for name, taken in found.step_bytes.items())
    return details


def main() -> None:
    """Measure and print one line a row."""
    parser = command_line(__doc__, device=True)
    parser.add_argument("--sizes", default="mini,base")
    parser.add_argument("--lengths", default="128", help="longest sequences")
    parser.add_argument("--peers", default="hf,fairseq")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="default: bf16 where the device computes in it")
    parser.add_argument("--steps", type=int, help="of ours (default: 200 on a GPU, 15 on a CPU)")
    parser.add_argument("--peer-steps", type=int, help="of each peer (default: 60, 15)")
    parser.add_argument("--warm-up", type=int, help="steps before (default: 10, 2)")
    parser.add_argument("--rounds", type=int, help="turns that these steps are taken in (default: 4, 5)")
    parser.add_argument("--sentences", type=int, help="of the corpus (default: 1 M, 100,000)")
    parser.set_defaults(**DEFAULTS[parser.parse_args().device])
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # fairseq's and hydra's
    args.precision = args.precision or ("bf16" if computes_in_bf16(args.device) else "fp32")
    with tempfile.TemporaryDirectory() as folder, Recorder("train_pairs", args.json) as recorder:
        write_data(Path(folder), VOCABULARY, args.sentences)
        failed = [
            line
            for size in args.sizes.split(",")
            for length in map(int, args.lengths.split(","))
            for line in measure(args, size, length, Path(folder), recorder)
        ]
    if failed:
        raise UserError("; ".join(failed))


if __name__ == "__main__":
    run_cli(main)
