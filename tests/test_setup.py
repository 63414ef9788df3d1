"""The set-up script, with a pip that only notes what it is asked: nothing is downloaded or built."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[1]

# Notes its arguments and the torch it is constrained to; on 'install -e' makes what would be installed, with
# a torchaudio that cannot be imported.
PIP = """
import os, pathlib, sys
here = pathlib.Path(__file__).parents[1]
constraints = open(os.environ["PIP_CONSTRAINT"]).read().split()
assert os.environ["PIP_CONSTRAINT"] == os.environ["PIP_BUILD_CONSTRAINT"]
words = [word for word in sys.argv[1:] if word not in ("--disable-pip-version-check", "--no-input")]
torch = next(line for line in constraints if line.startswith("torch=="))
with open(here / "calls", "a") as calls:
    print(*words, torch, file=calls)
if os.environ.get("PIP_FAILS"):
    sys.exit("no matching distribution")
if words[1].startswith("torch"):
    (here / "torch.py").write_text("__version__ = '2.13.0'")
if words[0] == "wheel":
    place = pathlib.Path(words[words.index("-w") + 1])
    tag = "cp%d%d" % sys.version_info[:2]
    (place / f"{words[-1].replace('-', '_', 1).replace('==', '-')}-{tag}-{tag}-linux.whl").touch()
if "-e" in words:
    repository = words[words.index("-e") + 1].partition("[")[0]
    (here / "hmtl_plugin.pth").write_text(repository)
    for name in ("torch", "fairseq", "sentencepiece"):
        (here / f"{name}.py").touch()
    if not (here / "torchaudio.py").exists():
        (here / "torchaudio.py").write_text("raise OSError('libc10_cuda.so')")
if words[0] == "uninstall":
    (here / "torchaudio.py").unlink()
