"""Seconds of training until the masked LM's held-out loss is that of counts of neighbouring pieces, ours against peers.

    python benchmarks/time_to_loss.py --data data/quickstart/corpus [--curves FILE.svg] [--json FILE]

The data are the quick start's (recipes/quickstart.sh, step 2). Compared are, on the same batches, with the same loop,
threads and precision,

    ModernBertForMaskedLM   with ours on the masked LM alone
    BertForPreTraining      with ours on next sentence and masked LM
    the first defaults      with ours on both: the plugin as the quick start had it first (learned positions, AdamW)

Every system has a process of its own, and they train in turns (`loss_race.py`). Clocks run while a system trains, its
batches included, and stand still while it is measured, every 20 updates on the same held-out samples (`held_out.py`).
Each system is trained at three learning rates, each with its warm-up and decay rates, of which the best counts (with
--finalists 1: the one that is best after --screen-seconds); all follow one rule (`loss_systems.rate`). A peer that has
not arrived after 15 times our seconds is stopped: its row then says so, and its ratio is a lower bound. All processes
keep the memory that a step frees, as training with the plugin does.
"""

import argparse
import logging
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from loss_curves import write_curves
from loss_race import Race, Rules, Run
from loss_systems import BertTraining, ModernBertTraining, OurTraining, Plan, held_out
from own_process import System
from record import Recorder, Row, command_line
from row import Detail
from synthetic import write_data
from systems import PLUGIN

from hmtl_plugin.commands.run import run_cli
from hmtl_plugin.errors import UserError
from hmtl_plugin.precision import AUTOCAST, resolved
from hmtl_plugin.recipe.options import as_arguments
from hmtl_plugin.recipe.table import read_table

# ---- what is compared: options of fairseq-train; each of `rates` is a run, of which the best counts ----

BEFORE = (
    "--encoder-normalize-before --init-std 0.06 --dropout 0 --attention-dropout 0 --optimizer hmtl_adamw "
    "--positions learned --norm layer --feed-forward plain --activation-fn gelu --sentence-pooling first"
)
"""Of the quick start's first version."""
_CHOSEN = """positions local-init encoder-normalize-before zero-init-outputs init-std dropout attention-dropout
    sentence-pooling optimizer""".split()
_MASK_PROB = {"mask-prob": read_table()["tiny"]["mask-prob"]}
OURS = shlex.join(as_arguments({name: read_table()["quickstart"][name] for name in _CHOSEN} | _MASK_PROB))
"""Of today's, from recipes/defaults.toml; the mask rate is that of its other small sizes."""
ADAMW = "--optimizer hmtl_adamw"  # a peer's is torch's own, with these options
ADAMW_RATES = (
    "--lr 2e-3 --warmup-updates 200",
    "--lr 4e-3 --warmup-updates 200 --adam-betas (0.9,0.98)",
    "--lr 4e-3 --warmup-updates 100",
)
OUR_RATES = tuple(
    f"--lr 8e-3 --matrix-lr {matrices} --muon-momentum {momentum} --warmup-updates {warm_up}"
    for matrices, momentum, warm_up in ((0.02, 0.95, 15), (0.03, 0.85, 15), (0.02, 0.9, 15))
)
"""Of peers and of ours, those around the best found before (docs/recipe.md): with less warm-up AdamW stays on its plateau
for long.
"""
MLM, BOTH, OUR_BOTH = "--hierarchy mlm@-1", "--hierarchy nsp@-1,mlm@-1", "--hierarchy nsp@-1*0.25,mlm@-1"


@dataclass(frozen=True)
class Contestant:
    """A system to train.

    Attributes:
        make: `loss_systems.Training` of it.
        options: of ``fairseq-train``, for all learning rates.
        rates: options of the optimizer, which say how fast it learns; a run for each.
    """

    make: Any
    options: str
    rates: tuple[str, ...]


