"""Systems that train side by side until their held-out losses have fallen far enough, each on a clock of its own.

A clock runs while its system trains and stands still while it is measured or others train. Whoever has trained least
goes next, so that all have trained equally long at any moment, and a machine that changes its pace changes it for
all.
"""

import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import isfinite

import numpy as np
from own_process import Started, System

from hmtl_plugin.errors import UserError


@dataclass(eq=False)
class Run:
    """A system at one learning rate.

    Attributes:
        seconds, updates, losses: of each measurement: training time so far, updates so far, held-out loss in nats.
        failed: why it could not go on; empty if it could.
    """

    system: str
    rate: str
    seconds: list[float] = field(default_factory=list)
    updates: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    failed: str = ""

    @property
    def spent(self) -> float:
        """Seconds of training so far."""
        return self.seconds[-1] if self.seconds else 0.0

    def arrival(self, goal: float) -> float | None:
        """Seconds of training at the first measurement at or below ``goal``; None if there is none."""
        return next((s for s, loss in zip(self.seconds, self.losses, strict=True) if loss <= goal), None)

    def loss_after(self, seconds: float) -> float | None:
        """Held-out loss, in nats, on the line between two measurements; None if it has not trained for so long."""
        return float(np.interp(seconds, self.seconds, self.losses)) if self.seconds and self.spent >= seconds else None

    def add(self, seconds: float, updates: int, loss: float) -> None:
        """A turn more.

        Raises:
            UserError: if the loss is not finite: the learning rate is too high.
        """
        if not isfinite(loss):
            raise UserError(f"the held-out loss is not finite after {updates + (self.updates or [0])[-1]} updates")
        self.seconds.append(self.spent + seconds)
        self.updates.append((self.updates or [0])[-1] + updates)
        self.losses.append(loss)


@dataclass(frozen=True)
class Rules:
    """When a run is over.

    Attributes:
        goal: held-out loss to reach, in nats.
        budget: seconds of training that every run gets that is not screened out, unless ``cap`` is less.
        cap: seconds of training after which any run is over.
        factor: a peer is over once it has trained this many times as long as what it is compared with needed to arrive.
        rivals: system -> that which it is compared with; for systems that are not here there is no such limit.
        finalists: learning rates of a system, the best after ``screening`` seconds, that go on after it; 0: all.
        screening: seconds of training after which the finalists are known, ``budget`` at most; None: ``budget``.
        every: updates between measurements.

    Raises:
        UserError: if the screening is longer than the budget.
    """

    goal: float
    budget: float
    cap: float
    factor: float = 15.0
    rivals: Mapping[str, str] = field(default_factory=dict)
    finalists: int = 0
    screening: float | None = None
    every: int = 20

    def __post_init__(self) -> None:
        if self.screening is not None and self.screening > self.budget:
            raise UserError(
                f"--screen-seconds {self.screening:g} is more than the {self.budget:g} seconds that every run gets: "
                "lower it, or raise --budget-seconds (and --cap-seconds)"
            )


class Race:
    """All runs, and what they have reached."""

    def __init__(self, rules: Rules) -> None:
        self.rules, self.runs = rules, list[Run]()

    def of(self, system: str) -> list[Run]:
        """A system's runs, one a learning rate."""
        return [run for run in self.runs if run.system == system]

    def first(self, system: str) -> Run | None:
        """The run of a system that arrived first by its own clock; None if none has."""
        arrived = [run for run in self.of(system) if run.arrival(self.rules.goal) is not None]
        return min(arrived, key=lambda run: run.arrival(self.rules.goal) or 0.0, default=None)

    def arrival(self, system: str) -> float | None:
        """Seconds that the first run of a system needed; None if none has arrived."""
        run = self.first(system)
        return run.arrival(self.rules.goal) if run else None

    def best_after(self, system: str, seconds: float) -> Run | None:
        """The run of a system with the lowest loss after so many seconds; None if none has trained for so long."""
        trained = [run for run in self.of(system) if run.loss_after(seconds) is not None]
        return min(trained, key=lambda run: run.loss_after(seconds) or 0.0, default=None)

    def over(self, run: Run) -> bool:
        """Is there nothing more to learn from it?"""
        rules = self.rules
        if run.failed or run.spent >= rules.cap:
            return True
        if rules.finalists and run.spent >= self._screening and run not in self._finalists(run.system):
            return True
        if run.spent < rules.budget:
            return False
        own = self.arrival(run.system)
        if own is not None:  # it has arrived, or comes too late to be the first
            return run.spent >= own
        rival = self.arrival(rules.rivals[run.system]) if run.system in rules.rivals else None
        return rival is not None and run.spent >= rules.factor * rival

    def _finalists(self, system: str) -> list[Run]:
        """The best that have not failed; all of these until the last has been screened."""
        running = [run for run in self.of(system) if not run.failed]
        if any(run.spent < self._screening for run in running):
            return running
        return sorted(running, key=lambda run: run.loss_after(self._screening) or 0.0)[: self.rules.finalists]

    @property
    def _screening(self) -> float:
        return self.rules.budget if self.rules.screening is None else self.rules.screening

    def go(self, systems: Mapping[tuple[str, str], System], changed: Callable[[], None]) -> None:
        """Train all systems, by name and learning rate, until each run is over. One that fails stops no other.

        ``changed`` is called whenever a run has arrived or is over.
        """
        with ExitStack() as stack:
            started: dict[int, Started] = {}
            for (system, rate), made in systems.items():
                self.runs.append(Run(system, rate))
                started[len(self.runs) - 1] = stack.enter_context(made.start("cpu"))
            for number in started:
                self._turn(self.runs[number], started[number], 0)  # makes it, and measures it before it has learned
            while started:
                number = min(started, key=lambda number: self.runs[number].spent)
                run = self.runs[number]
                on_the_way = run.arrival(self.rules.goal) is None
                if not self.over(run):
                    self._turn(run, started[number], self.rules.every)
                arrived = on_the_way and run.arrival(self.rules.goal) is not None
                over = self.over(run)
                if over:
                    started.pop(number).close()  # others want its memory
                if over or arrived:
                    print(f"  {describe(run)}", flush=True)
                    changed()

    def _turn(self, run: Run, system: Started, updates: int) -> None:
        try:
            turn = system(updates)
            if turn.measured is None:
                raise ValueError("the system has no method that measures it")
            run.add(turn.seconds, updates, turn.measured)
        except Exception as error:
            traceback.print_exc()
            run.failed = f"{type(error).__name__}: {error}".splitlines()[0][:200]


def describe(run: Run) -> str:
    """A line for a terminal."""
    if run.failed:
        return f"{run.system}, {run.rate}: failed: {run.failed}"
    return f"{run.system}, {run.rate}: {run.losses[-1]:.3f} nats after {run.updates[-1]} updates, {run.spent:.0f} s"
