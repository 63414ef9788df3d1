"""The page of benchmarks, from made-up records and, as it is in the repository, from the real ones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import report
from record import Record, Row
from targets import Target, read_targets

from tests.benchmarks.made_up import LAPTOP, SERVER, made_up
from tests.conftest import REPOSITORY

TARGETS = [
    Target("loader", "any", "feeding*", "value", "at least", 3e6),
    Target("step", "cpu", "three", "overhead", "at most", 0.05),
]


def test_met_and_not_met() -> None:
    rows = [
        Row("feeding fast", "tokens/s", (4e6,)),
        Row("feeding slowly", "tokens/s", (2e6, 4e6, 1e6)),
        Row("other", "s", (1,)),
    ]
    lines = report.page([made_up(rows)], TARGETS).splitlines()
    fast, slow, other = (
        next(line for line in lines if name in line) for name in ("feeding fast", "feeding slowly", "other |")
    )
    assert "at least 3 M tokens/s: met" in fast
    assert "at least 3 M tokens/s: not met" in slow
    assert "2 M tokens/s (1 to 4, 3 runs)" in slow
    assert "met" not in other


def test_overhead_is_shown_where_it_is_the_target() -> None:
    row = Row("three", "s", (1.03,), "lower", peer=(1.0,), peer_name="flat")
    assert "| +3 % | at most +5 %: met |" in report.page([made_up([row], benchmark="step")], TARGETS)
    assert "| 0.971x | - |" in report.page([made_up([row])], TARGETS)


def test_each_machine_is_described_once() -> None:
    row = Row("feeding", "tokens/s", (4e6,))
    page = report.page([made_up([row]), made_up([row], SERVER), made_up([row], benchmark="step")], TARGETS)
    assert page.count("cores of AMD EPYC") == 1
    assert "* **A**: 2 cores of AMD EPYC (AVX2, AVX-512), virtual; 24 GiB\n" in page
    assert "; 128 GiB; NVIDIA H100 with 80 GiB, driver 580.1\n" in page
    assert "| B | `python benchmarks/loader.py` |" in page


def test_gpu_section() -> None:
    row = Row("feeding", "tokens/s", (4e6,))
    on_cpu = report.page([made_up([row], SERVER)], TARGETS)  # the CPU of a machine that has a GPU
    assert "## On a GPU\n\nNot measured.\n" in on_cpu
    on_gpu = report.page([made_up([Row("feeding", "tokens/s", (4e6,), device="gpu")], SERVER)], TARGETS)
    assert "Not measured." not in on_gpu
    assert "No records yet" in on_gpu


def test_what_speaks_against_a_record_is_said() -> None:
    page = report.page([made_up([Row("x", "s", (1,))], load=(2.5, 3), finished=False, commit=None)], TARGETS)
    page = " ".join(page.split())  # wherever its lines break
    assert "**the machine was busy**" in page
    assert "**stopped before its end**" in page
    assert "commit unknown" in page
    assert "busy" not in report.page([made_up([Row("x", "s", (1,))])], TARGETS)


def test_check(tmp_path: Path) -> None:
    content = made_up([Row("feeding", "tokens/s", (4e6,))], LAPTOP).to_json(read_targets())
    (tmp_path / "loader.json").write_text(json.dumps(content))
    assert Record.read(tmp_path / "loader.json").rows[0].value == 4e6

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "benchmarks/report.py",
            "--records",
            tmp_path,
            "--page",
            tmp_path / "page.md",
            *options,
        ]
        return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)

    for expected in (1, None, 0):
        done = run("--check") if expected is not None else run()
        assert done.returncode == (expected or 0)
    with (tmp_path / "page.md").open("a") as page:
        page.write("typed in by hand\n")
    done = run("--check")
    assert done.returncode == 1
    assert done.stderr == "error: page.md is not what its records give: run python benchmarks/report.py\n"
    (tmp_path / "other.json").write_text("{}")
    assert "error: other.json: no record" in run("--check").stderr


def test_page_of_the_repository() -> None:
    text = report.page(report.read_records(report.RECORDS), read_targets())
    if report.PAGE.read_text(encoding="utf-8") != text:
        pytest.fail("docs/benchmarks.md is not what its records give: run python benchmarks/report.py")
