"""Files that appear whole or not at all, also where two write at once, one is killed, or the disk is full."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hmtl_plugin.errors import UserError, no_room
from hmtl_plugin.files.publishing import locked, write_json, write_whole


def test_a_block_that_raises_leaves_what_was(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"é": 1})

    def write() -> None:
        with write_whole(path) as part:
            part.write_text("half")
            (tmp_path / "nowhere").stat()

    with pytest.raises(FileNotFoundError, match="nowhere"):
        write()
    assert path.read_text(encoding="utf-8") == '{\n "é": 1\n}\n' and list(tmp_path.iterdir()) == [path]


def test_two_writers_take_turns(tmp_path: Path) -> None:
    """Each finds its own bytes in its part: with a part for both, the first would publish what the second has begun."""
    path, seen = tmp_path / "a", []

    def write(text: str) -> None:
        for _ in range(20):
            with write_whole(path) as part:
                with part.open("w") as file:
                    for _ in range(200):
                        file.write(text)
                        file.flush()
                seen.append(part.read_text() == text * 200)

    threads = [threading.Thread(target=write, args=(text,)) for text in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 60 and path.read_text() in {text * 200 for text in "abc"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_is_in_nobody_s_way(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys; from hmtl_plugin.files.publishing import write_whole\n"
        "with write_whole(pathlib.Path(sys.argv[1])) as part:\n part.write_text('half of it'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script, tmp_path / "a"], check=False).returncode == 9
    assert [path.name for path in tmp_path.iterdir()] == ["a.part"]
    write_json(tmp_path / "a", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "1\n"


def test_a_lock_that_is_held_is_not_waited_for(tmp_path: Path) -> None:
    with locked(tmp_path / "lock"):
        with pytest.raises(BlockingIOError), locked(tmp_path / "lock", wait=False):
            pass
        (tmp_path / "lock").unlink()
    with locked(tmp_path / "lock", wait=False):
        pass


@pytest.mark.parametrize("library", ["python", "numpy", "torch", "safetensors"])
def test_a_full_disk_is_one_line_whoever_writes(
    library: str, tmp_path: Path, file_limit: Callable[[int], None]
) -> None:
    path = tmp_path / "a"

    def fill(part: Path) -> None:
        if library == "python":
            part.write_text("a" * 10_000)
        elif library == "numpy":
            with part.open("wb") as file:
                np.save(file, np.zeros(10_000))
        elif library == "torch":
            torch.save({"a": torch.zeros(10_000)}, part)
        else:
            safetensors = pytest.importorskip("safetensors.torch")
            safetensors.save_file({"a": torch.zeros(10_000)}, part)

    def write() -> None:
        file_limit(4096)
        with write_whole(path) as part:
            fill(part)

    with pytest.raises(UserError, match=r"^.*/a: cannot be written \(.*\): make room there, or name another place$"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_other_errors_are_not_of_room() -> None:
    assert no_room(OSError(errno.ENOSPC, "x")) == os.strerror(errno.ENOSPC)
    for error in (
        OSError(errno.EACCES, "x"),
        ValueError("3 requested"),
        RuntimeError("shape"),
        UserError("requested and"),
    ):
        assert no_room(error) is None
