"""Systems to be timed, each where its users have it: on a CPU in a process of its own, on a GPU in this one.

glibc gives what one system has freed to the next within a process, so that there the memory that training with the plugin keeps
(`host_memory`) would serve its peers as well.
"""

import logging
import multiprocessing
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch

from hmtl_plugin.errors import UserError
from hmtl_plugin.fairseq_hooks.host_memory import keep_freed_memory

Step = Callable[[], int]
"""Trains once; tokens of the batch that are no padding. Of two methods that it may have, both called after a turn when the
clock has stopped, ``check`` raises if it trains no more, and ``measure`` gives a number."""


class Turn(NamedTuple):
    """Some steps one after the other.

    Attributes:
        measured: what the step's ``measure`` gave afterwards, which is no part of the seconds; None if it has none.
    """

    seconds: float
    tokens: int
    measured: float | None = None


@dataclass(frozen=True)
class System:
    """How a system is made: ``make(*arguments)`` gives its step; `pickle` must know them all.

    Attributes:
        keeps_memory: what it frees, for its next step, as training with the plugin does; its peers do not.
    """

    make: Callable[..., Step]
    arguments: tuple[Any, ...] = ()
    keeps_memory: bool = False

    def start(self, device: str) -> "Started":
        """Where it can be timed on ``device``."""
        return Here(self.make(*self.arguments)) if device == "cuda" else OwnProcess(self)


class Started(AbstractContextManager["Started"], ABC):
    """A system that can be timed."""

    @abstractmethod
    def __call__(self, steps: int) -> Turn:
        """Take a turn of so many steps."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back; a second time nothing happens."""

    def __exit__(self, *_: object) -> None:
        self.close()


class Here(Started):
    """A step of this process."""

    def __init__(self, step: Step) -> None:
        self.step = step

    def __call__(self, steps: int) -> Turn:
        on_gpu = torch.cuda.is_available()
        if on_gpu:
            torch.cuda.synchronize()
        begin = time.perf_counter()
        tokens = sum(self.step() for _ in range(steps))
        if on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
        if check := getattr(self.step, "check", None):
            check()
        measure = getattr(self.step, "measure", None)
        return Turn(seconds, tokens, measure() if measure else None)

    def close(self) -> None:
        self.__dict__.pop("step", None)


class OwnProcess(Started):
    """A step of a process that is started for it, makes it when it is first asked for, and waits between turns."""

    def __init__(self, system: System) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(system, theirs))
        self._process.start()
        theirs.close()

    def __call__(self, steps: int) -> Turn:
        try:
            self._connection.send(steps)
            answer: Turn | str = self._connection.recv()
        except (EOFError, OSError):
            raise UserError("the process of a system has ended: was there too little memory?") from None
        if isinstance(answer, str):
            raise UserError(answer)
        return answer

    def close(self) -> None:
        self._connection.close()  # it ends when nobody asks any more
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


def _serve(system: System, connection: Connection) -> None:
    """Take turns until the other side closes; what goes wrong is the answer to the turn asked for."""
    logging.disable(logging.WARNING)  # fairseq's and hydra's
    turn: Here | None = None
    while True:
        try:
            steps = connection.recv()
        except EOFError:
            return
        try:
            turn = turn or _made(system)
            connection.send(turn(steps))
        except Exception as error:
            traceback.print_exc()
            connection.send(f"{type(error).__name__}: {error}")


def _made(system: System) -> Here:
    if system.keeps_memory:
        keep_freed_memory()
    return Here(system.make(*system.arguments))