OURS_MLM, OURS_BOTH = "ours, mlm", "ours, nsp and mlm"
MODERN_BERT, BERT, FIRST = "ModernBertForMaskedLM", "BertForPreTraining", "the first defaults"
CONTESTANTS = {
    OURS_MLM: Contestant(OurTraining, f"{MLM} {OURS}", OUR_RATES),
    OURS_BOTH: Contestant(OurTraining, f"{OUR_BOTH} {OURS}", OUR_RATES),
    MODERN_BERT: Contestant(ModernBertTraining, f"{MLM} {ADAMW} {shlex.join(as_arguments(_MASK_PROB))}", ADAMW_RATES),
    BERT: Contestant(BertTraining, f"{BOTH} {ADAMW}", ADAMW_RATES),
    FIRST: Contestant(OurTraining, f"{BOTH} {BEFORE}", ADAMW_RATES),
}
RIVALS = {MODERN_BERT: OURS_MLM, BERT: OURS_BOTH, FIRST: OURS_BOTH}
"""Peer -> what of ours it is compared with."""
FACTOR = 15
"""Times our seconds that a peer gets."""


@dataclass(frozen=True)
class Size:
    """Of models, batches and measurements.

    Attributes:
        options: of ``fairseq-train``.
        samples: held-out samples.
        every: updates between measurements.
    """

    options: str
    samples: int
    every: int

    def arguments(self, precision: str) -> tuple[str, ...]:
        """What all systems share."""
        common = "--task hmtl_pretraining --criterion hmtl --arch hmtl_bert_mini --lr-scheduler fixed --clip-norm 1.0"
        return ("--user-dir", PLUGIN, *f"{common} --cpu --num-workers 0 --autocast {precision} {self.options}".split())


FULL = Size(
    "--encoder-layers 4 --encoder-embed-dim 128 --tokens-per-sample 64 --max-positions 128 --max-tokens 2048", 384, 20
)
QUICK = Size(
    "--encoder-layers 1 --encoder-embed-dim 32 --tokens-per-sample 32 --max-positions 32 --max-tokens 512", 24, 2
)
"""To see that it runs."""


def systems_of(plan: Plan, peers: list[str], quick: bool) -> dict[tuple[str, str], System]:
    """(system, learning rate) -> how it is made: the peers, and ours that they are compared with; ``quick``: at the middle
    rate alone.
    """
    names = {*peers, *(RIVALS[peer] for peer in peers)}
    return {
        (name, rate): System(each.make, (plan, (*each.options.split(), *rate.split())), keeps_memory=True)
        for name, each in CONTESTANTS.items()
        if name in names
        for rate in (each.rates[1:2] if quick else each.rates)
    }


def rows_of(race: Race, peers: list[str], goal: str, computed: str) -> list[Row]:
    """For each peer the seconds until ours and it arrive, if one of them has, and the losses after the budget.

    Args:
        goal: name of the loss to reach.
        computed: precision and threads.
    """
    rows = []
    for peer in peers:
        ours, budget = RIVALS[peer], race.rules.budget
        if not all(any(run.losses for run in race.of(name)) for name in (ours, peer)):
            continue
        how = f"{ours.removeprefix('ours, ')}, {computed}, against {peer}"
        if race.arrival(ours) is not None or race.arrival(peer) is not None:
            rows.append(_until_there(race, ours, peer, f"until {goal}, {how}"))
        mine, theirs = race.best_after(ours, budget), race.best_after(peer, budget)
        if mine is not None and theirs is not None:
            losses = [run.loss_after(budget) or 0.0 for run in (mine, theirs)]
            details: dict[str, Detail] = {"rate": _rate(race, mine), "the peer's rate": _rate(race, theirs)}
            what = f"loss after {budget:g} s, {how}"
            rows.append(Row(what, "nats", losses[:1], "lower", losses[1:], peer, details=details))
    return rows


def _until_there(race: Race, ours: str, peer: str, what: str) -> Row:
    """Who has not arrived stands there with the seconds of training it has had, and is said to."""
    mine, theirs = _counted(race, ours), _counted(race, peer)
    details: dict[str, Detail] = {
        "loss to reach": f"{race.rules.goal:.3f}",
        "updates": _updates(race, mine),
        "the peer's updates": _updates(race, theirs),
        "rate": _rate(race, mine),
        "the peer's rate": _rate(race, theirs),
    }
    name = peer
    if race.arrival(peer) is None:
        name = f"{peer}, stopped at {theirs.losses[-1]:.2f} before it arrived, so the ratio is a lower bound"
    if race.arrival(ours) is None:
        details["ours"] = f"stopped at {mine.losses[-1]:.2f} before it arrived, so the ratio is an upper bound"
    seconds = [race.arrival(run.system) or run.spent for run in (mine, theirs)]
    return Row(what, "s", seconds[:1], "lower", seconds[1:], name, details=details)


