"""What rotary positions, a learnt placement and Muon cost: a step with them against one with learned positions, with
the objective at the last layer, with fused AdamW.

    python benchmarks/part_costs.py [--only positions,mix,muon] [--device cuda] [--json FILE]

Both systems of a row are ours, in one process, on the same batch, and take steps in turns (A B A B ...). A *step* is
forward, loss, backward and optimizer; an *update* of several batches is as many forward and backward passes and one
optimizer's step: the passes are timed on one batch and counted as often as the update has batches, the optimizer's step
is timed itself. On a CPU both keep the memory that a step frees, as training does. The quick start's update is one batch of 3,072 tokens and as many pieces as its own.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from record import Recorder, Row
from train_step import FLAT, make_batch

from hmtl_plugin.commands.run import run_cli
from hmtl_plugin.errors import UserError
from hmtl_plugin.fairseq_hooks.host_memory import keep_freed_memory
from hmtl_plugin.models.hierarchical_bert import (
    ARCHITECTURES,
    HierarchicalBertConfig,
    HierarchicalBertModel,
)
from hmtl_plugin.objectives.base import build_objectives
from hmtl_plugin.optim.adamw import HmtlAdamW, HmtlAdamWConfig
from hmtl_plugin.optim.muon import HmtlMuon, HmtlMuonConfig
from hmtl_plugin.precision import autocast

PARTS = ("positions", "mix", "muon")


@dataclass(frozen=True)
class Setting:
    """One system.

    Attributes:
        rows, length: sequences of a batch and their tokens.
        precision: fp32, bf16 or fp16 (autocast with a fixed loss scale).
        packed: the sequences lie end to end.
    """

    name: str
    layers: int
    hidden: int
    rows: int
    length: int
    vocabulary: int
    precision: str
    positions: str = "learned"
    optimizer: str = "hmtl_adamw"
    packed: bool = False
    hierarchy: str = FLAT[0]


class Ours:
    """Passes and optimizer's steps of a setting, timed."""

    def __init__(self, setting: Setting, device: str) -> None:
        self.setting, self.device = setting, device
        batch = make_batch(setting.rows, device, setting.vocabulary, setting.length)
        self.targets = batch.targets
        self.inputs: dict[str, Any] = {"src_tokens": batch.tokens_BT, "padded": False}
        if setting.packed:
            ends = torch.arange(setting.rows + 1, dtype=torch.int32, device=device) * setting.length
            self.inputs = {"src_tokens": batch.tokens_BT.flatten(), "starts": ends, "longest": setting.length}
        torch.manual_seed(1)
        config = HierarchicalBertConfig(
            hierarchy=setting.hierarchy,
            encoder_layers=setting.layers,
            encoder_embed_dim=setting.hidden,
            positions=setting.positions,
            encoder_normalize_before=True,
        )
        self.objectives = build_objectives([item.split("@")[0] for item in setting.hierarchy.split(",")])
        dictionary = ["<mask>", *range(1, setting.vocabulary)]
        task = SimpleNamespace(objectives=self.objectives, source_dictionary=dictionary)
        self.model = HierarchicalBertModel.build_model(config, task).to(device).train()
        learning = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = (
            HmtlMuon(HmtlMuonConfig(lr=[1e-4]), learning)
            if setting.optimizer == "hmtl_muon"
            else HmtlAdamW(HmtlAdamWConfig(lr=[1e-4]), learning)
        )

    def passes(self) -> float:
        """Seconds of a forward and a backward pass."""
        self.optimizer.zero_grad()
        started = self._now()
        with autocast("none" if self.setting.precision == "fp32" else self.setting.precision, self.device):
            logits, _ = self.model(targets=self.targets, **self.inputs)
            losses = [o.loss(logits, self.targets, self.setting.length) for o in self.objectives.values()]
        scale = 128.0 if self.setting.precision == "fp16" else 1.0
        loss = torch.stack([loss.scaled_sum for loss in losses]).sum()
        (loss * (scale / (self.setting.rows * self.setting.length))).backward()
        return self._now() - started

    def steps(self) -> float:
        """Seconds of the optimizer's step on the gradient of the last pass."""
        started = self._now()
        self.optimizer.step()
        return self._now() - started

    def _now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def in_turns(systems: Sequence[Ours], rounds: int, passes: int, steps: int) -> list[tuple[list[float], list[float]]]:
    """Seconds of passes and of optimizer's steps, each system's, after a round that does not count."""
    found: list[tuple[list[float], list[float]]] = [([], []) for _ in systems]
    for number in range(rounds + 1):
        for system, (of_passes, of_steps) in zip(systems, found, strict=True):
            taken = [system.passes() for _ in range(passes)], [system.steps() for _ in range(steps)]
            if number:
                of_passes += taken[0]
                of_steps += taken[1]
    return found


