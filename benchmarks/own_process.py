"""Processes of their own for what is measured, and systems that are timed in them.

What one system allocates, warms or sets, another would be spared. glibc hands what one frees to the next within a
process, so that there the memory that training with the plugin keeps (`host_memory`) would serve its peers as well. On
a GPU, which has no room for several processes' caches, systems share this one.
"""

import logging
import multiprocessing
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from turns import seconds_of

from hmtl_plugin.errors import UserError
from hmtl_plugin.fairseq_hooks.host_memory import keep_freed_memory

Step = Callable[[], int]
"""Trains once; tokens of the batch that are no padding. Of two methods that it may have, both called after a turn when the
clock has stopped, ``check`` raises if it trains no more, and ``measure`` gives a number."""


def reason(error: Exception) -> str:
    """An error in a line; its traceback goes to stderr."""
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


# ---- processes ----


class OwnProcess(AbstractContextManager["OwnProcess"]):
    """A process, started afresh, that calls functions for us, one after the other, and ends with us.

    Functions, arguments and results must be such as `pickle` knows.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,))
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Its number."""
        return int(self._process.pid or 0)

    def ask(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have it called; `answer` gives what comes of it."""
        with suppress(OSError):  # it has ended, which `answer` says
            self._connection.send((function, arguments))

    def answered(self) -> bool:
        """Would `answer` wait no more?"""
        return self._connection.poll()

    def answer(self) -> Any:
        """What the function asked for gave.

        Raises:
            UserError: with what it raised in a line, or that the process has ended.
        """
        try:
            result, failed = self._connection.recv()
        except (EOFError, OSError):
            raise UserError("the process of a system has ended: was there too little memory?") from None
        if failed:
            raise UserError(failed)
        return result

    def __exit__(self, *_: object) -> None:
        self._connection.close()  # it ends when nobody asks any more
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in a process of its own."""
    with OwnProcess() as process:
        process.ask(function, *arguments)
        return process.answer()


def _serve(connection: Connection) -> None:
    logging.disable(logging.WARNING)  # fairseq's and hydra's
    multiprocessing.set_start_method(None, force=True)  # its own processes, such as loaders, start as a user's do
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send((function(*arguments), ""))
        except Exception as error:
            connection.send((None, reason(error)))


# ---- systems that take turns ----


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
    """How a system is made: ``make(*arguments)`` gives its step.

    Attributes:
        keeps_memory: what it frees, for its next step, as training with the plugin does; its peers do not.
    """

    make: Callable[..., Step]
    arguments: tuple[Any, ...] = ()
    keeps_memory: bool = False

    def start(self, device: str) -> "Started":
        """Where it can be timed: on a CPU in a process of its own, on a GPU (``cuda``) in this one."""
        return Here(self.make(*self.arguments), device) if device == "cuda" else There(self)


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

    def __init__(self, step: Step, device: str = "cpu") -> None:
        self.step, self.device = step, device

    def __call__(self, steps: int) -> Turn:
        tokens: list[int] = []
        seconds = seconds_of(lambda: tokens.extend(self.step() for _ in range(steps)), self.device)
        if check := getattr(self.step, "check", None):
            check()
        measure = getattr(self.step, "measure", None)
        return Turn(seconds, sum(tokens), measure() if measure else None)

    def close(self) -> None:
        self.__dict__.pop("step", None)


class There(Started):
    """A step of a process of its own, which makes it when it is first asked for, and waits between turns."""

    def __init__(self, system: System) -> None:
        self.system, self.process = system, OwnProcess()

    def __call__(self, steps: int) -> Turn:
        self.process.ask(_turn, self.system, steps)
        turn: Turn = self.process.answer()
        return turn

    def close(self) -> None:
        self.process.__exit__()


_here: dict[str, Here] = {}  # of this process, once it has one


def _turn(system: System, steps: int) -> Turn:
    if not _here:
        if system.keeps_memory:
            keep_freed_memory()
        _here["system"] = Here(system.make(*system.arguments))
    return _here["system"](steps)
