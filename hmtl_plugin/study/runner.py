"""Runs a plan: every stage that is not recorded, runs side by side in slots; failures stop nothing else and are listed."""

import contextlib
import queue
import shutil
import statistics
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.run_lock import hold_save_dir
from hmtl_plugin.study.plan import PRETRAIN, Run, Stage
from hmtl_plugin.study.records import STAGE, Records
from hmtl_plugin.study.slots import Slot
from hmtl_plugin.study.stages import Context, Stopped, clean, execute

_UNTRAINED = "random weights"


@dataclass(frozen=True)
class Failure:
    """A stage that failed. Those that need it are left undone."""

    run: Run
    stage: str
    reason: str

    def __str__(self) -> str:
        return f"{self.run.name} {self.stage}: {self.reason}"


@dataclass
class Outcome:
    """How it ended.

    Attributes:
        out_of_time: runs that were not begun for want of time.
    """

    failures: list[Failure] = field(default_factory=list)
    out_of_time: list[Run] = field(default_factory=list)


class Runner:
    """See the module's text.

    Args:
        time_limit: seconds after which no run is begun that would not end by then (judged by those before it); None: no
            limit.
    """

    def __init__(
        self, context: Context, records: Records, slots: Sequence[Slot], time_limit: float | None = None
    ) -> None:
        self.context, self.records, self.slots = context, records, slots
        self.deadline = None if time_limit is None else time.monotonic() + time_limit
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.outcome = Outcome()
        self.seconds: dict[str, list[float]] = {}
        for group in records.groups.values():
            closing = group[-1]
            self._note(_kind(closing["stage"], closing.get("hierarchy") != ""), closing["seconds"])

    def run(self, plan: Sequence[Run]) -> Outcome:
        """Do all that is open. Ctrl-C or a termination signal ends the commands that run and is raised again."""
        waiting: queue.SimpleQueue[Run] = queue.SimpleQueue()
        self.plan, self.open = plan, {run.name: self._open(run) for run in plan}
        for run in plan:
            if self.open[run.name]:
                waiting.put(run)
        self.total = sum(len(run.stages) for run in plan)
        done = self.total - sum(map(len, self.open.values()))
        with tqdm(total=self.total, initial=done, unit="stage", disable=None) as self.bar:
            workers = [threading.Thread(target=self._work, args=(slot, waiting)) for slot in self.slots]
            for worker in workers:
                worker.start()
            try:
                for worker in workers:
                    while worker.is_alive():
                        worker.join(0.5)  # in short steps, so that signals are heard
            finally:
                self.stop.set()
                for worker in workers:
                    worker.join()
        return self.outcome

    def _open(self, run: Run) -> list[Stage]:
        """Stages to do: those not recorded, and pre-training again if they need a model that is gone."""
        missing = [stage for stage in run.stages if stage.fingerprint not in self.records]
        if missing and missing[0].name != PRETRAIN and not self.context.has_model(run):
            missing.insert(0, run.stages[0])
        return missing

    def _work(self, slot: Slot, waiting: "queue.SimpleQueue[Run]") -> None:
        while not self.stop.is_set():
            try:
                run = waiting.get_nowait()
            except queue.Empty:
                return
            if self.deadline is not None and time.monotonic() + (self._estimate([run]) or 0) > self.deadline:
                self.outcome.out_of_time.append(run)
                continue
            try:
                with contextlib.suppress(Stopped):
                    self._do(run, slot)
            except Exception as error:  # one run's trouble is not the others'
                self._failed(run, "run", f"{type(error).__name__}: {error}")

    def _do(self, run: Run, slot: Slot) -> None:
        if not self._refreshed(run):
            return
        try:
            hold_save_dir(self.context.folder(run, ""))
        except UserError:
            self._failed(run, "run", "another process works on it: wait for it, and start again for what is left then")
            return
        for stage in self._refreshed(run):
            started = time.monotonic()
            try:
                lines, closing = execute(self.context, run, stage, slot, self.stop)
            except UserError as error:
                self._failed(run, stage.name, str(error))
                if stage.name == PRETRAIN:
                    return
                continue
            with self.lock:
                self.records.add(run.name, stage.fingerprint, lines, closing)
                self.open[run.name].remove(stage)
                self._note(_kind(stage.name, run.variant.trained), time.monotonic() - started)
                self._say(f"{run.name} {stage.name}{_brief(lines)}, {closing['seconds']:.0f} s")
            clean(self.context, run, stage)
        if not self.context.profile.keep_checkpoints and not self.open[run.name]:
            shutil.rmtree(self.context.folder(run, PRETRAIN), ignore_errors=True)

    def _refreshed(self, run: Run) -> list[Stage]:
        """Stages to do, those not counted that another process has recorded by now."""
        with self.lock:
            self.records.refresh(run.name)
            self.open[run.name] = self._open(run)
            return list(self.open[run.name])

    def _failed(self, run: Run, stage: str, reason: str) -> None:
        with self.lock:
            self.outcome.failures.append(Failure(run, stage, reason))
            self._say(f"failed: {self.outcome.failures[-1]}", 0)

    def _note(self, kind: str, seconds: float) -> None:
        self.seconds.setdefault(kind, []).append(seconds)

    def _estimate(self, runs: Iterable[Run]) -> float | None:
        """Seconds that the open stages of runs will take one after another; None while some kind of stage was never
        seen.
        """
        kinds = [_kind(stage.name, run.variant.trained) for run in runs for stage in self.open[run.name]]
        kinds = [kind for kind in kinds if kind != _UNTRAINED]
        if any(kind not in self.seconds for kind in kinds):
            return None
        return sum(statistics.fmean(self.seconds[kind]) for kind in kinds)

    def _say(self, text: str, advance: int = 1) -> None:
        self.bar.update(advance)
        seconds, count = self._estimate(self.plan), sum(map(len, self.open.values()))
        left = f"; about {_duration(seconds / len(self.slots))} left" if seconds and count else ""
        with _above(self.bar):
            print(f"[{self.total - count}/{self.total}] {text}{left}", flush=True)


def _kind(stage: str, trained: bool) -> str:
    """What takes about as long: a stage, but to write down random weights, a matter of seconds, is no pre-training."""
    return _UNTRAINED if stage == PRETRAIN and not trained else stage


def _brief(lines: Sequence[dict[str, object]]) -> str:
    """Scores, where a stage has few."""
    scores = [line["metrics"]["score"] for line in lines if "score" in line.get("metrics", {})]  # type: ignore[index, operator]
    return f" {statistics.fmean(scores):.1f}" if scores else ""


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{minutes} min"
        if minutes < 90
        else f"{minutes // 60} h {minutes % 60:02d} min"
    )


@contextlib.contextmanager
def _above(bar: "tqdm[None]") -> Iterator[None]:
    with bar.external_write_mode():
        yield


__all__ = ["STAGE", "Failure", "Outcome", "Runner"]
