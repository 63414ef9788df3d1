"""Tries mutated input on every door, a place where the project reads what others wrote: it succeeds with a sane result,
or refuses in one line that names the file. Anything else is a fault, and so is taking long or much memory.
"""

import os
import resource
import shutil
import signal
import traceback
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hmtl_plugin.errors import UserError
from tests.fuzzing.mutations import Mutation

SECONDS = 20
MEGABYTES = 1500
"""A trial that takes more, or grows the process by more, is a fault."""


@dataclass(frozen=True)
class Door:
    """A reader.

    Attributes:
        make: writes valid input into a folder; returns the file that is mutated.
        read: reads it; raises `AssertionError` for a result that cannot be.
        mutations: what may happen to the file.
        weight: share of trials, by how long one takes.
    """

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], object]
    mutations: Sequence[Mutation]
    weight: float = 1.0


@dataclass(frozen=True)
class Fault:
    """What happened in a trial; ``python scripts/fuzz.py --door DOOR --trial NUMBER`` repeats it."""

    door: str
    trial: int
    what: str


def trial(door: Door, folder: Path, path: Path, valid: bytes, seed: int, number: int) -> Fault | None:
    """Mutate, read, restore; the fault if there is one."""
    random = np.random.default_rng([seed, zlib.crc32(door.name.encode()), number])
    mutation = door.mutations[int(random.integers(len(door.mutations)))]
    path.write_bytes(mutation(valid, random))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    try:
        door.read(path)
        what = ""
    except UserError as error:
        what = "" if _is_named(str(error), path, folder) else f"does not name the file: {error}"
    except OSError as error:  # a command makes one line of it if it names a file
        what = "" if error.filename else traceback.format_exc()
    except Exception:  # whatever a reader lets through is what is looked for
        what = traceback.format_exc()
    finally:
        signal.alarm(0)
        path.write_bytes(valid)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    what = what or (f"took {grown:.0f} MB" if grown > MEGABYTES else "")
    return Fault(door.name, number, what) if what else None


def _is_named(message: str, path: Path, folder: Path) -> bool:
    """A file in the door's folder, a result or an option; whether it is about an option's value cannot be told."""
    return path.suffix == ".option" or str(folder) in message or any(part in message for part in ("--", "a result ("))


def _too_long(number: int, frame: object) -> None:
    raise RuntimeError(f"took more than {SECONDS} s")


def run(
    door: Door, folder: Path, seed: int, trials: Sequence[int], stop: Callable[[], bool]
) -> tuple[list[Fault], int]:
    """The trials in a process of their own, which native code may end; faults and how many were tried."""
    folder.mkdir(parents=True)
    path = door.make(folder)
    valid = path.read_bytes()
    door.read(path)  # what is valid is read
    faults: list[Fault] = []
    begin = 0
    while begin < len(trials) and not stop():
        output, number_of = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(output)
            _in_child(door, folder, path, valid, seed, trials[begin:], stop, number_of)
        os.close(number_of)
        with os.fdopen(output, encoding="utf-8") as lines:
            said = lines.read().split("\0")[:-1]
        _, status = os.waitpid(child, 0)
        begin += len(said)
        faults += [Fault(door.name, trials[begin - len(said) + n], what) for n, what in enumerate(said) if what]
        if status and begin < len(trials):
            faults.append(Fault(door.name, trials[begin], f"ended the process with status {status}"))
            path.write_bytes(valid)
            begin += 1
        elif stop():
            break
    shutil.rmtree(folder)
    return faults, begin


def _in_child(
    door: Door,
    folder: Path,
    path: Path,
    valid: bytes,
    seed: int,
    trials: Sequence[int],
    stop: Callable[[], bool],
    said: int,
) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    try:
        for number in trials:
            if stop():
                break
            fault = trial(door, folder, path, valid, seed, number)
            os.write(said, (fault.what.replace("\0", "") if fault else "").encode(errors="replace") + b"\0")
        os._exit(0)
    finally:
        os._exit(1)