def _counted(race: Race, system: str) -> Run:
    """The first to arrive; else, of those that trained longest, the one with the lowest loss."""
    runs = [run for run in race.of(system) if run.losses]
    longest = max(run.spent for run in runs)
    near = [run for run in runs if run.spent > 0.95 * longest]
    return race.first(system) or min(near, key=lambda run: run.losses[-1])


def _updates(race: Race, run: Run) -> int:
    arrival = run.arrival(race.rules.goal)
    return run.updates[-1] if arrival is None else run.updates[run.seconds.index(arrival)]


def _rate(race: Race, run: Run) -> str:
    """A run's learning rate, and what was tried for how long: the best may be at an edge, or have been chosen early."""
    tried = ", ".join(f"{each.rate} ({each.spent:.0f} s)" for each in race.of(run.system))
    return f"{run.rate}, tried: {tried}"


def measure(args: argparse.Namespace, data: Path, recorder: Recorder) -> list[str]:
    """The rows, kept up to date while systems train; a line for each system that could not be trained at any rate."""
    size = QUICK if args.quick else FULL
    plan = Plan(str(data), size.arguments(args.autocast), size.samples, args.threads)
    view = held_out(plan)
    goal = view.loss_of_counts()
    print(f"{view.samples} held-out samples; counts reach {goal:.3f}", flush=True)
    budget = min(args.budget_seconds, args.cap_seconds)
    screening = args.screen_seconds or None
    race = Race(Rules(goal, budget, args.cap_seconds, FACTOR, RIVALS, args.finalists, screening, size.every))
    computed = f"{resolved(args.autocast, 'cpu').replace('none', 'fp32')} on {args.threads} threads"

    def changed() -> None:
        recorder.keep(*rows_of(race, args.peers, "the loss of counts", computed))
        if args.curves:
            write_curves(race, {"counts of neighbours": goal}, args.curves)

    race.go(systems_of(plan, args.peers, args.quick), changed)
    for row in rows_of(race, args.peers, "the loss of counts", computed):
        recorder.add(row)
    return [
        f"{name}: {race.of(name)[0].failed}"
        for name in CONTESTANTS
        if (runs := race.of(name)) and all(run.failed for run in runs)
    ]


def main() -> None:
    """Measure and print one line a row."""
    parser = command_line(__doc__)
    add = parser.add_argument
    add("--data", type=Path, metavar="FOLDER", help="binarised data with train and valid")
    add("--peers", default=",".join(RIVALS), help=f"some of {', '.join(RIVALS)} (default: all)")
    add("--threads", type=int, default=torch.get_num_threads(), help="of each system (default: torch's)")
    add("--autocast", choices=AUTOCAST, default="auto")
    add("--budget-seconds", type=float, default=300, help="training of every run not screened out (default: 300)")
    add("--cap-seconds", type=float, default=2400, help="training after which any run is over (default: 2400)")
    add("--finalists", type=int, default=0, help="best rates of a system that go on after screening (default: all)")
    add("--screen-seconds", type=float, help="training after which finalists are chosen (default: the budget)")
    add("--quick", action="store_true", help="tiny models on made-up data, one rate each: does it run?")
    add("--curves", type=Path, metavar="FILE.svg", help="draw losses by seconds; their numbers go beside it")
    args = parser.parse_args()
    args.peers = [name.strip() for name in args.peers.split(",")]
    if unknown := [name for name in args.peers if name not in RIVALS]:
        raise UserError(f"--peers {unknown[0]}: use some of {', '.join(RIVALS)}")
    if (args.data is None) != args.quick:
        raise UserError("give --data FOLDER, or --quick, which makes up its own")
    if args.quick:
        args.budget_seconds, args.cap_seconds = min(args.budget_seconds, 1), min(args.cap_seconds, 2)
    logging.disable(logging.WARNING)  # fairseq's and hydra's
    with tempfile.TemporaryDirectory() as folder, Recorder("time_to_loss", args.json) as recorder:
        if args.quick:
            write_data(Path(folder), 300, 2000, ("train", "valid"))
        failed = measure(args, args.data or Path(folder), recorder)
    if failed:
        raise UserError("; ".join(failed))


if __name__ == "__main__":
    run_cli(main)
