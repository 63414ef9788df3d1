"""Threads sleep while they wait where other processes need the cores; whoever has chosen before keeps their choice."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmtl_plugin.commands import openmp_waiting
from hmtl_plugin.commands.run import COMMANDS
from tests.conftest import REPOSITORY

SCRIPT = REPOSITORY / "scripts" / "openmp_waiting.py"
COMPUTE = sorted(REPOSITORY / "scripts" / f"{name}.py" for name, threads in COMMANDS.items() if threads)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """What the script runs."""
    return openmp_waiting


def environment(script: ModuleType, **variables: str) -> dict[str, str]:
    """Of a process in which nobody has chosen yet; on any machine some of its threads find no core."""
    chosen = {*script.USERS, script.CHOSEN}
    kept = {name: value for name, value in os.environ.items() if name not in chosen}
    return kept | {script.THREADS: str(len(script.processors()) + 1)} | variables


def never(seconds: float) -> float:
    """For `settings`: there is nothing to choose."""
    raise AssertionError("the machine was looked at")


def seeing(*busy: float) -> Callable[[float], float]:
    """For `settings`: what is seen at each look."""
    looks = iter(busy)
    return lambda seconds: next(looks)


# user nice system idle iowait irq softirq steal guest guest_nice: guest is in user already
Ticks = Sequence[int]
TICKS = st.lists(st.integers(0, 500), min_size=10, max_size=10)


def stat(processors: Sequence[Ticks]) -> str:
    """A /proc/stat of these processors."""
    sums = [sum(columns) for columns in zip(*processors, strict=True)]
    names = ["cpu ", *(f"cpu{number}" for number in range(len(processors)))]
    rows = [f"{name} {' '.join(map(str, ticks))}" for name, ticks in zip(names, [sums, *processors], strict=True)]
    return "\n".join([*rows, "intr 310349 0 0 183", "ctxt 1990473", "btime 1546300800", ""])


@given(st.lists(st.tuples(TICKS, TICKS), min_size=1, max_size=4), st.sets(st.integers(0, 5), min_size=1))
def test_busy_is_what_was_not_idle_on_our_processors(
    script: ModuleType, tmp_path_factory: pytest.TempPathFactory, made: list[tuple[Ticks, Ticks]], used: set[int]
) -> None:
    path = tmp_path_factory.mktemp("proc") / "stat"
    path.write_text(stat([before for before, _ in made]))
    later = stat([[a + b for a, b in zip(before, more, strict=True)] for before, more in made])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script.time, "sleep", lambda seconds: path.write_text(later))
        patch.setattr(script.os, "getloadavg", lambda: (7.9, 0.0, 0.0))
        busy = script.busy_cores(0.1, path, used)
    seen = [more for number, (_, more) in enumerate(made) if number in used and sum(more[:8])]
    expected = sum((sum(more[:8]) - more[3] - more[4]) / sum(more[:8]) for more in seen)
    assert busy == pytest.approx(expected if seen else 7)  # what is not there has whole processes of the load average


def test_a_count_that_goes_back_is_no_share(script: ModuleType, tmp_path: Path) -> None:
    """The kernel's count of waiting for disks does."""
    path = tmp_path / "stat"
    path.write_text(stat([[10, 0, 0, 50, 40, 0, 0, 0, 0, 0]]))
    with pytest.MonkeyPatch.context() as patch:
        later = stat([[30, 0, 0, 50, 30, 0, 0, 0, 0, 0]])
        patch.setattr(script.time, "sleep", lambda seconds: path.write_text(later))
        assert script.busy_cores(0.1, path, {0}) == 1


def test_a_system_that_tells_nothing_counts_as_idle(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(script.os, "getloadavg", raising=False)
    assert script.busy_cores(0, tmp_path / "none") == 0


def test_a_process_that_computes_is_seen(script: ModuleType) -> None:
    loop = "import sys; print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", loop], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            assert script.busy_cores(0.5) > 0.8
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("cores", "threads", "busy", "sleep", "fewer"),
    [
        (2, None, 0.0, False, None),
        (2, None, 0.1, False, None),  # what an idle machine has running
        (2, None, 1.0, True, 1),
        (2, None, 2.0, True, 1),
        (16, None, 0.9, True, 15),
        (16, None, 1.1, True, 15),
        (16, None, 1.5, True, 14),
        (16, None, 16.0, True, 8),  # half of them is our share
        (1, None, 1.0, False, None),
        (16, "8", 7.9, False, None),  # the others have room beside us
        (16, "8", 9.0, True, None),  # whose number is the user's stays
        (16, "8,2", 7.0, False, None),
        (2, "many", 1.0, True, None),  # as torch, which takes one a core then
        (2, "3", 0.0, True, None),  # too many by themselves
        (2, "", 1.0, True, 1),  # as good as unset
    ],
)
def test_threads_sleep_and_are_fewer_where_one_finds_no_core(
    script: ModuleType, cores: int, threads: str | None, busy: float, sleep: bool, fewer: int | None
) -> None:
    environ = {} if threads is None else {script.THREADS: threads}
    chosen, line = script.settings(environ, cores, lambda seconds: busy)
    if cores == 1:
        assert (chosen, line) == ({}, "")
        return
    assert chosen.pop(script.CHOSEN) == (script.FEWER if fewer else "busy" if sleep else "idle")
    assert chosen.pop(script.THREADS, None) == (str(fewer) if fewer else None)
    if fewer:
        assert f"{script.THREADS}={fewer}" in line
    assert chosen == (script.BUSY if sleep else script.IDLE)
    assert bool(line) == bool(chosen) and "\n" not in line
    assert all(f"{name}={value}" in line for name, value in chosen.items())


