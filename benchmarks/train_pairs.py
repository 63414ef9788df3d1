"""Speed of pre-training on pairs of mixed lengths, data loading included, against Hugging Face and fairseq's own masked LM.

    python benchmarks/train_pairs.py [--sizes mini,base] [--lengths 128] [--device cuda] [--json FILE]

Ours is fairseq's trainer on this plugin: three objectives with a transfer, dropout 0.1, fused AdamW, batches of a number of
tokens. Hugging Face's BertForPreTraining (two objectives, sdpa) gets the same samples in random order, padded to the
longest of their batch, as many of them as hold that number of tokens on average. fairseq's masked_lm (one objective) reads the
same corpus in full blocks. All take turns of some steps each; speeds are of tokens that are no padding. Memory is as each side's
users have it, on a CPU once more with BertForPreTraining keeping it as ours does (`memory.py`).
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch
from fairseq.logging import metrics
from flops import model_flops_per_token, utilisation
from memory import KEPT, USUAL, Thresholds, use
from record import Recorder, Row
from row import Detail
from synthetic import make_dictionary, write_corpus
from systems import FairseqTraining, Step, transformers_step

import hmtl_plugin.objectives  # noqa: F401  registers the objectives
from hmtl_plugin.corruption.batch import IGNORE
from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.dataset import PretrainingDataset, View
from hmtl_plugin.data.pair_index import PairingConfig
from hmtl_plugin.errors import run_cli
from hmtl_plugin.models.hierarchical_bert import ARCHITECTURES
from hmtl_plugin.objectives.base import ObjectiveOptions, build_objectives
from hmtl_plugin.precision import computes_in_bf16

PLUGIN = str(Path(__file__).parents[1] / "hmtl_plugin")
VOCABULARY, MASKED = 30522, 0.15
OURS, PEER_WITH_MEMORY = "ours", "BertForPreTraining that keeps memory too"
HIERARCHY = ("--hierarchy", "bigram_shift@50%,nsp@75%,mlm@100%", "--transfer", "nsp>mlm:concat")
TOKENS = {
    "cpu": {"tiny": 4096, "mini": 4096, "small": 4096, "base": 1024},
    "cuda": {"mini": 131072, "small": 65536, "base": 32768, "large": 16384},
}
"""Tokens of a batch by device and size."""


def shared_arguments(args: argparse.Namespace, data: Path, length: int, tokens: int) -> list[str]:
    """What both fairseq trainings have in common."""
    return [
        *(str(data), "--user-dir", PLUGIN, "--max-tokens", str(tokens), "--tokens-per-sample", str(length)),
        *("--max-positions", str(max(length, 512)), "--num-workers", str(args.workers), "--no-save", "--seed", "1"),
        *"--lr 1e-4 --lr-scheduler polynomial_decay --total-num-update 100000 --warmup-updates 1000 --clip-norm 1.0".split(),
        *(["--cpu"] if args.device == "cpu" else []),
    ]


def ours(args: argparse.Namespace, data: Path, size: str, length: int, extra: Sequence[str]) -> FairseqTraining:
    """The plugin."""
    options = [
        *("--task", "hmtl_pretraining", "--criterion", "hmtl", "--arch", f"hmtl_bert_{size}", *HIERARCHY),
        *("--optimizer", "hmtl_adamw", "--autocast", args.precision.replace("fp32", "none"), *extra),
    ]
    return FairseqTraining([*shared_arguments(args, data, length, TOKENS[args.device][size]), *options])


def masked_lm(args: argparse.Namespace, data: Path, size: str, length: int) -> Step:
    """fairseq's own pre-training, in the half precision it has on a GPU."""
    layers, hidden = ARCHITECTURES[size]
    options = [
        *("--task", "masked_lm", "--criterion", "masked_lm", "--arch", "roberta_base", "--sample-break-mode", "none"),
        *(
            "--encoder-layers",
            str(layers),
            "--encoder-embed-dim",
            str(hidden),
            "--encoder-ffn-embed-dim",
            str(4 * hidden),
        ),
        *("--encoder-attention-heads", str(max(1, hidden // 64)), "--optimizer", "adam", "--adam-betas", "(0.9,0.98)"),
        *("--weight-decay", "0.01", *(["--fp16"] if args.device == "cuda" else [])),
    ]
    return FairseqTraining([*shared_arguments(args, data, length, TOKENS[args.device][size]), *options])


class Samples:
    """The epoch's samples, for peers that want them as padded batches."""

    def __init__(self, data: Path, dictionary: Any, length: int) -> None:
        self.vocabulary = Vocabulary.from_dictionary(dictionary)
        objectives = tuple(build_objectives(("nsp", "mlm"), ObjectiveOptions()).values())
        view = View("train", "nsp", objectives, ("nsp", "mlm"))
        config = PairingConfig(tokens_per_sample=length)
        self.dataset = PretrainingDataset(Corpus(str(data / "train")), self.vocabulary, [view], config)
        self.dataset.set_epoch(1)
        self.order = np.random.default_rng(0).permutation(len(self.dataset))

    def attended(self) -> float:
        """Mean over tokens of the tokens each attends to."""
        sizes = self.dataset.sizes.astype(np.float64)
        return float((sizes**2).sum() / sizes.sum())

    def batches(self, tokens: int, number: int) -> list[dict[str, Any]]:
        """Of so many tokens on average, in random order, as BertForPreTraining takes them."""
        rows = max(1, round(tokens / self.dataset.mean_tokens))
        return [self._batch(self.order[n * rows : (n + 1) * rows]) for n in range(min(number, len(self.order) // rows))]

    def _batch(self, numbers: np.ndarray) -> dict[str, Any]:
        sample = self.dataset.collater(numbers.tolist())
        tokens_BT = sample["net_input"]["src_tokens"]
        is_end_BT = tokens_BT.eq(self.vocabulary.eos).long()
        labels = torch.full((tokens_BT.numel(),), -100)
        labels[sample["targets"]["mlm"]["positions"]] = sample["targets"]["mlm"]["labels"]
        next_sentence_B = torch.full((len(tokens_BT),), IGNORE)
        next_sentence_B[sample["targets"]["nsp"]["positions"]] = sample["targets"]["nsp"]["labels"]
        return {
            "input_ids": tokens_BT,
            "token_type_ids": (is_end_BT.cumsum(1) - is_end_BT).clamp(max=1),
            "attention_mask": tokens_BT.ne(self.vocabulary.pad).long(),
            "labels": labels.view_as(tokens_BT),
            "next_sentence_label": next_sentence_B,
            "tokens": sample["ntokens"],
        }


def memory_of(system: str) -> Thresholds:
    """Of a system with this name."""
    return KEPT if system.startswith((OURS, PEER_WITH_MEMORY)) else USUAL


def take_turns(systems: Mapping[str, Step], found: "Found", args: argparse.Namespace) -> None:
    """Fill in what is measured: a number a round; the first ``--warm-up`` steps and each turn's first do not count.

    The first turn follows the warm-up, so that whoever stops this has something of all that had begun.
    """
    on_gpu = args.device == "cuda"

    def timed(step: Step, steps: int) -> float:
        metrics.reset()  # of whoever came before: fairseq has one set of meters a process
        if on_gpu:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        tokens = sum(step() for _ in range(steps))
        if on_gpu:
            torch.cuda.synchronize()
        return tokens / (time.perf_counter() - begin)

    def turn(name: str) -> None:
        use(memory_of(name))
        timed(systems[name], 1)
        found.speeds.setdefault(name, []).append(timed(systems[name], max(1, args.steps // args.rounds)))

    order = sorted(systems, key=lambda name: "compiled" in name)  # what may take minutes to begin comes last
    for name in order:
        seconds = time.perf_counter()
        use(memory_of(name))
        timed(systems[name], args.warm_up)
        if on_gpu:
            found.step_bytes[name] = step_bytes(systems[name])
        print(f"  {name}: warm after {time.perf_counter() - seconds:.0f} s", flush=True)
        turn(name)
    for _ in range(args.rounds - 1):
        for name in order:
            turn(name)


def step_bytes(step: Step) -> int:
    """What a step takes on the GPU beyond what lies there between steps."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with patch("torch.cuda.reset_peak_memory_stats"):  # fairseq resets it at every update
        step()
    return torch.cuda.max_memory_allocated() - before


@dataclass
class Found:
    """By system: tokens a second, one number a round, and on a GPU the bytes of a step."""

    speeds: dict[str, list[float]] = field(default_factory=dict)
    step_bytes: dict[str, int] = field(default_factory=dict)


def build_systems(
    args: argparse.Namespace, data: Path, size: str, length: int, samples: Samples
) -> dict[str, dict[str, Step]]:
    """Whose -> variant -> the system."""
    layers, hidden = ARCHITECTURES[size]
    on_gpu = args.device == "cuda"
    options = {"padded": (), "packed": ("--pack",), "packed, compiled": ("--pack", "--compile")}
    systems: dict[str, dict[str, Step]] = {
        OURS: {
            name: ours(args, data, size, length, extra) for name, extra in options.items() if on_gpu or name == "padded"
        }
    }
    if "hf" in args.peers:
        batches = samples.batches(TOKENS[args.device][size], 32)
        shape = (layers, hidden, VOCABULARY, max(length, 512))
        systems["BertForPreTraining"] = {
            name: transformers_step(
                *shape, batches, args.device, bf16=args.precision == "bf16", compiled=name == "compiled"
            )
            for name in (("eager", "compiled") if on_gpu else ("eager",))
        }
        if not on_gpu:
            systems[PEER_WITH_MEMORY] = systems["BertForPreTraining"]
    if "fairseq" in args.peers:
        systems["fairseq masked_lm"] = {"fp16" if on_gpu else "fp32": masked_lm(args, data, size, length)}
    return systems


def measure(args: argparse.Namespace, size: str, length: int, data: Path, dictionary: Any, recorder: Recorder) -> None:
    """The rows of one size and length, of fewer rounds and variants where it is stopped."""
    samples = Samples(data, dictionary, length)
    systems = build_systems(args, data, size, length, samples)
    flat = {f"{whose}, {name}": step for whose, variants in systems.items() for name, step in variants.items()}
    found = Found()
    try:
        take_turns(flat, found, args)
    finally:
        there = {
            whose: [name for name in variants if f"{whose}, {name}" in found.speeds]
            for whose, variants in systems.items()
        }
        if all(there.values()):
            add_rows(args, size, length, samples, there, found, recorder)


def add_rows(
    args: argparse.Namespace,
    size: str,
    length: int,
    samples: Samples,
    variants: Mapping[str, list[str]],
    found: Found,
    recorder: Recorder,
) -> None:
    """Our fastest variant, and beside it the fastest of each peer."""
    speeds = found.speeds
    fastest = {
        whose: max((f"{whose}, {name}" for name in names), key=lambda name: median(speeds[name]))
        for whose, names in variants.items()
    }
    details: dict[str, Detail] = {
        "tokens of a batch": TOKENS[args.device][size],
        "filled": round(samples.dataset.mean_tokens / length, 3),
        "all, median tokens/s": "; ".join(f"{name} {median(values):.0f}" for name, values in speeds.items()),
    }
    if args.device == "cuda":
        layers, hidden = ARCHITECTURES[size]
        flops = model_flops_per_token(layers, hidden, VOCABULARY, MASKED, samples.attended())
        used = utilisation(median(speeds[fastest[OURS]]), flops, torch.cuda.get_device_name())
        details["MFU"] = "peak unknown" if used is None else round(used, 3)
        details["GB of a step"] = "; ".join(f"{name} {taken / 1e9:.2f}" for name, taken in found.step_bytes.items())
    what = f"{size}, pairs of at most {length} tokens, {args.precision}"
    mine = speeds[fastest[OURS]]
    device: Literal["cpu", "gpu"] = "gpu" if args.device == "cuda" else "cpu"
    if set(fastest) == {OURS}:
        recorder.add(Row(what, "tokens/s", mine, device=device, details=details))
    for peer in (whose for whose in fastest if whose != OURS):
        theirs = speeds[fastest[peer]]
        row = Row(f"{what}, against {peer}", "tokens/s", mine, "higher", theirs, fastest[peer], device, details)
        recorder.add(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="mini,base")
    parser.add_argument("--lengths", default="128", help="longest sequences")
    parser.add_argument("--peers", default="hf,fairseq")
    parser.add_argument("--precision", choices=["fp32", "bf16"], help="default: bf16 where the device computes in it")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--steps", type=int, help="of each system (default: 200 on a GPU, 15 on a CPU)")
    parser.add_argument("--warm-up", type=int, help="steps before (default: 20, 2)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, help="that load data (default: 2; 0 on a CPU)")
    parser.add_argument("--sentences", type=int, help="of the corpus (default: 1 M, 100,000)")
    parser.add_argument("--json", type=Path, help="where to write the record")
    args = parser.parse_args()
    on_gpu = args.device == "cuda"
    defaults = {"steps": (15, 200), "warm_up": (2, 20), "workers": (0, 2), "sentences": (100_000, 1_000_000)}
    for name, (cpu, gpu) in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, gpu if on_gpu else cpu)
    logging.disable(logging.WARNING)  # fairseq's and hydra's
    args.precision = args.precision or ("bf16" if computes_in_bf16(args.device) else "fp32")
    dictionary = make_dictionary(VOCABULARY)
    with tempfile.TemporaryDirectory() as folder, Recorder("train_pairs", args.json) as recorder:
        data = Path(folder)
        dictionary.save(str(data / "dict.txt"))
        write_corpus(data, len(dictionary), args.sentences, np.random.default_rng(0))
        for size in args.sizes.split(","):
            for length in map(int, args.lengths.split(",")):
                measure(args, size, length, data, dictionary, recorder)


if __name__ == "__main__":
    run_cli(main)
