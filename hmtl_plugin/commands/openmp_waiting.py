"""How many threads OpenMP has and how they wait, chosen by what else the machine does, before torch is imported.

At the end of every parallel loop torch's threads spin until the last of them is there. That is the fastest way while
each has a core of its own. Where another process needs one of the cores, a thread that spins there keeps the late one
from running, and training slows down several times over. On a busy machine threads therefore sleep while they wait,
and there are only as many as find a free core (but half of the cores at least: others share, too). Every loop ends
with its slowest thread, so one that shares its core halves the speed of all. benchmarks/busy.py measures it.

    eval "$(python scripts/openmp_waiting.py)"    # in a shell, before fairseq-train

    commands.run.set_up_process(threads=True)     # in a command, before anything that imports torch

The machine is looked at once, and what is chosen holds for this process and all that it starts. The order of sums, and
so their last bits, depends on the number of threads: a training that is resumed takes back the number that it was begun
with (hmtl_plugin/fairseq_hooks/resuming.py). A number in ``OMP_NUM_THREADS`` stays. Nothing is chosen

- where the user has: one of `USERS` is set, or ``OMP_NUM_THREADS=1``, which leaves nobody to wait for;
- where a parent has: it leaves `CHOSEN` in the environment. Set it yourself (to anything) to keep everything as it is.

What is seen is the share of time that the processors which this process may use were not idle, from /proc/stat: in a
container that is everything that runs on the host's processors, inside and outside; a limit on processor time
(``docker run --cpus``) is not seen. Systems without that file have the load average, of which whole processes count, as
it remembers a minute. Needs nothing but Python: it runs before the package is imported, which imports torch.
"""

import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path

BUSY = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Set where some thread would find no free core, beside the number of threads."""
IDLE: dict[str, str] = {}
"""Set where each thread has one; nothing: libgomp's own 300,000 turns."""
TOLERANCE = 0.25
"""Cores: so much may be missing before threads sleep. An idle machine shows a few hundredths."""
LOOKS = (0.1, 0.2)
"""Seconds: who looks busy is looked at again, for longer, so that what ends in a moment does not decide for hours."""

USERS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
THREADS, CHOSEN = "OMP_NUM_THREADS", "HMTL_WAITING"
FEWER = "busy, fewer threads"
"""Value of `CHOSEN` where the number of threads was chosen here; else it is ``busy`` or ``idle``."""
STAT = Path("/proc/stat")
_IDLE, _IOWAIT, _ALL = 3, 4, 8  # columns of a processor in /proc/stat; those after steal are contained in others


def processors() -> set[int]:
    """The numbers of those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def busy_cores(seconds: float, stat: Path = STAT, used: set[int] | None = None) -> float:
    """How many of the processors ``used`` are busy, on average over the next ``seconds``.

    This process sleeps meanwhile, so that others are what is seen. 0 where the system tells nothing.

    Args:
        seconds: to look for.
        stat: where the kernel keeps count of processors.
        used: numbers of processors; default: all that this process may use.
    """
    used = processors() if used is None else used
    before = _times(stat)
    time.sleep(seconds)
    after = _times(stat)
    shares = []
    for number in used & before.keys() & after.keys():
        idle, total = (new - old for new, old in zip(after[number], before[number], strict=True))
        if total > 0:
            shares.append(1 - min(max(idle / total, 0), 1))  # the kernel's count of waiting for disks may go back
    return sum(shares) if shares else float(_processes())


def _times(stat: Path) -> dict[int, tuple[int, int]]:
    """Processor -> ticks that it was idle, ticks in all; empty without such a file."""
    try:
        lines = stat.read_text().splitlines()
    except OSError:  # macOS, or a container that hides it
        return {}
    times = {}
    for name, *columns in map(str.split, filter(None, lines)):
        if name.startswith("cpu") and name[3:].isdigit():
            ticks = [int(column) for column in columns[:_ALL]]
            times[int(name[3:])] = (ticks[_IDLE] + sum(ticks[_IOWAIT : _IOWAIT + 1]), sum(ticks))
    return times


def _processes() -> int:
    """That ran, on average over the last minute, rounded down; 0 where the system does not tell."""
    try:
        return int(os.getloadavg()[0])
    except (AttributeError, OSError):  # Windows; a container that hides it
        return 0


def settings(environ: Mapping[str, str], cores: int, look: Callable[[float], float]) -> tuple[dict[str, str], str]:
    """What to put into the environment, and a line that says why; both empty where there is nothing to choose.

    Args:
        environ: the environment.
        cores: processors that this process may use.
        look: how many of them are busy over so many seconds.
    """
    threads = _threads(environ, cores)
    if threads == 1 or CHOSEN in environ or any(name in environ for name in USERS):
        return {}, ""
    for seconds in LOOKS:
        busy = look(seconds)
        if threads - (cores - busy) <= TOLERANCE:
            return {**IDLE, CHOSEN: "idle"}, _line(f"each of {threads} threads has a core", IDLE) if IDLE else ""
    why = f"{busy:.1f} of {cores} cores are busy, and {threads} threads want one each"
    free = max(1, cores // 2, int(cores - busy + TOLERANCE))
    if environ.get(THREADS) or free >= threads:
        return {**BUSY, CHOSEN: "busy"}, _line(why, BUSY)
    chosen = {**BUSY, THREADS: str(free)}
    return {**chosen, CHOSEN: FEWER}, _line(why, chosen)


def _threads(environ: Mapping[str, str], cores: int) -> int:
    """That torch will start: ``OMP_NUM_THREADS`` (of a list the first), else one a core."""
    given = environ.get(THREADS, "").split(",")[0].strip()
    return int(given) if given.isdigit() and int(given) else cores


def _line(why: str, chosen: Mapping[str, str]) -> str:
    values = " ".join(f"{name}={value}" for name, value in chosen.items())
    return f"openmp: {why}: {values} (set {THREADS} or {USERS[0]} to choose yourself)"


def choose_waiting(environ: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """Choose, and put it into ``environ``; what was put there.

    A line on stderr says so, unless there is nothing in it but the mark for children. Does nothing once torch is
    imported: OpenMP has read its variables by then.
    """
    if "torch" in sys.modules:
        return {}
    chosen, line = settings(environ, len(processors()), busy_cores)
    environ.update(chosen)
    if line:
        print(line, file=sys.stderr)
    return chosen


def main() -> None:
    """Print what to put into a shell's environment."""
    if chosen := choose_waiting():
        print("export", *(f"{name}={shlex.quote(value)}" for name, value in chosen.items()))
