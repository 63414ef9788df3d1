"""benchmarks/gpu.sh with programs that only pretend: nothing is unpacked, built or measured."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# Says what gpu.sh asks of a Python; of the benchmarks, the first fails and the others write their record.
PYTHON = """#!/usr/bin/env bash
here=$(dirname "$0")
case "$*" in
    *version_info*) echo 3.12 ;;
    *get_include*) echo "$here"; echo "$here" ;;
    *cython*) ;;
    *.py*)
        echo "$@" >>"$here/calls"
        [ "$(wc -l <"$here/calls")" -gt 1 ] || exit 3
        echo '{}' >"${!#}" ;;
esac
"""


# Makes the folder that fairseq's archive would have filled.
TAR = """#!/usr/bin/env bash
while [ $# -gt 0 ]; do [ "$1" != -C ] || mkdir -p "$2/fairseq/data"; shift; done
"""


class Machine:
    """A copy of gpu.sh, and a folder of programs for it to call."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs = folder / "a clone" / "benchmarks", folder / "programs"
        for made in (self.folder, self.programs):
            made.mkdir(parents=True)
        shutil.copy(REPOSITORY / "benchmarks" / "gpu.sh", self.folder)
        nothing = "#!/bin/sh\n"
        for name, text in {"python3": PYTHON, "tar": TAR, "sha256sum": nothing, "g++": nothing}.items():
            (self.programs / name).write_text(text)
            (self.programs / name).chmod(0o755)
        (self.programs / "Python.h").touch()

    def pack(self, python: str = "3.12") -> None:
        (self.folder / "packed").mkdir()
        (self.folder / "packed" / "python").write_text(f"{python}\n")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PATH": f"{self.programs}:{os.environ['PATH']}", "TMPDIR": str(self.programs)}
        environment.pop("PYTHON", None)
        return subprocess.run(
            ["bash", self.folder / "gpu.sh", *arguments], env=environment, capture_output=True, text=True
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_nothing_packed(machine: Machine) -> None:
    done = machine.run()
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "run 'bash benchmarks/gpu.sh --pack' where there is network" in done.stderr


def test_packed_for_another_python(machine: Machine) -> None:
    machine.pack("3.13")
    done = machine.run("--quick")
    assert done.returncode == 1
    assert "pack again with HMTL_PACK_PYTHON=3.12" in done.stderr


def test_archive_that_is_not_the_one(machine: Machine) -> None:
    machine.pack()
    (machine.programs / "sha256sum").write_text("#!/bin/sh\nexit 1\n")
    done = machine.run()
    assert done.returncode == 1
    assert "is damaged" in done.stderr


@pytest.mark.parametrize("arguments", [("--seconds", "soon"), ("--unknown",), ("--pack", "--quick")])
def test_wrong_options(machine: Machine, arguments: tuple[str, ...]) -> None:
    assert machine.run(*arguments).returncode in (1, 2)


def test_a_failure_stops_no_other(machine: Machine, tmp_path: Path) -> None:
    machine.pack()
    out = tmp_path / "out of it"
    done = machine.run("--quick", "--out", str(out))
    calls = (machine.programs / "calls").read_text().splitlines()
    names = [Path(call.split("--json ")[1]).stem.removeprefix("gpu_") for call in calls]
    assert len(names) > 1
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"error: failed: {names[0]}"
    assert sorted(path.name for path in out.iterdir()) == sorted(f"gpu_{name}.json" for name in names[1:])
    assert not list(machine.programs.glob("tmp.*"))  # the temporary folder is gone


def test_time_is_up(machine: Machine) -> None:
    machine.pack()
    done = machine.run("--quick", "--seconds", "5")
    assert done.returncode == 1
    assert "skipped, no time left" in done.stderr
    assert not (machine.programs / "calls").exists()
