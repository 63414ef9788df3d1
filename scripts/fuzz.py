#!/usr/bin/env python3
"""Try damaged and odd input on every reader, to find where something else than one line comes of it.

python scripts/fuzz.py --minutes 10
python scripts/fuzz.py --door 'corpus: train.idx' --trial 1234     # one trial again, with its traceback
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from hmtl_plugin.commands.run import run_cli, set_up_process

set_up_process(threads=True)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for tests/fuzzing

from hmtl_plugin.errors import UserError  # noqa: E402
from tests.fuzzing.doors import DOORS  # noqa: E402
from tests.fuzzing.engine import Fault, run  # noqa: E402


def main() -> None:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--minutes", type=float, default=10, metavar="N", help="for all doors together (10)")
    p.add_argument("--seed", type=int, default=1, metavar="N", help="another one tries other damage (1)")
    p.add_argument("--door", metavar="NAME", help="this one alone")
    p.add_argument("--trial", type=int, metavar="N", help="this trial alone")
    args = p.parse_args()
    doors = [door for door in DOORS if args.door in (None, door.name)]
    if not doors:
        raise UserError(f"--door {args.door}: use one of {', '.join(door.name for door in DOORS)}")
    seconds = 60 * args.minutes / sum(door.weight for door in doors)
    faults: list[Fault] = []
    with tempfile.TemporaryDirectory() as place:
        for number, door in enumerate(doors):
            trials = range(1_000_000) if args.trial is None else [args.trial]
            end = time.monotonic() + seconds * door.weight
            found, tried = run(door, Path(place) / str(number), args.seed, trials, lambda: time.monotonic() > end)  # noqa: B023
            print(f"{door.name}: {tried} tried, {len(found)} faults", flush=True)
            for fault in found:
                print(f"\n== {fault.door}, trial {fault.trial}\n{fault.what}", flush=True)
            faults += found
    if faults:
        raise UserError(f"{len(faults)} faults: each is shown above; --door NAME --trial N repeats one")


if __name__ == "__main__":
    run_cli(main)