def positions_row(setting: Setting, device: str, rounds: int) -> Row:
    """A step with rotary positions against one with learned ones."""
    systems = [Ours(replace(setting, positions=positions), device) for positions in ("rotary", "learned")]
    ours, peer = ([p + s for p, s in zip(*times, strict=True)] for times in in_turns(systems, rounds, 1, 1))
    return Row(
        f"rotary positions, a step, {setting.name}, {setting.rows} x {setting.length}, {setting.precision}, "
        f"{'packed' if setting.packed else 'rows'}",
        "s",
        ours,
        "lower",
        peer,
        "learned positions",
        "gpu" if device == "cuda" else "cpu",
    )


def mix_row(setting: Setting, device: str, rounds: int) -> Row:
    """A step with one objective of three at a mix of all layers, against one with it at the last."""
    places = [f"bigram_shift@-1,nsp@{layer},mlm@-1" for layer in ("mix", "-1")]
    systems = [Ours(replace(setting, hierarchy=hierarchy), device) for hierarchy in places]
    ours, peer = ([p + s for p, s in zip(*times, strict=True)] for times in in_turns(systems, rounds, 1, 1))
    return Row(
        f"nsp@mix, a step of three objectives, {setting.name}, {setting.rows} x {setting.length}, {setting.precision}",
        "s",
        ours,
        "lower",
        peer,
        "nsp@-1",
        "gpu" if device == "cuda" else "cpu",
    )


def muon_row(setting: Setting, device: str, batches: int, rounds: int) -> Row:
    """An update with Muon against one with AdamW, of so many batches."""
    setting = replace(setting, positions="rotary")
    systems = [Ours(replace(setting, optimizer=name), device) for name in ("hmtl_muon", "hmtl_adamw")]
    found = in_turns(systems, rounds, 1, 1)
    # the passes are the same in both: what differs is the step
    passes = sorted(seconds for times in found for seconds in times[0])
    middle = passes[len(passes) // 2]
    ours, peer = ([batches * middle + step for step in times[1]] for times in found)
    tokens = batches * setting.rows * setting.length
    return Row(
        f"Muon, an update of {tokens:,} tokens, {setting.name}, {setting.precision}",
        "s",
        ours,
        "lower",
        peer,
        "fused AdamW",
        "gpu" if device == "cuda" else "cpu",
        {
            "pieces in the vocabulary": setting.vocabulary,
            "batches": batches,
            "step with Muon (s)": round(sorted(found[0][1])[len(found[0][1]) // 2], 4),
            "step with AdamW (s)": round(sorted(found[1][1])[len(found[1][1]) // 2], 4),
        },
    )


def sized(name: str, rows: int, precision: str, packed: bool = False) -> Setting:
    """One of BERT's sizes, sequences of 128 tokens."""
    layers, hidden = ARCHITECTURES[name]
    return Setting(name, layers, hidden, rows, 128, 30522, precision, packed=packed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default=",".join(PARTS), help="some of %(default)s, on a CPU")
    parser.add_argument("--quick", action="store_true", help="a small model, few rounds: does it run?")
    parser.add_argument("--json", type=Path, help="where to write the record")
    args = parser.parse_args()
    device, only = args.device, args.only.split(",")
    if unknown := set(only) - set(PARTS):
        raise UserError(f"--only {min(unknown)}: use some of {', '.join(PARTS)}")
    if device == "cpu":
        keep_freed_memory()
    with Recorder("part_costs", args.json) as recorder:
        if args.quick:
            recorder.add(positions_row(sized("tiny", 2, "fp32", packed=True), device, 1))
            recorder.add(mix_row(sized("tiny", 2, "fp32"), device, 1))
            recorder.add(muon_row(sized("tiny", 2, "fp32"), device, 2, 1))
            return
        if device == "cuda":
            for precision in ("bf16", "fp16"):
                for packed in (False, True):
                    recorder.add(positions_row(sized("base", 256, precision, packed), device, args.rounds))
            recorder.add(muon_row(sized("base", 256, "bf16"), device, 2, args.rounds))
            return
        for packed in (False, True) if "positions" in only else ():
            recorder.add(positions_row(sized("small", 16, "bf16", packed), device, args.rounds))
        if "mix" in only:
            recorder.add(mix_row(sized("small", 16, "bf16"), device, args.rounds))
        if "muon" not in only:
            return
        recorder.add(muon_row(sized("small", 16, "bf16"), device, 8, args.rounds))
        recorder.add(muon_row(sized("base", 16, "bf16"), device, 32, max(3, args.rounds // 3)))
        quick_start = Setting("the quick start", 4, 128, 48, 64, 6000, "bf16")
        recorder.add(muon_row(quick_start, device, 1, 10 * args.rounds))


if __name__ == "__main__":
    run_cli(main)
