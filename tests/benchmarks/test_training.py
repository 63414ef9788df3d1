"""The benchmarks of training run, and say what they measured."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_parts_of_the_trainer(tmp_path: Path) -> None:
    rows = record_of(tmp_path, "trainer_parts", "--size", "tiny", "--updates", "3")["rows"]
    assert {"tiny: statistics", "tiny: forward and backward", "tiny: rest"} <= {row["what"] for row in rows}