"""


class Machine:
    """A copy of what setup.sh needs, a virtual environment with the pip above, and the commands' output."""

    def __init__(self, folder: Path) -> None:
        self.repository = folder / "a clone"  # with a blank
        (self.repository / "hmtl_plugin").mkdir(parents=True)
        (self.repository / "hmtl_plugin" / "__init__.py").touch()
        for name in ("scripts/setup.sh", "setup.py", "constraints.txt"):
            target = self.repository / name
            target.parent.mkdir(exist_ok=True)
            shutil.copy(REPOSITORY / name, target)
        self.environment = folder / "environment"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.environment], check=True)
        self.site = next(self.environment.glob("lib/python3*/site-packages"))
        self.add("pip/__main__.py", PIP)
        self.add("pip/__init__.py", "")

    def add(self, name: str, text: str) -> None:
        path = self.site / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def has(self, distribution: str, version: str) -> None:
        """Let the environment hold a distribution that was there before."""
        self.add(f"{distribution}-{version}.dist-info/METADATA", f"Name: {distribution}\nVersion: {version}\n")

    @property
    def calls(self) -> list[str]:
        """What pip was asked for, call by call."""
        notes = self.site / "calls"
        return notes.read_text().splitlines() if notes.exists() else []

    def setup(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run setup.sh with the environment active."""
        keep = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return subprocess.run(
            ["bash", str(self.repository / "scripts" / "setup.sh"), *arguments],
            env=keep | {"VIRTUAL_ENV": str(self.environment), "CXX": "true"} | environ,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    return last


def test_installs_once(machine: Machine) -> None:
    first = machine.setup()
    assert first.returncode == 0, first.stderr
    torch, rest = machine.calls[:2]
    assert torch.startswith("install torch>=2.8 ")
    assert rest.startswith("install --no-build-isolation -e ")
    assert "[dev]" in rest
    assert "done in" in first.stderr
    count = len(machine.calls)
    second = machine.setup("--python")
    assert len(machine.calls) == count
    assert second.stdout == f"{machine.environment}/bin/python\n"
    assert second.stderr == ""


def test_installs_again_when_something_changed(machine: Machine) -> None:
    machine.setup(HMTL_EXTRAS="dev,hf")
    count = len(machine.calls)
    machine.setup()  # keeps the extras
    assert len(machine.calls) == count
    with (machine.repository / "constraints.txt").open("a") as file:
        file.write("six==1.16.0\n")
    machine.setup()
    assert len(machine.calls) > count
    assert "[dev,hf]" in machine.calls[count + 1]
    count = len(machine.calls)
    (machine.site / "fairseq.py").unlink()
    machine.setup()
    assert len(machine.calls) > count


@pytest.mark.parametrize(
    ("present", "used"),
    [(None, "2.13.0"), ("2.9.1+cu128", "2.9.1"), ("2.4.0", "2.13.0"), ("2.10.0", "2.10.0")],
)
def test_keeps_a_torch_that_will_do(machine: Machine, present: str | None, used: str) -> None:
    if present:
        machine.has("torch", present)
    machine.setup()
    assert all(call.endswith(f" torch=={used}") for call in machine.calls)


@pytest.mark.parametrize("by_option", [True, False])
def test_keeps_what_it_compiled(machine: Machine, tmp_path: Path, by_option: bool) -> None:
    """A second environment finds the wheel, in a folder for the torch that it was compiled for."""
    place = tmp_path / "the wheels"
    given = (("--wheel", str(place)), {}) if by_option else ((), {"HMTL_WHEELS": str(place)})
    assert machine.setup(*given[0], **given[1]).returncode == 0
    compiled, rest = machine.calls[1:3]
    (built,) = place.glob("torch-2.13.0-*")
    assert compiled.startswith("wheel --no-build-isolation --no-deps -w ") and "fairseq-fixed==0.12.3.1" in compiled
    assert rest.startswith("install --no-build-isolation --find-links ") and str(built) in rest and "-e" in rest
    (machine.site / "fairseq.py").unlink()
    count = len(machine.calls)
    assert machine.setup(*given[0], **given[1]).returncode == 0
    assert not any(call.startswith("wheel") for call in machine.calls[count:])


def test_a_folder_for_wheels_that_cannot_be(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "--wheel" in error_of(machine.setup("--wheel", str(tmp_path / "file")))
    done = machine.setup("--wheel")
    assert done.returncode == 1 and "give the folder" in done.stderr


def test_asks_the_index_given_for_a_torch_that_is_missing(machine: Machine) -> None:
    machine.setup(HMTL_TORCH_INDEX="https://torch.example/cpu")
    assert "--extra-index-url https://torch.example/cpu" in machine.calls[0]
    assert "torch.example" not in machine.calls[1]


def test_removes_only_a_torchaudio_that_came_with_it(machine: Machine) -> None:
    machine.setup()
    assert machine.calls[-1].startswith("uninstall --yes torchaudio")


@pytest.mark.parametrize(("text", "said"), [("raise OSError", True), ("", False)])
def test_leaves_the_torchaudio_that_was_there(machine: Machine, text: str, said: bool) -> None:
    machine.has("torchaudio", "2.11.0")
    machine.add("torchaudio.py", text)
    done = machine.setup()
    assert done.returncode == 0
    assert not any(call.startswith("uninstall") for call in machine.calls)
    assert ("is left alone" in done.stderr) == said


def test_says_what_is_missing(machine: Machine) -> None:
    assert "CXX names /no/such/compiler" in error_of(machine.setup(CXX="/no/such/compiler"))
    assert "no Python at /no/such/place" in error_of(machine.setup(VIRTUAL_ENV="/no/such/place"))
    assert machine.calls == []


def test_a_failing_pip_is_shown_and_tried_again(machine: Machine) -> None:
    done = machine.setup(PIP_FAILS="1")
    assert "no matching distribution" in done.stderr
    assert "installing torch" in error_of(done)
    assert machine.setup().returncode == 0
    assert len(machine.calls) > 1


def python_stub(folder: Path, name: str, version: str) -> None:
    """A Python that says it is ``version`` and too old."""
    folder.mkdir(exist_ok=True)
    stub = folder / name
    stub.write_text(f'#!/bin/sh\ncase "$2" in *platform*) echo {version};; *) exit 1;; esac\n')
    stub.chmod(0o755)


@pytest.fixture
def bare_path(tmp_path: Path) -> Callable[[], str]:
    """A PATH with nothing but what the script itself needs."""

    def make() -> str:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for tool in ("bash", "dirname", "sed"):
            (folder / tool).symlink_to(shutil.which(tool) or tool)
        return str(folder)

    return make


def test_names_the_pythons_found(machine: Machine, bare_path: Callable[[], str]) -> None:
    path = bare_path()
    assert "found: none" in error_of(machine.setup(PATH=path, VIRTUAL_ENV=""))
    python_stub(Path(path), "python3", "3.9.2")
    python_stub(Path(path), "python", "2.7.18")
    error = error_of(machine.setup(PATH=path, VIRTUAL_ENV=""))
    assert "found: python3 3.9.2, python 2.7.18" in error


def test_constraints_pin_what_setup_installs() -> None:
    """Every requirement has a tested version, and that version satisfies it."""
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = {
        requirement.name.lower(): requirement.specifier
        for requirement in (Requirement(line) for line in lines if line and not line.startswith("#"))
    }
    code = "import runpy, setuptools, json; setuptools.setup = lambda **k: print(json.dumps("
    code += "[*k['install_requires'], *sum(k['extras_require'].values(), [])])); runpy.run_path('setup.py')"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for text in eval(done.stdout):
        wanted = Requirement(text)
        assert wanted.name.lower() in pins, f"{text}: not in constraints.txt"
        (pin,) = pins[wanted.name.lower()]
        assert pin.operator == "==", text
        assert wanted.specifier.contains(pin.version), f"{text}: constraints.txt says {pin}"
