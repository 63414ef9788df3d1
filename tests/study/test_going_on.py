"""A small study on made-up tasks that is killed, carried elsewhere, or fails: the same command goes on.

In a file of its own, so that it runs beside the smoke profile's test.
"""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hmtl_plugin.reporting.study.collect import read_study
from hmtl_plugin.study.stages import PROCESS
from hmtl_plugin.study.toy import write_toy_data
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow
PROFILE = """
why = "killed and not killed"
jobs = 1
[[plan]]
variants = ["flat"]
seeds = [1]
[text]
vocab_size = 800
[pretraining]
updates = 60
warmup = 5
curve_points = 6
valid_samples = 40
[pretraining.options]
arch = "hmtl_bert_tiny"
encoder-embed-dim = 32
encoder-layers = 3
encoder-attention-heads = 2
tokens-per-sample = 64
max-positions = 96
max-tokens = 512
lr = "2e-3"
[[finetuning]]
task = "RTE"
tokens = 96
train_rows = 64
valid_rows = 60
grid = ["lr=1e-3", "epochs=1", "batch-size=32"]
[probing]
rows = [120, 40, 40]
"""


@pytest.fixture(scope="module")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up tasks."""
    return write_toy_data(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, toy_data: Path) -> Path:
    """A study that ran to its end, beside its profile. Not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.toml").write_text(PROFILE, encoding="utf-8")
    _finish(folder / "study", toy_data, folder / "tiny.toml")
    return folder


def _start(study: Path, data: Path, profile: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, str(REPOSITORY / "scripts" / "study.py"), "--profile", str(profile), "--data", str(data)]
    return subprocess.Popen(
        [*command, "--out", str(study), "--devices", "cpu"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _finish(study: Path, data: Path, profile: Path) -> str:
    process = _start(study, data, profile)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def _wait_for(path: Path, pattern: str, process: "subprocess.Popen[str]") -> None:
    while not (path.is_file() and re.search(pattern, path.read_text(encoding="utf-8", errors="replace"))):
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.05)


def test_killed_study_gives_the_report_of_one_that_was_not(tmp_path: Path, toy_data: Path, whole: Path) -> None:
    """Killed outright in the middle of pre-training, so that its commands are orphans; told to stop in fine-tuning."""
    profile, killed = whole / "tiny.toml", tmp_path / "killed"
    process = _start(killed, toy_data, profile)
    pretraining = killed / "runs" / "flat-seed1" / "pretrain"
    log = pretraining / "log.txt"
    _wait_for(log, r"Saved checkpoint [^\n]*", process)
    group = json.loads((pretraining / PROCESS).read_text(encoding="utf-8"))["group"]
    os.killpg(group, signal.SIGSTOP)  # else the orphan may be done before the study is there again
    process.kill()
    process.wait()
    assert not re.search(r'"num_updates": "60"', log.read_text(encoding="utf-8"))
    process = _start(killed, toy_data, profile)
    _wait_for(log, r"Loaded checkpoint [^\n]*", process)
    _wait_for(killed / "runs" / "flat-seed1" / "RTE" / "log.txt", "", process)
    process.send_signal(signal.SIGTERM)
    process.wait()
    assert not _running(killed)
    _finish(killed, toy_data, profile)
    assert _running(killed) == []
    expected, resumed = read_study(whole / "study"), read_study(killed)
    assert resumed.values == expected.values
    assert resumed.curves == expected.curves


def _running(study: Path) -> list[str]:
    """Processes that have the study's folder in their command line."""
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in found if str(study) in line and "pytest" not in line]


def test_study_goes_on_from_records_alone(tmp_path: Path, toy_data: Path, whole: Path) -> None:
    """Carried to another machine: the model that a missing stage needs is made again, and is the same."""
    profile = tmp_path / "tiny.toml"
    profile.write_text(PROFILE, encoding="utf-8")
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "records.jsonl.gz").write_bytes((whole / "study" / "records.jsonl.gz").read_bytes())
    output = _finish(tmp_path / "second", toy_data, profile)
    assert "[1/" not in output and "note:" not in output  # nothing is left to do, by the same code
    packed = tmp_path / "second" / "records.jsonl.gz"
    lines = [
        json.loads(line) | {"commit": "0123456789ab"} for line in gzip.decompress(packed.read_bytes()).splitlines()
    ]
    packed.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    profile.write_text(profile.read_text(encoding="utf-8").replace("lr=1e-3", "lr=2e-3"), encoding="utf-8")
    output = _finish(tmp_path / "second", toy_data, profile)
    assert "note: what is recorded was made at commit 0123456789ab, this is " in output
    ran = re.findall(r"flat-seed1 (\w+)", output)
    assert ran == ["pretrain", "RTE"]
    first, second = read_study(whole / "study"), read_study(tmp_path / "second")
    assert second.by_seed("flat", "mlm") == first.by_seed("flat", "mlm")
    assert (tmp_path / "second" / "records.jsonl.gz").is_file()


def test_a_failing_stage_stops_nothing_else_and_is_listed(tmp_path: Path, toy_data: Path) -> None:
    profile = tmp_path / "tiny.toml"
    text = PROFILE.replace("= 60\nwarmup", "= 4\nwarmup").replace("curve_points = 6", "curve_points = 1")
    profile.write_text(
        text.replace("tokens = 96", "tokens = 97"), encoding="utf-8"
    )  # more than the encoder's positions
    process = _start(tmp_path / "study", toy_data, profile)
    output, _ = process.communicate()
    assert process.returncode == 1
    assert "flat-seed1 probe" in output
    last = output.strip().splitlines()[-1]
    assert last.startswith("error: 1 failed")
    assert "flat-seed1 RTE: --tokens-per-sample 97 is more than the 96 positions" in last
