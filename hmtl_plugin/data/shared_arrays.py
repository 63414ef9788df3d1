"""Arrays that the processes of a node share: built by the first that asks, mapped from a file by all.

A corpus of 100 million sentences has half a gigabyte of samples, and as many ranks as a node has GPUs would each build
and hold them. Files are in a private folder of the temporary folder (``TMPDIR``), a folder of plain ``.npy`` a key:

    hmtl-USER-HOST/KEY/NAME.npy     an array
    hmtl-USER-HOST/KEY/held         every process that uses the arrays holds a shared lock on it (flock)
    hmtl-USER-HOST/KEY.part         being written; renamed when whole
    hmtl-USER-HOST/KEY.lock         exclusive lock of who builds, looks or removes

The kernel gives locks back however a process ends, so that what nobody holds is of no use to anybody: who finds it
removes it, be it of the same key (it may be of a machine that lost power). The folder's name holds the host's because a
temporary folder may be on a network, where locks and maps of other hosts mean little.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import socket
import stat
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from hmtl_plugin.corruption import random
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.pairing import PairIndex, PairingConfig, build_pairs
from hmtl_plugin.errors import UserError
from hmtl_plugin.files.publishing import locked

Arrays = dict[str, np.ndarray]


class _Held(NamedTuple):
    """A folder of arrays, the locked file in it, and who locked it."""

    folder: Path
    descriptor: int
    process: int


def node_has_several_ranks() -> bool:
    """Whether this is one of several processes of a training on this node.

    torchrun says how many there are here; other launchers do not, and a rank that is alone after all shares with
    nobody.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    ranks = torch.distributed.get_world_size()
    return min(ranks, int(os.environ.get("LOCAL_WORLD_SIZE", ranks))) > 1