def test_what_ends_in_a_moment_does_not_decide(script: ModuleType) -> None:
    assert script.settings({}, 2, seeing(1.5, 0.1))[0][script.CHOSEN] == "idle"
    assert script.settings({}, 2, seeing(1.5, 0.9))[0][script.CHOSEN] == script.FEWER
    assert script.settings({}, 2, seeing(0.1))[0][script.CHOSEN] == "idle"  # and does not keep anyone waiting


def test_whoever_has_chosen_keeps_their_choice(script: ModuleType) -> None:
    for name in (*script.USERS, script.CHOSEN):
        for value in ("PASSIVE", "ACTIVE", "0", "INFINITY", ""):
            assert script.settings({name: value}, 2, never) == ({}, "")
    assert script.settings({"OMP_NUM_THREADS": "1"}, 2, never) == ({}, "")  # nobody to wait for
    assert script.settings({}, 1, never) == ({}, "")


def test_choices_are_said_and_inherited(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "processors", lambda: {0, 1})
    monkeypatch.setattr(script, "busy_cores", lambda seconds: 1.0)
    environ: dict[str, str] = {}
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    assert script.choose_waiting(environ) == {}  # too late
    monkeypatch.delitem(sys.modules, "torch")
    chosen = script.choose_waiting(environ)
    assert environ == chosen == {**script.BUSY, script.THREADS: "1", script.CHOSEN: script.FEWER}
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "1.0 of 2 cores are busy" in said.err
    monkeypatch.setattr(script, "busy_cores", never)
    assert script.choose_waiting(environ) == {}  # as in a child
    assert capsys.readouterr().err == ""


def test_a_shell_takes_what_is_printed(script: ModuleType) -> None:
    """And a script that it starts does not choose again: it would see its siblings as others."""
    line = f'eval "$("{sys.executable}" "{SCRIPT}")"; printenv OMP_WAIT_POLICY; "{sys.executable}" "{SCRIPT}"'
    command = ["sh", "-euc", line]
    done = subprocess.run(command, env=environment(script), capture_output=True, text=True, check=True)
    assert done.stdout == "PASSIVE\n" and done.stderr.count("\n") == 1
    mine = environment(script, OMP_WAIT_POLICY="ACTIVE")
    done = subprocess.run(command, env=mine, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("ACTIVE\n", "")


def test_recipes_hand_it_to_the_training(script: ModuleType, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "recipes", tmp_path / "recipes")
    (tmp_path / "scripts").mkdir()
    for script_file in (SCRIPT, SCRIPT.with_name("recipe_options.py")):
        shutil.copy(script_file, tmp_path / "scripts")
    (tmp_path / "scripts" / "setup.sh").write_text(f"echo {sys.executable}\n")
    training = tmp_path / "training"
    training.write_text(f'#!/bin/sh\necho "$OMP_WAIT_POLICY ${script.CHOSEN}"\n')
    training.chmod(0o755)
    command = ["bash", str(tmp_path / "recipes" / "pretrain.sh"), "data", "run"]
    for mine, expected in (({}, "PASSIVE busy\n"), ({"GOMP_SPINCOUNT": "7"}, " \n")):
        environ = environment(script, HMTL_LAUNCHER=str(training), PYTHONPATH=str(REPOSITORY), **mine)
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        assert done.stdout == expected, done.stderr


def test_every_recipe_that_starts_fairseq_train_chooses() -> None:
    for recipe in REPOSITORY.glob("recipes/*.sh"):
        lines = [line for line in recipe.read_text().splitlines() if not line.startswith("#")]
        starts = [number for number, line in enumerate(lines) if "/fairseq-train" in line]
        chooses = [number for number, line in enumerate(lines) if "openmp_waiting.py" in line]
        assert not starts or (chooses and min(chooses) < min(starts)), recipe


def test_commands_that_compute_are_these() -> None:
    names = "evaluate finetune_glue finetune_squad probe study try_checkpoint"
    assert [path.stem for path in COMPUTE] == names.split()


def test_what_runs_a_command_imports_no_torch() -> None:
    """Else its choice would come too late, and be none. The same of a recipe that is Python."""
    code = "import sys, hmtl_plugin.commands.run; print({'torch', 'fairseq', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    body = ast.parse((REPOSITORY / "recipes" / "probe_hugging_face.py").read_text()).body
    (chooses,) = [n for n, node in enumerate(body) if ast.unparse(node) == "set_up_process(threads=True)"]
    for node in body[:chooses]:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert all(name == "hmtl_plugin.commands.run" or name in sys.stdlib_module_names for name in _roots(names)), (
            names
        )


def _roots(names: Sequence[str]) -> list[str]:
    return [name if name.startswith("hmtl_plugin.") else name.split(".")[0] for name in names]


def test_openmp_of_a_script_reads_it(script: ModuleType) -> None:
    """OpenMP itself says what it has read: a line for each copy of it that is loaded."""
    command = [sys.executable, str(REPOSITORY / "scripts" / "try_checkpoint.py"), "--help"]
    environ = environment(script, OMP_DISPLAY_ENV="true", PYTHONPATH=str(REPOSITORY))
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    said = [line.split("=")[1].strip() for line in done.stderr.splitlines() if "OMP_WAIT_POLICY =" in line]
    assert said and set(said) == {"'PASSIVE'"}, done.stderr
