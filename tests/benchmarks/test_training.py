"""The benchmarks of training run, and say what they measured."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
from record import Recorder

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
    options = "--sizes tiny --rounds 2 --steps 2 --warm-up 1 --sentences 3000 --precision fp32".split()
    rows = record_of(tmp_path, "train_pairs", *options)["rows"]
    assert [row["peer_name"] for row in rows] == [
        "BertForPreTraining, eager",
        "BertForPreTraining that keeps memory too, eager",
        "fairseq masked_lm, fp32",
    ]
    assert all(len(row["measured"]) == len(row["peer_measured"]) == 2 and row["ours"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("begun", "fastest"),
    [
        (("ours, padded", "BertForPreTraining, eager"), "BertForPreTraining, eager"),
        (("ours, padded", "BertForPreTraining, eager", "BertForPreTraining, compiled"), "BertForPreTraining, compiled"),
        (("ours, padded",), None),
    ],
)
def test_pairs_that_are_stopped_leave_what_they_have(
    begun: tuple[str, ...], fastest: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import train_pairs

    def stopped(systems: dict, found: train_pairs.Found, args: Namespace) -> None:
        found.speeds = {name: [1.0 + len(name)] for name in systems if name in begun}
        raise SystemExit(143)

    samples = SimpleNamespace(dataset=SimpleNamespace(mean_tokens=90.0))
    systems = {train_pairs.OURS: {"padded": len}, "BertForPreTraining": {"eager": len, "compiled": len}}
    monkeypatch.setattr(train_pairs, "Samples", lambda *_: samples)
    monkeypatch.setattr(train_pairs, "build_systems", lambda *_: systems)
    monkeypatch.setattr(train_pairs, "take_turns", stopped)
    recorder = Recorder("train_pairs", None)
    with pytest.raises(SystemExit):
        train_pairs.measure(Namespace(device="cpu", precision="fp32"), "mini", 128, Path(), None, recorder)
    assert [row.peer_name for row in recorder.rows] == ([fastest] if fastest else [])


def test_turns_are_taken_and_compiled_systems_begin_last() -> None:
    import train_pairs

    called: list[str] = []
    names = ("ours, compiled", "ours, padded", "peer, eager")
    found = train_pairs.Found()
    steps = {name: lambda name=name: called.append(name) or 10 for name in names}
    train_pairs.take_turns(steps, found, Namespace(device="cpu", warm_up=1, rounds=2, steps=4))
    order = ["ours, padded", "peer, eager", "ours, compiled"]
    assert called == [name for name in order for _ in range(1 + 1 + 2)] + [name for name in order for _ in range(1 + 2)]
    assert {name: len(speeds) for name, speeds in found.speeds.items()} == dict.fromkeys(order, 2)


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
def test_parts_of_the_trainer(tmp_path: Path) -> None:
    rows = record_of(tmp_path, "trainer_parts", "--size", "tiny", "--updates", "3")["rows"]
    assert {"tiny: statistics", "tiny: forward and backward", "tiny: rest"} <= {row["what"] for row in rows}