class SharedArrays:
    """The shared arrays that this process uses.

    They are held until `release`, or until this object or the process ends. A process that was forked (a loader's
    worker) may read what its parent holds; a pickled copy holds nothing.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, Arrays] = {}
        self._held: list[_Held] = []
        weakref.finalize(self, _release, self._held)  # also at the end of the process

    def __reduce__(self) -> tuple[type["SharedArrays"], tuple[()]]:
        return SharedArrays, ()

    def get(self, key: str, build: Callable[[], Arrays]) -> Arrays:
        """The arrays of ``key``, read-only: what a process of this node holds already, else those of ``build()``.

        Args:
            key: all that the arrays depend on, and nothing else.

        Raises:
            UserError: if the temporary folder is of no use or full.
        """
        if key not in self._arrays:
            digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
            with _explained():
                self._arrays[key] = self._map(_private_folder() / digest, build)
        return self._arrays[key]

    def holds(self, array: np.ndarray) -> bool:
        """Whether this very array is one of those."""
        return any(array is each for arrays in self._arrays.values() for each in arrays.values())

    def release(self) -> None:
        """Let go of all arrays; files that no other process holds are removed. Arrays in use stay readable."""
        self._arrays.clear()
        _release(self._held)

    def _map(self, folder: Path, build: Callable[[], Arrays]) -> Arrays:
        with locked(folder.with_suffix(".lock")):
            held = _hold_used(folder)
            if held is None:
                _remove_unused(folder.parent, but=folder)
                held = _write(folder, build())
            self._held.append(_Held(folder, held, os.getpid()))
            return {path.stem: _load(path) for path in folder.glob("*.npy")}


def _private_folder() -> Path:
    """``hmtl-USER-HOST``, made if missing, and nobody else's."""
    folder = Path(tempfile.gettempdir()) / f"hmtl-{os.geteuid()}-{socket.gethostname()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise UserError(f"{folder}: is not a folder of yours alone: remove it, or set TMPDIR to another folder")
    return folder


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """What goes wrong with files, in one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)  # numpy's error of a full disk is a text alone
        raise UserError(
            f"{tempfile.tempdir or 'temporary folder'}: the ranks of this node cannot share an epoch's samples here ({reason}): "
            "set TMPDIR to a folder that can be written to, supports locks and has room for 30 bytes a sample"
        ) from error


def _hold_used(folder: Path) -> int | None:
    """Hold the arrays of ``folder`` (locked) if a process does already. What nobody holds is removed."""
    with contextlib.suppress(FileNotFoundError):
        held = os.open(folder / "held", os.O_RDWR)
        if not _is_last(held):
            fcntl.flock(held, fcntl.LOCK_SH)
            return held
        os.close(held)
    for leftover in (folder, folder.with_suffix(".part")):
        shutil.rmtree(leftover, ignore_errors=True)
    return None


def _write(folder: Path, arrays: Arrays) -> int:
    """Write arrays to ``folder`` (locked), whole or not at all, and hold them."""
    part = folder.with_suffix(".part")
    part.mkdir(mode=0o700)
    try:
        for name, array in arrays.items():
            with open(part / f"{name}.npy", "wb") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
        held = os.open(part / "held", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(held, fcntl.LOCK_SH)  # before it can be found
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return held


def _load(path: Path) -> np.ndarray:
    """A plain read-only array over the map; subclass arrays are slower to index."""
    return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)


def _remove_unused(parent: Path, but: Path) -> None:
    """Remove what processes that were killed left behind; what is locked is in use."""
    for path in parent.glob("*.lock"):
        folder = path.with_suffix("")
        if folder != but:
            with contextlib.suppress(BlockingIOError), locked(path, wait=False):
                held = _hold_used(folder)
                if held is None:
                    path.unlink()
                else:
                    os.close(held)


def _is_last(held: int) -> bool:
    """Whether no other process holds this file. The lock is gone in either case."""
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _release(all_held: list[_Held]) -> None:
    """Give everything back; what cannot be removed waits for the next job. A fork gives back what it took itself."""
    while all_held:
        held = all_held.pop()
        if held.process == os.getpid():
            with contextlib.suppress(OSError), locked(held.folder.with_suffix(".lock")):
                if _is_last(held.descriptor):
                    shutil.rmtree(held.folder, ignore_errors=True)
                    held.folder.with_suffix(".lock").unlink()
        os.close(held.descriptor)


class EpochArrays:
    """Arrays that follow from a corpus, a seed and an epoch: computed, or where this node has several ranks, shared.

    Args:
        corpus, seed: of the data set.
        threads: for the pair index, see `build_pairs`.
    """

    def __init__(self, corpus: Corpus, seed: int, threads: int | None = None) -> None:
        self._corpus, self._seed, self._threads = corpus, seed, threads
        self._shared = SharedArrays()

    def get(self, epoch: int, what: tuple[object, ...], build: Callable[[], Arrays]) -> Arrays:
        """``build()``, or the same built by another rank.

        Args:
            what: name and options of the arrays, each with a ``repr`` that tells it from all others.

        Raises:
            UserError: if they cannot be shared.
        """
        if not node_has_several_ranks():
            return build()
        key = repr((_code(), np.__version__, self._corpus.fingerprint, self._seed, epoch, what))
        return self._shared.get(key, build)

    def pairs(self, epoch: int, config: PairingConfig) -> PairIndex:
        """The pair index of the epoch; the parameters and errors are those of `build_pairs`."""

        def build() -> Arrays:
            corpus = self._corpus
            return build_pairs(corpus.sizes, corpus.documents, config, self._seed, epoch, self._threads).arrays

        return PairIndex.of(self.get(epoch, ("pairs", config), build), config, self._seed, epoch)

    def shares(self, array: np.ndarray) -> bool:
        """Whether this very array is a shared one of `get`."""
        return self._shared.holds(array)

    def release(self) -> None:
        """The epoch is over: what is shared is held no longer."""
        self._shared.release()


@functools.cache
def _code() -> str:
    """A hash of what the arrays are made by: two versions of it may run on a node, and one may not read the other's."""
    files = [Path(random.__file__), *sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.blake2b(b"".join(path.read_bytes() for path in files), digest_size=16).hexdigest()
