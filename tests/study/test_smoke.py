"""The smoke profile, as a user runs it: every stage once, and nothing twice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hmtl_plugin.reporting.study.collect import read_study
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "VIRTUAL_ENV": sys.prefix}


def _reproduce(*arguments: str | Path) -> str:
    command = ["bash", str(REPOSITORY / "recipes" / "reproduce.sh"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_smoke_profile_runs_every_stage_and_runs_nothing_twice(tmp_path: Path) -> None:
    study = tmp_path / "study"
    first = _reproduce("--profile", "smoke", "--out", study)
    report = read_study(study)
    assert report.done_stages == report.planned_stages
    stages = {stage for entry in report.plan for stage in entry["stages"]}
    assert stages == {"pretrain", "evaluate", "RTE", "SQuAD", "probe"}
    for name, seeds in (("flat", (1, 2)), ("hierarchy", (1, 2)), ("random", (1,))):
        assert next(row for row in report.rows if row.name == name).seeds == seeds
        for measure in ("mlm", "nsp", "rte", "squad_f1", "squad_em", "probing", "probe_sentence_length"):
            assert tuple(report.by_seed(name, measure)) == seeds, (name, measure)
    assert tuple(report.by_seed("hierarchy", "bigram_shift")) == (1, 2)
    assert report.by_seed("flat", "mlm") != report.by_seed("hierarchy", "mlm")
    assert report.by_seed("flat", "mlm")[1] < report.by_seed("random", "mlm")[1]  # it has learnt something
    assert not list((study / "runs").glob("*/RTE"))  # what is recorded is cleared away
    assert (study / "report" / "report.html").is_file()
    assert (study / "records.jsonl.gz").stat().st_size < 14e6 / 100
    before = {path.name: path.read_bytes() for path in (study / "records").iterdir()}
    again = _reproduce("--profile", "smoke", "--out", study)
    assert {path.name: path.read_bytes() for path in (study / "records").iterdir()} == before
    assert "[" in first and "[1/" not in again
