"""Arrays shared between processes: built once, never another's, gone when nobody needs them."""

import mmap
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hmtl_plugin.data.shared_arrays import Arrays, SharedArrays
from hmtl_plugin.errors import UserError

HOLD_ONE_AND_BUILD_ANOTHER = """
import time
import numpy as np
from hmtl_plugin.data.shared_arrays import SharedArrays

def build():
    print("building", flush=True)
    time.sleep(600)

shared = SharedArrays()
shared.get("held", lambda: {"numbers": np.arange(3)})
shared.get("building", build)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder, empty."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def numbers(count: int = 3) -> Arrays:
    return {"numbers": np.arange(count), "halves": np.arange(count, dtype=np.float32) / 2}


def never() -> Arrays:
    raise AssertionError("built again")


def is_mapped(array: np.ndarray) -> bool:
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def kill(shared: SharedArrays) -> None:
    """What the kernel does with locks when a process is killed."""
    while shared._held:
        os.close(shared._held.pop().descriptor)


def files(folder: Path) -> list[str]:
    """All but folders, relative to the private folder."""
    return sorted(str(path.relative_to(folder)).split("/", 1)[1] for path in folder.rglob("*") if not path.is_dir())


def test_what_is_held_is_not_built_again(folder: Path) -> None:
    first, second = SharedArrays(), SharedArrays()
    built = first.get("key", numbers)
    found = second.get("key", never)
    assert found.keys() == numbers().keys()
    for name, array in numbers().items():
        for shared in (built[name], found[name]):
            assert type(shared) is np.ndarray
            assert shared.dtype == array.dtype
            assert np.array_equal(shared, array)
            assert not shared.flags.writeable
            assert is_mapped(shared)
    assert first.get("key", never)["numbers"] is built["numbers"]
    assert first.holds(built["numbers"])
    assert not first.holds(found["numbers"])
    assert len(files(folder)) == 4  # two arrays, who holds them, the lock


def test_who_asks_meanwhile_waits() -> None:
    began, builds = threading.Event(), []

    def build() -> Arrays:
        builds.append(1)
        began.set()
        time.sleep(0.2)
        return numbers()

    first, second = SharedArrays(), SharedArrays()
    thread = threading.Thread(target=lambda: first.get("key", build))
    thread.start()
    began.wait()
    assert second.get("key", build)["numbers"].tolist() == [0, 1, 2]
    thread.join()
    assert len(builds) == 1


def test_pickled_copy_holds_nothing() -> None:
    shared = SharedArrays()
    shared.get("key", numbers)
    copied = pickle.loads(pickle.dumps(shared))
    copied.release()
    copied.get("key", never)
    SharedArrays().get("key", never)


def test_other_keys_get_other_arrays() -> None:
    shared = SharedArrays()
    assert [len(shared.get(f"key {count}", lambda count=count: numbers(count))["numbers"]) for count in (1, 5)] == [
        1,
        5,
    ]


def test_files_go_with_the_last_that_holds_them(folder: Path) -> None:
    first, second = SharedArrays(), SharedArrays()
    array = first.get("key", numbers)["numbers"]
    second.get("key", never)
    first.release()
    assert not first.holds(array)
    third = SharedArrays()
    third.get("key", never)
    del third
    second.get("other", numbers)
    assert len(files(folder)) == 8
    second.release()
    assert files(folder) == []
    assert array.tolist() == [0, 1, 2]  # of a file that is gone
    second.get("key", numbers)
    del second
    assert files(folder) == []


def test_folder_is_private(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SharedArrays().get("key", numbers)
    (private,) = folder.iterdir()
    assert private.stat().st_mode & 0o777 == 0o700
    private.chmod(0o750)
    with pytest.raises(UserError, match="is not a folder of yours alone: remove it, or set TMPDIR"):
        SharedArrays().get("key", numbers)
    private.rmdir()
    private.symlink_to(folder)
    with pytest.raises(UserError, match="is not a folder of yours alone"):
        SharedArrays().get("key", numbers)
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)  # what is there belongs to somebody else
    with pytest.raises(UserError, match="is not a folder of yours alone"):
        SharedArrays().get("key", numbers)


def test_killed_process_leaves_nothing_that_matters(folder: Path) -> None:
    environ = os.environ | {"TMPDIR": str(folder)}
    command = [sys.executable, "-c", HOLD_ONE_AND_BUILD_ANOTHER]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "building\n"
            shared = SharedArrays()
            shared.get("held", never)
        finally:
            process.kill()
    (private,) = folder.iterdir()
    (private / "0123.part").mkdir()  # as of a process killed while it wrote
    (private / "0123.part" / "numbers.npy").touch()
    (private / "0123.lock").touch()
    assert len(shared.get("building", numbers)["numbers"]) == 3  # its lock blocks nobody
    assert not list(private.glob("*.part"))
    shared.release()
    assert files(folder) == []


def test_leftovers_are_not_read(folder: Path) -> None:
    """Not even of the same key: they may be of a machine that lost power while it wrote them."""
    shared = SharedArrays()
    shared.get("key", numbers)
    kill(shared)
    assert len(files(folder)) == 4
    again = SharedArrays()
    assert len(again.get("key", lambda: numbers(7))["numbers"]) == 7
    other = SharedArrays()
    other.get("other", numbers)
    assert len(files(folder)) == 8
    again.release()
    other.release()
    assert files(folder) == []


def test_leftovers_of_other_keys_are_removed(folder: Path) -> None:
    left = SharedArrays()
    left.get("left", numbers)
    kill(left)
    held, shared = SharedArrays(), SharedArrays()
    held.get("held", numbers)
    shared.get("key", numbers)
    assert len(files(folder)) == 8
    SharedArrays().get("held", never)


def test_fork_leaves_its_parents_files(folder: Path) -> None:
    shared = SharedArrays()
    shared.get("key", numbers)
    child = os.fork()
    if child == 0:
        shared.release()
        os._exit(0)
    os.waitpid(child, 0)
    SharedArrays().get("key", never)
    shared.release()
    assert files(folder) == []


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file grows beyond 4096 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def one_line(error: pytest.ExceptionInfo[UserError], folder: Path) -> bool:
    text = str(error.value)
    return "\n" not in text and text.startswith(f"{folder}: ") and "set TMPDIR to a folder that" in text


def test_full_disk_is_told_in_a_line(folder: Path, full_disk: None) -> None:
    shared = SharedArrays()
    with pytest.raises(UserError) as error:
        shared.get("key", lambda: numbers(100_000))
    assert one_line(error, folder)
    assert not list(folder.rglob("*.npy"))
    assert len(shared.get("key", numbers)["numbers"]) == 3  # neither lock nor remains are in the way


def test_unwritable_folder_is_told_in_a_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_folder = folder / "file"
    no_folder.touch()
    monkeypatch.setattr(tempfile, "tempdir", str(no_folder))
    with pytest.raises(UserError) as error:
        SharedArrays().get("key", numbers)
    assert one_line(error, no_folder)


def test_errors_of_building_are_passed_on(folder: Path) -> None:
    def fail() -> Arrays:
        raise UserError("nsp needs at least two documents")

    shared = SharedArrays()
    with pytest.raises(UserError, match=r"^nsp needs at least two documents$"):
        shared.get("key", fail)
    assert len(shared.get("key", numbers)["numbers"]) == 3
