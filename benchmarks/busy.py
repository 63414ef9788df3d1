#!/usr/bin/env python3
"""Time of a short training on an idle machine and beside a process that fills a core, by how many threads OpenMP has
and how they wait.

    env -u OMP_NUM_THREADS python benchmarks/busy.py data/quickstart/corpus [--setting GOMP_SPINCOUNT=3000] [--json FILE]

The command is that of the quick start, from its start to its end. "ours" asks scripts/openmp_waiting.py first, as
recipes do; what that takes is in its time. "default" has none of OpenMP's variables for waiting, and each --setting has
its own. All take turns, and all are compared with the default on an idle machine, so nothing else may run.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from machine import REPOSITORY
from record import Recorder, Row, command_line
from systems import PLUGIN
from turns import Seconds, interleaved, timed

from hmtl_plugin.commands.run import run_cli
from hmtl_plugin.errors import UserError
from hmtl_plugin.recipe.arguments import recipe_arguments
from hmtl_plugin.recipe.table import read_table

HIERARCHY = ("--hierarchy", "bigram_shift@2*2,nsp@3*0.25,mlm@4", "--transfer", "nsp>mlm:concat")
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "HMTL_WAITING")
DEFAULT, OURS, BESIDE = "default", "ours", ", beside"
_CHOOSE = f'eval "$("{sys.executable}" "{REPOSITORY / "scripts" / "openmp_waiting.py"}")"; exec "$@"'
_FILL = "import os; parent = os.getppid(); print(flush=True)\nwhile os.getppid() == parent:\n    sum(range(100_000))"


def training(data: Path, updates: int, folder: Path) -> list[str]:
    """The command; it saves nothing."""
    own = [*HIERARCHY, "--cpu", "--num-workers", "0", "--disable-validation", "--max-update", str(updates), "--no-save"]
    options = recipe_arguments("quickstart", folder, own, read_table()).arguments
    places = ["--user-dir", PLUGIN, "--task", "hmtl_pretraining", "--criterion", "hmtl"]
    logs = ["--save-dir", str(folder), "--log-format", "simple", "--log-interval", "50"]
    return [sys.executable, "-m", "fairseq_cli.train", str(data), *places, *logs, *options]


def systems_of(command: Sequence[str], settings: Sequence[str]) -> dict[str, list[str]]:
    """The command by name: without a choice, with ours, with each of the settings."""
    clean = ["env", *(word for name in VARIABLES for word in ("-u", name))]
    systems = {DEFAULT: [*clean, *command], OURS: [*clean, "sh", "-c", _CHOOSE, "sh", *command]}
    return systems | {setting: [*clean, *setting.split(","), *command] for setting in settings}


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """So many that compute all the time, each on one core; they end with this process, too."""
    processes = [subprocess.Popen([sys.executable, "-c", _FILL], stdout=subprocess.PIPE) for _ in range(number)]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()  # it has begun
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def measure(systems: Mapping[str, Sequence[str]], busy: int, repeats: int) -> Seconds:
    """Seconds of each system, under ``NAME`` on an idle machine and ``NAME, beside`` beside ``busy`` processes."""

    def beside(command: Sequence[str]) -> float:
        with busy_processes(busy):
            return timed(command)

    runs: dict[str, Callable[[], float]] = {name: partial(timed, command) for name, command in systems.items()}
    runs |= {f"{name}{BESIDE}": partial(beside, command) for name, command in systems.items()}
    timed(systems[DEFAULT])  # files and caches are warm for all
    return interleaved(runs, repeats)


def rows(seconds: Seconds, updates: int, busy: int) -> list[Row]:
    """Two for each system, both beside the default's on an idle machine."""

    def row(where: str, name: str) -> Row:
        what = f"{updates} updates of the quick start, {where}, {name.removesuffix(BESIDE)}"
        return Row(what, "s", seconds[name], "lower", seconds[DEFAULT], f"{DEFAULT}, idle machine")

    where = f"beside {busy} busy process{'es' if busy != 1 else ''}"
    names = [name for name in seconds if not name.endswith(BESIDE)]
    both = [(row("idle machine", name), row(where, f"{name}{BESIDE}")) for name in names]
    return [each for pair in both for each in pair][1:]  # the first would be the default beside itself


def main() -> None:
    """Measure and print one line a row."""
    parser = command_line(__doc__)
    parser.add_argument("data", type=Path, help="a prepared corpus, such as the quick start's data/quickstart/corpus")
    parser.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE[,...]", help="may be repeated")
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--busy", type=int, default=1, metavar="N", help="processes beside, each filling a core")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if not (args.data / "train.idx").is_file():
        raise UserError(f"{args.data}: no train.idx in it: give a folder that scripts/prepare_corpus.py wrote")
    for setting in args.setting:
        if not all(part.partition("=")[0] and "=" in part for part in setting.split(",")):
            raise UserError(f"--setting {setting}: write NAME=VALUE, as in GOMP_SPINCOUNT=3000")
    with tempfile.TemporaryDirectory() as folder, Recorder("busy", args.json) as recorder:
        systems = systems_of(training(args.data.resolve(), args.updates, Path(folder)), args.setting)
        for row in rows(measure(systems, args.busy, args.repeats), args.updates, args.busy):
            recorder.add(row)


if __name__ == "__main__":
    run_cli(main)
