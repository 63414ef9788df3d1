"""The file of a checkpoint: whole, plain data, and of the parts that fairseq writes; anything else is refused in one
line.

torch compares no checksum when it loads, so a changed bit of a weight would be taken for the weight. The archive has
them: `check_whole` compares them, once a file and process.
"""

import argparse
import errno
import os
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from omegaconf import DictConfig

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.shape import COUNT, Check, misfit

EARLIER = "use an earlier checkpoint of the same folder, or copy it again"
_NONE = type(None)
_BYTES = Check(
    "a vector of bytes",
    lambda value: isinstance(value, torch.Tensor) and value.dtype == torch.uint8 and value.dim() == 1,
)
_NUMBER = Check(
    "a number",  # a tensor where several processes have added theirs up
    lambda value: (
        value is None or type(value) in (int, float) or (isinstance(value, torch.Tensor) and value.numel() == 1)
    ),
)
_SHAPE = {
    "model": {str: torch.Tensor},
    "cfg?": (dict, DictConfig, _NONE),
    "args?": (argparse.Namespace, _NONE),
    "optimizer_history?": [{"num_updates?": COUNT, "optimizer_name?": str, "lr_scheduler_state?": dict}],
    "extra_state?": {
        "train_iterator?": {"epoch": COUNT, "iterations_in_epoch?": COUNT, "version?": COUNT},
        "metrics?": {str: list},
        "previous_training_time?": _NUMBER,
        "best?": _NUMBER,
    },
    "task_state?": {
        "dictionary?": _BYTES,
        "tokenizer?": _BYTES,
        "tokenizer_name?": str,
        "head?": str,
        "threads?": COUNT,
    },
    "finetuning?": {"no_answer_threshold?": (int, float)},
    "last_optimizer_state?": (dict, str, _NONE),  # a str where each rank keeps its own
}
_OBJECTS = re.compile(
    r"Unsupported global|unsupported GLOBAL|unrecognized function|Can only (create|build)|must be imported"
)
"""How torch says that a pickle asks for objects; what else it says is advice to open the file all the same."""
_whole: set[tuple[Any, ...]] = set()


def read_checkpoint(path: str) -> dict[str, Any]:
    """The content of a checkpoint, its tensors mapped from the file; nothing in it can run code.

    Raises:
        UserError: if the file is missing, damaged, needs more than plain data, or holds other things than a checkpoint.
    """
    state = read_plain(path, mmap=True)
    if not isinstance(state, dict) or "model" not in state or (state.get("cfg") is None and state.get("args") is None):
        raise UserError(f"{path}: not a checkpoint of fairseq-train")
    if (found := misfit(state, _SHAPE)) is not None:
        raise UserError(f"{path}: not a whole checkpoint of fairseq-train ({found}): {EARLIER}")
    return state


def read_plain(path: str, mmap: bool = False) -> Any:
    """What ``torch.save`` wrote into a file, read with ``weights_only=True``.

    Raises:
        UserError: if the file is missing, damaged, or needs more than plain data.
    """
    refusal, content = "", None
    with ThreadPoolExecutor(1) as executor:  # checksums leave the interpreter to the loading
        checked = executor.submit(check_whole, path)
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        except Exception as error:  # of bytes that are no pickle torch raises whatever it stumbles over
            refusal = _refusal(path, error)
    checked.result()
    if refusal:
        raise UserError(refusal)
    return content


def check_whole(path: str) -> None:
    """Compare the checksums of a checkpoint's archive, once a file and process: 3 GB a second.

    Of the processes of a training only the first one does so, whose state fairseq sends to the others. An archive
    without checksums (``torch.serialization.set_crc32_options(False)``) is taken as it is.

    Raises:
        UserError: if the file is missing, no archive of ``torch.save``, or another one than was written.
    """
    if _rank() != 0:
        return
    try:
        found = os.stat(path)
        key = (os.path.realpath(path), found.st_size, found.st_mtime_ns, found.st_ino)
        if key in _whole:
            return
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED or part.flag_bits & 1 for part in parts):
                raise UserError(f"{path}: compressed or encrypted: torch.save writes no such checkpoint: {EARLIER}")
            wrong = archive.testzip() if any(part.CRC for part in parts) else None
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    # all that zipfile raises of damaged headers, whose numbers it takes for places, sizes and versions
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, OverflowError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that is a damaged place to seek
            raise UserError(f"{path}: cannot be read ({error.strerror}): make it readable, or copy it again") from None
        raise UserError(
            f"{path}: truncated or damaged ({os.path.getsize(path)} bytes), or no checkpoint: {EARLIER}"
        ) from None
    if wrong is not None:
        raise UserError(f"{path}: damaged, '{wrong}' in it has another checksum than was written: {EARLIER}")
    _whole.add(key)


def _refusal(path: str, error: Exception) -> str:
    if _OBJECTS.search(str(error)):
        return (
            f"{path}: asks for Python objects beyond plain weights and is not loaded, since they could run code: "
            "convert it to a plain checkpoint where it was made"
        )
    return f"{path}: not a checkpoint, or damaged: {EARLIER}"


def _rank() -> int:
    """Of this process in its training, if there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    return int(os.environ.get("RANK", "0"))
