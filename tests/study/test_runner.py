"""The runner: what fails stops nothing else, what is recorded is not done again, what cannot end in time is not begun."""

import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.study import runner
from hmtl_plugin.study.plan import Run, Stage, make_plan
from hmtl_plugin.study.profile import Block, Profile
from hmtl_plugin.study.records import Records
from hmtl_plugin.study.runner import Outcome, Runner
from hmtl_plugin.study.slots import Slot
from hmtl_plugin.study.stages import MARK, MODEL, Context, Stopped
from hmtl_plugin.study.variants import reference
from tests.study.studies import PREPARED, PROFILE, STAGES, VARIANTS, plan_of, tiny

CPU = Slot((), 1)


class Study:
    """A study whose stages are done by a function of these tests.

    Attributes:
        done: what was begun, as "flat-seed1 RTE", in order.
        troubles: what a stage raises, by the same name; a bare stage name holds for all runs.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, profile: Profile = PROFILE) -> None:
        self.context = Context(folder, folder / "data", profile)
        self.done: list[str] = []
        self.troubles: dict[str, Exception] = {}
        self.during: Callable[[str], object] = lambda name: None
        monkeypatch.setattr(runner, "execute", self.execute)

    def execute(
        self, context: Context, run: Run, stage: Stage, slot: Slot, stop: threading.Event
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """In place of the real one; a pre-training leaves a model."""
        name = f"{run.name} {stage.name}"
        self.done.append(name)
        self.during(name)
        trouble = self.troubles.get(name) or self.troubles.get(stage.name)
        if trouble:
            raise trouble
        folder = context.folder(run, stage.name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).write_text(stage.fingerprint)
        if stage.name == "pretrain":
            (folder / MODEL).touch()
        return [{"kind": "glue", "metrics": {"score": 50.0}}], {"stage": stage.name, "seconds": 2.0}

    def run(self, plan: Sequence[Run], slots: int = 1, time_limit: float | None = None) -> Outcome:
        """One start of the study."""
        self.done = []
        return Runner(self.context, Records(self.context.study), [CPU] * slots, time_limit).run(plan)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    return Study(tmp_path, monkeypatch)


def names(plan: Sequence[Run]) -> list[str]:
    return [f"{run.name} {stage.name}" for run in plan for stage in run.stages]


def test_all_stages_in_the_plans_order(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of()
    outcome = study.run(plan)
    assert study.done == names(plan) and not outcome.failures and not outcome.out_of_time
    records = Records(study.context.study)
    assert all(stage.fingerprint in records for run in plan for stage in run.stages)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[1/20] flat-seed1 pretrain 50.0, 2 s" and lines[-1].startswith("[20/20] lower-seed2 probe")


def test_a_recorded_stage_leaves_the_model_only(study: Study) -> None:
    (run, *_) = plan_of()
    study.run([run])
    folder = study.context.folder(run, "")
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["pretrain"]
    assert study.context.has_model(run)


def test_what_is_recorded_is_not_done_again(study: Study) -> None:
    plan = plan_of()
    study.run(plan)
    assert study.run(plan).failures == [] and study.done == []
    prepared = PREPARED | {"tasks_sha256": {"RTE": "other", "SQuAD": "s"}}
    study.run(plan_of(prepared=prepared))
    assert study.done == [f"{run.name} RTE" for run in plan]


def test_several_runs_side_by_side(study: Study) -> None:
    """Each in a slot; all are done, each once."""
    meeting = threading.Barrier(2, timeout=20)
    study.during = lambda name: meeting.wait() if name.endswith("pretrain") else None
    plan = plan_of()
    assert not study.run(plan, slots=2).failures  # a barrier that one alone came to would be broken
    assert sorted(study.done) == sorted(names(plan))


def test_a_task_that_fails_stops_nothing_else(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of()
    study.troubles = {"flat-seed1 RTE": UserError("no such label (log: x)")}
    outcome = study.run(plan)
    assert study.done == names(plan)
    assert [str(failure) for failure in outcome.failures] == ["flat-seed1 RTE: no such label (log: x)"]
    assert "failed: flat-seed1 RTE: no such label (log: x)" in capsys.readouterr().out
    study.troubles = {}
    assert not study.run(plan).failures and study.done == ["flat-seed1 RTE"]  # the same command tries it again


def test_a_pretraining_that_fails_leaves_its_later_stages(study: Study) -> None:
    plan = plan_of()
    study.troubles = {"lower-seed1 pretrain": UserError("diverged")}
    outcome = study.run(plan)
    assert study.done == [name for name in names(plan) if "lower-seed1" not in name or "pretrain" in name]
    assert [(f.run.name, f.stage) for f in outcome.failures] == [("lower-seed1", "pretrain")]
    study.troubles = {}
    study.run(plan)
    assert study.done == [f"lower-seed1 {stage}" for stage in STAGES]


@pytest.mark.parametrize("slots", [1, 2])
def test_an_unforeseen_error_ends_its_run_only(study: Study, slots: int) -> None:
    plan = plan_of()
    study.troubles = {"flat-seed1 evaluate": KeyError("what")}
    outcome = study.run(plan, slots)
    assert [str(failure) for failure in outcome.failures] == ["flat-seed1 run: KeyError: 'what'"]
    assert {"lower-seed1 probe", "flat-seed2 probe", "lower-seed2 probe"} <= set(study.done)
    assert "flat-seed1 RTE" not in study.done


def test_a_model_that_is_gone_is_trained_again_if_it_is_needed(study: Study) -> None:
    (run, *_) = plan_of()
    study.troubles = {"SQuAD": UserError("no")}
    study.run([run])
    (study.context.folder(run, "pretrain") / MODEL).unlink()
    study.troubles = {}
    study.run([run])
    assert study.done == ["flat-seed1 pretrain", "flat-seed1 SQuAD"]
    (study.context.folder(run, "pretrain") / MODEL).unlink()
    assert not study.run([run]).failures and study.done == []  # nothing needs it


def test_a_model_of_other_options_is_no_model(study: Study) -> None:
    (run, *_) = plan_of()
    study.troubles = {"SQuAD": UserError("no")}
    study.run([run])
    (study.context.folder(run, "pretrain") / MARK).write_text("another")
    study.troubles = {}
    study.run([run])
    assert study.done == ["flat-seed1 pretrain", "flat-seed1 SQuAD"]


def test_a_reference_needs_no_pretraining(study: Study, tmp_path: Path) -> None:
    (tmp_path / "bert.pt").touch()
    plan = make_plan(
        tiny(plan=[Block(["flat"], [1])]), VARIANTS, PREPARED, [reference("bert", str(tmp_path / "bert.pt"))]
    )
    study.run(plan[1:])
    assert study.done == ["bert-seed1 RTE", "bert-seed1 SQuAD", "bert-seed1 probe"]


@pytest.mark.parametrize("failing", [False, True])
def test_models_are_kept_as_the_profile_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: bool) -> None:
    """A model that a failed stage still needs is kept in any case."""
    study = Study(tmp_path, monkeypatch, tiny(keep_checkpoints=False))
    (run, *_) = plan_of()
    study.troubles = {"probe": UserError("no")} if failing else {}
    study.run([run])
    assert study.context.has_model(run) == failing


def test_no_time_is_no_run(study: Study) -> None:
    plan = plan_of()
    outcome = study.run(plan, slots=2, time_limit=0)
    assert study.done == [] and {run.name for run in outcome.out_of_time} == {run.name for run in plan}
    assert not outcome.failures


def test_a_run_that_would_not_end_in_time_is_not_begun(study: Study) -> None:
    """Judged by recorded seconds: five stages of two seconds. One with fewer open stages may still fit."""
    plan = plan_of()
    study.troubles = {"lower-seed1 probe": UserError("no")}
    study.run(plan[:2])
    study.troubles = {}
    outcome = study.run(plan, time_limit=5)
    assert study.done == ["lower-seed1 probe"]
    assert [run.name for run in outcome.out_of_time] == ["flat-seed2", "lower-seed2"]
    assert not study.run(plan, time_limit=60).out_of_time and len(study.done) == 10


def test_random_weights_are_no_measure_of_pre_training(study: Study) -> None:
    records = Records(study.context.study)
    for number, (hierarchy, seconds) in enumerate((("", 1.0), ("nsp@1,mlm@2", 99.0), ("nsp@2,mlm@2", 101.0))):
        closing = {"stage": "pretrain", "seconds": seconds, "hierarchy": hierarchy}
        records.add(f"run{number}", f"f{number}", [], closing)
    runner = Runner(study.context, Records(study.context.study), [CPU])
    run = next(run for run in plan_of() if run.variant.name == "flat")
    random = dataclasses.replace(run, variant=dataclasses.replace(run.variant, name="random", hierarchy=""))
    runner.open = {each.name: [stage for stage in each.stages if stage.name == "pretrain"] for each in (run, random)}
    assert runner._estimate([run]) == runner._estimate([run, random]) == 100.0


def test_a_stage_never_seen_does_not_keep_a_run_from_beginning(study: Study) -> None:
    assert not study.run(plan_of()[:1], time_limit=5).out_of_time and len(study.done) == 5


@pytest.fixture
def other_process(study: Study) -> Iterator[Callable[[Run], subprocess.Popen[bytes]]]:
    """``other_process(run)`` holds a run as another runner does."""
    holders = []

    def hold(run: Run) -> "subprocess.Popen[bytes]":
        folder = study.context.folder(run, "")
        folder.mkdir(parents=True, exist_ok=True)
        code = f"import fcntl, sys; f = open({str(folder / '.lock')!r}, 'a+'); fcntl.lockf(f, fcntl.LOCK_EX); print(); "
        code += "sys.stdout.flush(); sys.stdin.read()"
        holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert holder.stdout is not None and holder.stdout.readline() == b"\n"
        holders.append(holder)
        return holder

    yield hold
    for holder in holders:
        holder.communicate()


def test_a_run_that_another_process_works_on_is_left_to_it(study: Study, other_process: Any) -> None:
    plan = plan_of()
    holder = other_process(plan[0])
    outcome = study.run(plan)
    assert [(f.run.name, f.stage) for f in outcome.failures] == [("flat-seed1", "run")]
    assert "another process works on it" in outcome.failures[0].reason
    assert study.done == names(plan[1:])
    holder.communicate()
    assert not study.run(plan).failures and study.done == names(plan[:1])


def test_what_another_process_did_meanwhile_is_not_done_again(study: Study) -> None:
    """Two runners of one study begin with the same open stages; one has done a run when the other comes to it."""
    plan = plan_of()[:2]
    records, other = Records(study.context.study), Records(study.context.study)
    second = Runner(study.context, records, [CPU])

    def meanwhile(name: str) -> None:
        if name == "flat-seed1 pretrain":
            for stage in plan[1].stages[1:]:
                other.add(plan[1].name, stage.fingerprint, [], {"stage": stage.name, "seconds": 1.0})

    study.during = meanwhile
    assert not second.run(plan).failures
    assert study.done == [*names(plan[:1]), "lower-seed1 pretrain"]


def test_an_interrupt_ends_what_runs_and_begins_nothing(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of()

    def interrupted(context: Context, run: Run, stage: Stage, slot: Slot, stop: threading.Event) -> Any:
        study.done.append(f"{run.name} {stage.name}")
        begun.set()
        assert stop.wait(20)
        raise Stopped

    def join(thread: threading.Thread, timeout: float | None = None) -> None:
        if timeout is not None:
            assert begun.wait(20)
            monkeypatch.undo()
            raise KeyboardInterrupt
        original(thread, timeout)

    begun, original = threading.Event(), threading.Thread.join
    monkeypatch.setattr(runner, "execute", interrupted)
    started = Runner(study.context, Records(study.context.study), [CPU])
    monkeypatch.setattr(threading.Thread, "join", join)
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        started.run(plan)
    assert study.done == ["flat-seed1 pretrain"] and time.monotonic() - before < 10
    assert not started.outcome.failures and not Records(study.context.study).groups
