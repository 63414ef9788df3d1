"""Features of all layers of a task, on disk by content fingerprint and memory-mapped: memory does not grow with the
task.
"""

import ctypes
import hashlib
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.array_file import load_array
from hmtl_plugin.files.publishing import explained, locked
from hmtl_plugin.files.shape import whole
from hmtl_plugin.probing.encoders import LayerEncoder
from hmtl_plugin.probing.tasks import ProbingTask
from hmtl_plugin.progress import progress_bar

_CHUNK_BYTES = 1 << 26
_CHUNK_ROWS = 8192
_FORMAT = "2"
_CUT = "cut.txt"  # how many sentences were too long
_LARGEST = 1e15  # beyond, sums of squares leave fp32
LayerFeatures = dict[str, npt.NDArray[np.float32]]


def layer_features(encoder: LayerEncoder, task: ProbingTask, cache: Path) -> LayerFeatures:
    """Pooling -> (N, L+1, H), rows as in the task; computed once for the same encoder and file.

    Written to a folder beside and renamed: a killed run leaves nothing that looks whole.

    Raises:
        UserError: not enough disk space, or features that are not finite.
    """
    folder = cache / feature_key(encoder, task)
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        lock = folder.with_suffix(".lock")
        with locked(lock):  # another run may be computing the same
            if not folder.is_dir():
                _compute(encoder, task, folder)
            lock.unlink(missing_ok=True)
    # copy-on-write: nothing writes, and torch warns about arrays that cannot be written
    again = f"remove {folder}, and it is made again"
    found = {file.stem: load_array(file, again, "c") for file in sorted(folder.glob("*.npy"))}
    for pooling, array in found.items():
        if array.ndim != 3 or len(array) != len(task) or array.dtype != np.float32:
            raise UserError(f"{folder / pooling}.npy: does not belong to {task.name}; {again}")
    return found


def sentences_cut(encoder: LayerEncoder, task: ProbingTask, cache: Path) -> int:
    """How many sentences of the task were longer than the encoder takes; known once the features are there."""
    path = cache / feature_key(encoder, task) / _CUT
    if (cut := whole(path.read_text(errors="replace"))) is None:
        raise UserError(f"{path}: damaged; remove {path.parent}, and it is made again")
    return cut


def drop_features(encoder: LayerEncoder, task: ProbingTask, cache: Path) -> None:
    """Delete them."""
    shutil.rmtree(cache / feature_key(encoder, task), ignore_errors=True)


def feature_key(encoder: LayerEncoder, task: ProbingTask) -> str:
    """Names the folder: the file's content, the encoder's, and the poolings."""
    parts = [_FORMAT, encoder.about.fingerprint, task.sha256, *encoder.poolings]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def release_free_memory() -> None:
    """Give freed memory back to the system (glibc). Tensors of ever other sizes leave holes in the heap, which would
    grow with the number of batches."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _compute(encoder: LayerEncoder, task: ProbingTask, folder: Path) -> None:
    needed, free = len(task) * encoder.row_bytes(), shutil.disk_usage(folder.parent).free
    if needed > free:
        raise UserError(
            f"{folder.parent}: features of {task.name} take {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: "
            "name another folder with --cache, or probe fewer poolings"
        )
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        with explained(folder.parent):
            _fill(encoder, task, part)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    os.replace(part, folder)


def _fill(encoder: LayerEncoder, task: ProbingTask, part: Path) -> None:
    # similar lengths together: a chunk is split into batches of one length each with hardly a pad between them
    order = np.argsort(task.end_N - task.begin_N, kind="stable")
    cut_before = encoder.truncated
    step = max(64, min(_CHUNK_ROWS, _CHUNK_BYTES // max(1, encoder.row_bytes())))
    arrays: dict[str, np.memmap] = {}
    with progress_bar(f"{encoder.about.name}: {task.name}", len(task), "sentence") as bar:
        for start in range(0, len(order), step):
            rows = order[start : start + step]
            for pooling, values in encoder(task.sentences(rows)).items():
                if pooling not in arrays:
                    shape = (len(task), *values.shape[1:])
                    arrays[pooling] = _new_array(part / f"{pooling}.npy", shape)
                _check(encoder, task, pooling, values)
                arrays[pooling][rows] = values
            release_free_memory()
            bar.update(len(rows))
    for array in arrays.values():
        array.flush()
    (part / _CUT).write_text(str(encoder.truncated - cut_before))


def _new_array(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """An array in a file that has its room on the disk: without, a disk that fills up meanwhile kills the process."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _check(encoder: LayerEncoder, task: ProbingTask, pooling: str, values: npt.NDArray[np.float32]) -> None:
    """`UserError` for features that no probe can be trained on."""
    good_L = (np.abs(values) < _LARGEST).all((0, 2))  # false for NaN too
    if not good_L.all():
        raise UserError(
            f"{encoder.about.name}: features of {task.name} ({pooling}, layer {int((~good_L).argmax())}) are not finite or above "
            f"{_LARGEST:g}: the checkpoint has diverged, or the precision does not suffice"
        )
