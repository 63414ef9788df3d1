"""The benchmarks of training run, and say what they measured."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from own_process import Started, System, Turn
from record import Recorder
from synthetic import write_data
from targets import read_targets

from hmtl_plugin.errors import UserError
from hmtl_plugin.models import cpu
from hmtl_plugin.models.sequences import Packing

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def record_of(folder: Path, name: str, *options: str) -> dict:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *options, "--json", str(folder / "record.json")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((folder / "record.json").read_text())
    assert record["finished"] and record["benchmark"] == name
    return record


@pytest.mark.slow
def test_pairs_against_both_peers(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    options = "--sizes tiny --rounds 2 --steps 2 --peer-steps 2 --warm-up 1 --sentences 3000 --precision fp32".split()
    rows = record_of(tmp_path, "train_pairs", *options)["rows"]
    assert [row["peer_name"] for row in rows] == [
        None,
        "BertForPreTraining, eager",
        "BertForPreTraining that keeps memory too, eager",
        "fairseq masked_lm, fp32",
    ]
    assert all(len(row["measured"]) == 2 and row["ours"] > 0 for row in rows)
    assert all(len(row["peer_measured"]) == 2 for row in rows[1:])


class Written(Started):
    """A system, started where it is asked for, whose steps are written down."""

    def __init__(self, calls: list[str], name: str, error: BaseException | None = None) -> None:
        self.calls, self.name, self.error = calls, name, error
        self.closed = 0

    def start(self, device: str) -> "Written":
        return self

    def __call__(self, steps: int) -> Turn:
        self.calls.extend([self.name] * steps)
        if self.error:
            raise self.error
        return Turn(0.5, 10 * steps)

    def close(self) -> None:
        self.closed += 1


def turns(**options: int) -> Namespace:
    return Namespace(device="cpu", **({"warm_up": 1, "rounds": 2, "steps": 4, "peer_steps": 2} | options))


def test_turns_are_taken_and_compiled_systems_begin_last() -> None:
    import train_pairs

    called: list[str] = []
    found = train_pairs.Found()
    steps = {name: Written(called, name) for name in ("ours, compiled", "ours, padded", "peer, eager")}
    train_pairs.take_turns(steps, found, turns(), lambda: None)
    ours, peer, compiled = "ours, padded", "peer, eager", "ours, compiled"
    first = [ours] * 4 + [peer] * 3 + [compiled] * 4  # warm-up, the turn's first step, the turn
    assert called == first + [ours] * 3 + [peer] * 2 + [compiled] * 3
    assert found.speeds == {ours: [40.0, 40.0], peer: [20.0, 20.0], compiled: [40.0, 40.0]}


def test_a_system_that_fails_stops_no_other_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import train_pairs

    called: list[str] = []
    error = RuntimeError("no kernel\nfor that")
    systems = {
        "ours": {"padded": Written(called, "padded"), "packed": Written(called, "packed", error)},
        "BertForPreTraining": {"eager": Written(called, "eager")},
        "fairseq masked_lm": {"fp16": Written(called, "fp16", error)},
    }
    dataset = SimpleNamespace(mean_tokens=96.0)
    monkeypatch.setattr(train_pairs, "Samples", lambda *_: SimpleNamespace(dataset=dataset))
    monkeypatch.setattr(train_pairs, "systems_of", lambda *_: systems)
    recorder = Recorder("train_pairs", None)
    args = turns(rounds=3, precision="bf16")
    failed = train_pairs.measure(args, "mini", 128, Path(), recorder)
    why = "RuntimeError: no kernel"
    assert failed == [f"mini, 128, ours, packed: {why}", f"mini, 128, fairseq masked_lm, fp16: {why}"]
    what = "mini, pairs of at most 128 tokens, bf16"
    assert [(row.what, row.peer_name) for row in recorder.rows] == [
        (what, ""),
        (f"{what}, against BertForPreTraining", "BertForPreTraining, eager"),
    ]
    assert [len(row.ours) for row in recorder.rows] == [3, 3]
    assert recorder.rows[0].details["failed"] == "ours, packed; fairseq masked_lm, fp16"
    assert called.count("packed") == called.count("fp16") == 1
    assert all(system.closed for variants in systems.values() for system in variants.values())


def test_what_is_killed_leaves_all_that_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import train_pairs

    class Killed(BaseException):
        """No Python runs after it."""

    systems = {
        "ours": {"padded": Written([], "padded")},
        "BertForPreTraining": {"eager": Written([], "eager"), "compiled": Written([], "compiled", Killed())},
    }
    monkeypatch.setattr(train_pairs, "Samples", lambda *_: SimpleNamespace(dataset=SimpleNamespace(mean_tokens=96.0)))
    monkeypatch.setattr(train_pairs, "systems_of", lambda *_: systems)
    recorder = Recorder("train_pairs", tmp_path / "record.json")
    with pytest.raises(Killed):
        train_pairs.measure(turns(precision="bf16"), "mini", 128, Path(), recorder)
    rows = json.loads((tmp_path / "record.json").read_text())["rows"]
    assert [row["peer_name"] for row in rows] == [None, "BertForPreTraining, eager"]
    assert [row["repeats"] for row in rows] == [1, 1]


def counting(start: int) -> Callable[[], int]:
    """A step whose tokens tell how many came before, and in which process."""
    taken = [start]
    return lambda: taken.append(taken[-1] + 1) or taken[-1] + os.getpid() * 1000


def failing() -> Callable[[], int]:
    raise ValueError("no such size")


def failing_later() -> Callable[[], int]:
    calls = iter([3, 3])
    return lambda: next(calls) if calls.__length_hint__() else 1 // 0


def test_a_system_lives_in_its_own_process() -> None:
    with System(counting, (0,)).start("cpu") as one, System(counting, (5,)).start("cpu") as other:
        turns = [one(1).tokens, other(1).tokens, one(1).tokens]
    assert [tokens % 1000 for tokens in turns] == [1, 6, 2]
    processes = {tokens // 1000 for tokens in turns}
    assert len(processes) == 2 and os.getpid() not in processes
    assert turns[0] // 1000 == turns[2] // 1000


def test_a_system_that_cannot_be_made_says_why() -> None:
    with System(failing).start("cpu") as system, pytest.raises(UserError, match="ValueError: no such size"):
        system(1)
    with System(os._exit, (3,)).start("cpu") as system, pytest.raises(UserError, match="has ended"):
        system(1)


def test_a_system_that_fails_in_a_turn_says_why_and_answers_on() -> None:
    with System(failing_later).start("cpu") as system:
        assert system(1).tokens == 3
        assert system(1).tokens == 3
        for _ in range(2):
            with pytest.raises(UserError, match="ZeroDivisionError"):
                system(1)


def test_operators_are_summed_by_kind() -> None:
    pytest.importorskip("transformers")
    from step_profile import by_kind

    def event(key: str, microseconds: float, flops: int = 0) -> SimpleNamespace:
        return SimpleNamespace(key=key, self_cpu_time_total=microseconds, self_device_time_total=7.0, flops=flops)

    events = [
        event("aten::addmm", 3e6, 5),
        event("aten::mm", 1e6, 2),
        event("aten::mul_", 2e6, 9),
        event("aten::_log_softmax_backward_data", 1e6),
        event("aten::_softmax", 4e6),
        event("aten::_fused_adamw_", 5e6),
        event("aten::bernoulli_", 6e6),
        event("autograd::engine::evaluate_function: AddmmBackward0", 8e6),
    ]
    seconds, flops = by_kind(events, on_gpu=False)
    assert flops == 7
    assert seconds == {
        "matrix products": 4.0,
        "layer norm, GELU, dropout, sums": 2.0,
        "softmax over the vocabulary": 1.0,
        "attention": 4.0,
        "optimizer": 5.0,
        "everything else": 6.0,
    }
    assert by_kind(events[:2], on_gpu=True)[0] == {"matrix products": pytest.approx(14e-6)}


@pytest.mark.slow
def test_profile_of_a_step(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    rows = record_of(tmp_path, "step_profile", *"--sizes tiny --precisions fp32 --rounds 1 --rows 2".split())["rows"]
    assert sum(row["ours"] for row in rows if row["unit"] == "%") == pytest.approx(100)
    assert rows[-1]["peer_name"] == "one product of 2,048 x 2,048" and rows[-1]["ratio"] > 0


@pytest.mark.slow
def test_what_is_fast_is_the_same(tmp_path: Path) -> None:
    rows = record_of(tmp_path, "same_step", "--updates", "2")["rows"]
    assert len(rows) == 12 and all(row["met"] for row in rows)


@pytest.mark.parametrize(
    ("part", "owner", "name", "broken"),
    [
        # attends to what is no token
        ("gradient of a step, packed, fp32", Packing, "keep", lambda self: self.pad(self.sample_N).ge(0)),
        ("dropout of attention, packed, fp32", cpu, "dropout", lambda x, p, training: x),
    ],
)
@pytest.mark.slow
def test_what_is_not_the_same_is_noticed(
    part: str, owner: Any, name: str, broken: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import same_step

    write_data(tmp_path, same_step.VOCABULARY, 3000)
    monkeypatch.setattr(owner, name, broken)
    recorder = Recorder("same_step", None)
    same_step.measure(recorder, tmp_path, Namespace(device="cpu", compiled=False, updates=1))
    targets = read_targets()
    missed = [row.what for row in recorder.rows if not row.met(recorder.record.targets_of(row, targets))]
    assert any(what.startswith(part) for what in missed)


@pytest.mark.slow
def test_parts_of_the_trainer(tmp_path: Path) -> None:
    rows = record_of(tmp_path, "trainer_parts", "--size", "tiny", "--updates", "3")["rows"]
    assert {"tiny: statistics", "tiny: forward and backward", "tiny: rest"} <= {row["what"] for row in rows}
