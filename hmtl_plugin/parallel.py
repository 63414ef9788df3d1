"""Ordered work over several processes, bounded in memory, that dies with its parent."""

import ctypes
import gc
import multiprocessing
import os
import re
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from hmtl_plugin.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")
_AHEAD = 3  # tasks under way for each worker
_OPENMP = re.compile(r"/\S*lib(?:g|i)?omp\S*\.so\S*$", re.MULTILINE)
_HARD = 2  # omp_pause_hard


def cpu_count() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _context() -> Any:
    # A forked worker shares what is imported and loaded; a spawned one would import fairseq and torch first,
    # 3 s each.
    return multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")


def _start_worker(parent: int, initialise: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    gc.freeze()  # else collections would touch, and so copy, all that the parent has imported

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    initialise(*arguments)


class WorkerPool:
    """Worker processes that were set up by ``initialise(*arguments)``; one worker means: in this process.

    Args:
        workers: number of processes, at least 1.
        initialise: called once in each worker; with fork its arguments are not copied.
    """

    def __init__(self, workers: int, initialise: Callable[..., None], arguments: tuple[Any, ...] = ()) -> None:
        self.workers = workers
        self._executor: ProcessPoolExecutor | None = None
        if workers > 1:
            self._executor = ProcessPoolExecutor(
                workers, _context(), _start_worker, (os.getpid(), initialise, arguments)
            )
        else:
            initialise(*arguments)

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Results in the order of the tasks; only a few tasks are taken ahead, so neither side piles up."""
        if self._executor is None:
            yield from map(function, tasks)
            return
        pending: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                with warnings.catch_warnings():  # Python 3.12 warns of fork beside threads; ours hold no locks
                    warnings.simplefilter("ignore", DeprecationWarning)
                    pending.append(self._executor.submit(function, task))
                if len(pending) >= self.workers * _AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process died, most likely for want of memory; use fewer --workers or free some"
            ) from error


def _nothing() -> None:
    pass


def _end_openmp_threads() -> None:
    """End the threads that OpenMP keeps for this one, of torch and of all others; they are made anew when needed. A
    fork does not have them, takes them for there, and waits for them for ever once it computes in parallel.
    """
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for library in sorted(set(_OPENMP.findall(maps))):
        pause = getattr(ctypes.CDLL(library), "omp_pause_resource_all", None)  # OpenMP 5.0
        if pause is not None:
            pause(_HARD)


def run_in_child(function: Callable[..., Result], *arguments: Any, tick: Callable[[], None] | None = None) -> Result:
    """Run a long call of a C++ library in a child: its memory comes back, Ctrl-C works, `tick` is called
    twice a second.
    """
    _end_openmp_threads()
    with ProcessPoolExecutor(1, _context(), _start_worker, (os.getpid(), _nothing, ())) as executor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            future = executor.submit(function, *arguments)
        while True:
            try:
                return future.result(timeout=0.5)
            except TimeoutError:
                if future.done():
                    raise
                if tick:
                    tick()
            except BrokenProcessPool as error:
                raise UserError(
                    "a worker process died, most likely for want of memory; use less text or free some"
                ) from error
