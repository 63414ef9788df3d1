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


@pytest.mark.parametrize(("rounds", "rows"), [(1, 1), (0, 0)])
def test_pairs_that_are_stopped_leave_whole_rounds(rounds: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import train_pairs

    def stopped(systems: dict, found: train_pairs.Found, args: Namespace) -> None:
        found.speeds = {name: [1.0] * rounds for name in systems if rounds}
        raise SystemExit(143)

    samples = SimpleNamespace(dataset=SimpleNamespace(mean_tokens=90.0))
    systems = {train_pairs.OURS: {"padded": len}, "BertForPreTraining": {"eager": len}}
    monkeypatch.setattr(train_pairs, "Samples", lambda *_: samples)
    monkeypatch.setattr(train_pairs, "build_systems", lambda *_: systems)
    monkeypatch.setattr(train_pairs, "take_turns", stopped)
    recorder = Recorder("train_pairs", None)
    with pytest.raises(SystemExit):
        train_pairs.measure(Namespace(device="cpu", precision="fp32"), "mini", 128, Path(), None, recorder)
    assert len(recorder.rows) == rows


@pytest.mark.slow
def test_parts_of_the_trainer(tmp_path: Path) -> None:
    rows = record_of(tmp_path, "trainer_parts", "--size", "tiny", "--updates", "3")["rows"]
    assert {"tiny: statistics", "tiny: forward and backward", "tiny: rest"} <= {row["what"] for row in rows}
