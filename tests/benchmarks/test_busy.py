"""The benchmark of waiting threads runs what it says, beside what it says."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import busy
import pytest
from targets import read_targets

from tests.benchmarks.test_training import record_of
from tests.conftest import REPOSITORY, random_documents


def test_the_hierarchy_is_that_of_the_quick_start(tmp_path: Path) -> None:
    recipe = (REPOSITORY / "recipes" / "quickstart.sh").read_text()
    hierarchy, transfer = busy.HIERARCHY[1::2]
    assert f"hierarchy='{hierarchy}'" in recipe and f"transfer='{transfer}'" in recipe
    assert "hmtl_muon" in busy.training(tmp_path, 100, tmp_path)


def test_each_system_has_its_own_variables_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in busy.VARIABLES:
        monkeypatch.setenv(name, "mine")
    print_them = [sys.executable, "-c", f"import os; print([os.environ.get(name) for name in {busy.VARIABLES}])"]
    systems = busy.systems_of(print_them, ["GOMP_SPINCOUNT=3000", "OMP_WAIT_POLICY=PASSIVE,KMP_BLOCKTIME=0"])
    environ = os.environ | {"OMP_NUM_THREADS": "1000"}  # more than there are cores, so that ours has a choice to make
    said = {
        name: subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout.strip()
        for name, command in systems.items()
    }
    assert said == {
        "default": "[None, None, None, None]",
        "ours": "['PASSIVE', None, None, 'busy']",
        "GOMP_SPINCOUNT=3000": "[None, '3000', None, None]",
        "OMP_WAIT_POLICY=PASSIVE,KMP_BLOCKTIME=0": "['PASSIVE', None, '0', None]",
    }


def test_busy_processes_compute_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def popen(*arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":
        started.append(subprocess_popen(*arguments, **options))
        return started[-1]

    subprocess_popen = subprocess.Popen
    monkeypatch.setattr(busy.subprocess, "Popen", popen)
    began = time.perf_counter()
    with contextlib.suppress(InterruptedError), busy.busy_processes(2):
        time.sleep(0.5)
        assert [process.poll() for process in started] == [None, None]
        raise InterruptedError
    assert time.perf_counter() - began >= 0.5  # or there would have been nobody beside
    assert all(process.poll() is not None for process in started)


def test_all_is_measured_against_the_default_on_an_idle_machine() -> None:
    seconds = {"default": [10.0, 12.0, 10.0], "ours": [10.2], "default, beside": [30.0], "ours, beside": [13.0]}
    rows = {row.what.split(", ", 1)[1]: row for row in busy.rows(seconds, 100, 1)}
    assert rows["idle machine, ours"].overhead == pytest.approx(0.02)
    assert rows["beside 1 busy process, ours"].overhead == pytest.approx(0.3)
    assert rows["beside 1 busy process, default"].overhead == pytest.approx(2)
    for target in (target for target in read_targets() if target.benchmark == "busy"):
        assert sum(target.concerns("busy", "cpu", row.what) for row in rows.values()) == 1


@pytest.mark.slow
def test_busy(tmp_path: Path, make_corpus: Callable[..., Path]) -> None:
    data = make_corpus(tmp_path / "data", train=random_documents(1, 40))
    rows = record_of(tmp_path, "busy", str(data), "--updates", "2", "--repeats", "1")["rows"]
    assert [row["what"].rpartition(", ")[2] for row in rows] == ["default", "ours", "ours"]
    assert all(row["ours"] > 0 for row in rows)
