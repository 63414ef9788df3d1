"""The cluster recipe with an ``sbatch`` that only notes what it is told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow
RECIPE = REPOSITORY / "recipes" / "study_slurm.sh"
SBATCH = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>"$NOTES/calls"
printf '%s\\n' "${HMTL_REPOSITORY:-}" >>"$NOTES/repository"
echo '17;cluster'
"""


def _run(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "VIRTUAL_ENV": sys.prefix, "NOTES": str(folder), **environment}
    return subprocess.run(["bash", str(RECIPE), *arguments], capture_output=True, text=True, env=env, check=False)


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text(SBATCH, encoding="utf-8")
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    return tmp_path


def test_an_array_task_for_each_run_then_the_report(cluster: Path) -> None:
    study = str(cluster / "study")
    done = _run(
        cluster, "--profile", "smoke", "--out", study, HMTL_GPUS="4", HMTL_SBATCH="--partition=gpu --time=1:00:00"
    )
    assert done.returncode == 0, done.stderr
    assert "5 runs submitted as job 17" in done.stdout
    array, report = (cluster / "calls").read_text(encoding="utf-8").splitlines()
    assert "--array=0-4" in array and "--gpus-per-node=4" in array and "--partition=gpu --time=1:00:00" in array
    assert array.endswith(f"--profile smoke --out {study}")
    assert "--dependency=afterany:17" in report and "study_report.py" in report and study in report
    assert (cluster / "repository").read_text(encoding="utf-8").splitlines()[0] == str(REPOSITORY)
    runs = next((cluster / "study" / "slurm").glob("runs-*.txt"))
    names = runs.read_text(encoding="utf-8").split()
    assert names == ["flat-seed1", "hierarchy-seed1", "flat-seed2", "hierarchy-seed2", "random-seed1"]
    # a task of the array takes the run of its number
    arguments = ("--profile", "smoke", "--out", study, "--list-open")
    task = _run(cluster, *arguments, SLURM_ARRAY_TASK_ID="3", HMTL_RUNS=str(runs), HMTL_GPUS="0")
    assert task.stdout.split() == ["hierarchy-seed2"], task.stderr


def test_a_task_finds_the_repository_from_slurm_s_copy_of_the_script(tmp_path: Path) -> None:
    """Slurm runs a copy in a folder of its own; the submission hands on where the repository is."""
    repository, spool = tmp_path / "repository", tmp_path / "spool" / "job17" / "slurm_script"
    (repository / "scripts").mkdir(parents=True)
    (repository / "scripts" / "setup.sh").write_text(
        "echo echo\n", encoding="utf-8"
    )  # its Python prints what it is told
    spool.parent.mkdir(parents=True)
    spool.write_bytes(RECIPE.read_bytes())
    runs = tmp_path / "runs.txt"
    runs.write_text("flat-seed1\nflat-seed2\n", encoding="utf-8")
    env = {"PATH": "/usr/bin:/bin", "HMTL_REPOSITORY": str(repository), "HMTL_RUNS": str(runs), "HMTL_GPUS": "2"}
    command = ["bash", str(spool), "--profile", "smoke"]
    done = subprocess.run(command, capture_output=True, text=True, env=env | {"SLURM_ARRAY_TASK_ID": "1"}, check=False)
    assert done.stdout.split() == [
        str(repository / "scripts" / "study.py"),
        *("--profile", "smoke", "--only", "flat-seed2", "--devices", "0+1"),
    ], done.stderr


def test_without_a_cluster_it_says_so(tmp_path: Path) -> None:
    env = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "VIRTUAL_ENV": sys.prefix, "HOME": str(tmp_path)}
    command = ["bash", str(RECIPE), "--profile", "smoke", "--out", str(tmp_path / "study")]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 1
    assert "no sbatch here" in done.stderr
