"""What rotary positions, a learnt placement and Muon cost: a step with them against one with learned positions, with
the objective at the last layer, with fused AdamW.

    python benchmarks/part_costs.py [--only positions,mix,muon] [--device cuda] [--json FILE]

Both systems of a row are ours, in one process, on the same batch, and take steps in turns (A B A B ...). A *step* is
forward, loss, backward and optimizer; an *update* of several batches is as many forward and backward passes and one
optimizer's step: the passes are timed on one batch and counted as often as the update has batches, the optimizer's step
is timed itself. On a CPU both keep the memory that a step frees, as training does. The quick start's update is one batch
of 3,072 tokens and as many pieces as its own.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from statistics import median

from model_step import ModelStep, Setting
from record import Recorder, Row, command_line
from turns import interleaved, seconds_of

from hmtl_plugin.commands.run import run_cli
from hmtl_plugin.errors import UserError
from hmtl_plugin.fairseq_hooks.host_memory import keep_freed_memory

PARTS = ("positions", "mix", "muon")
QUICK_START = Setting("the quick start", 4, 128, 48, "bf16", 64, 6000)


def in_turns(ours: Setting, peer: Setting, device: str, rounds: int) -> list[list[tuple[float, float]]]:
    """Of each of the two, seconds of the passes and of the optimizer's step, round by round."""

    def timed(system: ModelStep) -> tuple[float, float]:
        return seconds_of(system.passes, device), seconds_of(system.optimizer.step, device)

    systems = {name: ModelStep(replace(each, pre_norm=True), device) for name, each in (("ours", ours), ("peer", peer))}
    return [*interleaved({name: partial(timed, system) for name, system in systems.items()}, rounds, 1).values()]


def step_row(what: str, ours: Setting, peer: Setting, peer_name: str, device: str, rounds: int) -> Row:
    """A step of each."""
    mine, theirs = ([sum(parts) for parts in found] for found in in_turns(ours, peer, device, rounds))
    return Row(what, "s", mine, "lower", theirs, peer_name, device)


def positions_row(setting: Setting, device: str, rounds: int) -> Row:
    """A step with rotary positions against one with learned ones."""
    what = f"rotary positions, a step, {setting}, {'packed' if setting.packed else 'rows'}"
    return step_row(what, replace(setting, positions="rotary"), setting, "learned positions", device, rounds)


def mix_row(setting: Setting, device: str, rounds: int) -> Row:
    """A step with one objective of three at a mix of all layers, against one with it at the last."""
    mixed, last = (replace(setting, hierarchy=f"bigram_shift@-1,nsp@{layer},mlm@-1") for layer in ("mix", "-1"))
    return step_row(f"nsp@mix, a step of three objectives, {setting}", mixed, last, "nsp@-1", device, rounds)


def muon_row(setting: Setting, device: str, batches: int, rounds: int) -> Row:
    """An update with Muon against one with AdamW, of so many batches."""
    adamw = replace(setting, positions="rotary")
    muon = replace(adamw, optimizer="hmtl_muon")
    mine, theirs = in_turns(muon, adamw, device, rounds)
    passes = batches * median(passes for passes, _ in mine + theirs)  # the same in both: what differs is the step
    tokens = batches * setting.rows * setting.length
    return Row(
        f"Muon, an update of {tokens:,} tokens, {setting.name}, {setting.precision}",
        "s",
        [passes + step for _, step in mine],
        "lower",
        [passes + step for _, step in theirs],
        "fused AdamW",
        device,
        {
            "pieces in the vocabulary": setting.vocabulary,
            "batches": batches,
            "step with Muon (s)": round(median(step for _, step in mine), 4),
            "step with AdamW (s)": round(median(step for _, step in theirs), 4),
        },
    )


def rows(only: list[str], device: str, rounds: int, quick: bool) -> Iterator[Row]:
    """Those of the parts asked for."""
    setting = Setting.sized("tiny", 2, "fp32")
    if not quick:
        setting = Setting.sized(*(("base", 256) if device == "cuda" else ("small", 16)), "bf16")
    if "positions" in only:
        for packed in (False, True):
            yield positions_row(replace(setting, packed=packed), device, rounds)
    if "mix" in only:
        yield mix_row(setting, device, rounds)
    if "muon" in only:
        yield muon_row(setting, device, 8 if device == "cpu" else 2, rounds)
    if "muon" in only and device == "cpu" and not quick:
        yield muon_row(Setting.sized("base", 16, "bf16"), device, 32, max(3, rounds // 3))
        yield muon_row(QUICK_START, device, 1, 10 * rounds)


def main() -> None:
    """Measure and print one line a row."""
    parser = command_line(__doc__, device=True)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default=",".join(PARTS), help="some of %(default)s")
    parser.add_argument("--quick", action="store_true", help="a small model, one round: does it run?")
    args = parser.parse_args()
    only = args.only.split(",")
    if unknown := set(only) - set(PARTS):
        raise UserError(f"--only {min(unknown)}: use some of {', '.join(PARTS)}")
    if args.device == "cpu":
        keep_freed_memory()
    with Recorder("part_costs", args.json) as recorder:
        for row in rows(only, args.device, 1 if args.quick else args.rounds, args.quick):
            recorder.add(row)


if __name__ == "__main__":
    run_cli(main)
