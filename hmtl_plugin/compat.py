"""All that a living Python, torch and numpy need of fairseq 0.12, in one place, each with its reason.

No file of an installed package is edited. Importing this module imports fairseq, quietly and in a version that works,
and does the rest: whatever of this package imports fairseq imports this before, a package in its ``__init__``.
"""

import argparse
import collections
import importlib.metadata
import logging
import os
import shutil
import sys
import tempfile
import typing
import warnings
from pathlib import Path
from typing import Any

from hmtl_plugin.files.checkpoint_file import read_checkpoint
from hmtl_plugin.files.publishing import write_whole

PYTHON = ((3, 11), (3, 14))
FAIRSEQ = "0.12.3"


def check_versions() -> None:
    """Refuse an unsupported Python or fairseq in one line.

    Raises:
        ImportError: naming what is installed and what is needed.
    """
    if not PYTHON[0] <= sys.version_info[:2] < PYTHON[1]:
        raise ImportError(
            f"hmtl_plugin needs Python 3.11 to 3.13, this is {sys.version.split()[0]}: make an environment with one of these"
        )
    try:
        version = importlib.metadata.version("fairseq-fixed")
    except importlib.metadata.PackageNotFoundError:
        found = next((n for n in ("fairseq",) if _installed(n)), None)
        state = f"found {found} {importlib.metadata.version(found)}" if found else "found none"
        raise ImportError(
            f"hmtl_plugin needs fairseq-fixed {FAIRSEQ}.x, the fairseq that imports on Python 3.11 ({state}): "
            "run bash scripts/setup.sh"
        ) from None
    if not version.startswith(FAIRSEQ):
        raise ImportError(f"hmtl_plugin needs fairseq-fixed {FAIRSEQ}.x, found {version}: run bash scripts/setup.sh")


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _quiet_import() -> None:
    """Importing fairseq must not turn on debug logging for the whole process.

    One of its model files calls ``logging.basicConfig(level=DEBUG)``, which does nothing once the root logger has a
    handler.
    """
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    if not handlers:
        root.addHandler(logging.NullHandler())
    # advice to install tensorboardX, logged at INFO by a text-to-speech task that is of no use here
    logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)
    import fairseq.models
    import fairseq.tasks  # noqa: F401

    root.setLevel(level)
    if not handlers:
        root.handlers.clear()


def _filter_warnings() -> None:
    """Warnings of fairseq's own calls that a user can do nothing about."""
    for message in (
        r"hydra\.experimental\..*is no longer experimental",
        r"\s*The version_base parameter is not specified",
        r"In '.*': Usage of deprecated keyword in package header",
        r"\s*'config' is validated against ConfigStore schema",
        r"\s*The strict flag in the compose API is deprecated",
        r"'pin_memory' argument is set as true",
        r".*apex.*multi_tensor_l2norm|amp_C fused kernels unavailable",
    ):
        warnings.filterwarnings("ignore", message=message, category=UserWarning)
    warnings.filterwarnings("ignore", message=r"`torch\.cuda\.amp\.(autocast|GradScaler)", category=FutureWarning)


def _allow_checkpoint_globals() -> None:
    """What torch must accept when it loads fairseq checkpoints with ``weights_only=True``, its default.

    Plain containers, configs and numpy scalars, none of which run code. Needed for broadcasting a checkpoint to other
    ranks (DictConfig, _TensorPlaceholder) and for checkpoints of fairseq's own tasks (Namespace, numpy scalars).
    """
    import numpy as np
    import torch
    from fairseq.distributed.utils import _TensorPlaceholder
    from numpy._core.multiarray import scalar as type_of_scalars
    from omegaconf import DictConfig, ListConfig
    from omegaconf.base import ContainerMetadata, Metadata
    from omegaconf.nodes import AnyNode

    torch.serialization.add_safe_globals(
        [
            *(argparse.Namespace, _TensorPlaceholder, DictConfig, ListConfig, ContainerMetadata, Metadata, AnyNode),
            *(typing.Any, collections.defaultdict, dict, list, int, type_of_scalars, np.dtype),
            *(type(np.dtype(name)) for name in ("float64", "float32", "int64", "int32", "bool")),
        ]
    )


def _write_whole_checkpoints() -> None:
    """Checkpoints appear whole, and a full disk is one line.

    ``checkpoint_last.pt`` is a copy that fairseq writes in place: a kill there would leave half a file. Where a disk is
    full, fairseq writes again, and a third time, behind what it had written, and leaves the file there. And to see
    whether it can write into a folder, it empties and removes a file there that may be somebody's, "dummy".
    """
    import torch
    from fairseq import checkpoint_utils
    from fairseq.file_io import PathManager

    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> str:
        if not overwrite and os.path.exists(dst_path):
            raise FileExistsError(dst_path)
        with write_whole(Path(dst_path)) as part:
            shutil.copyfile(src_path, part)
        return dst_path

    in_background = checkpoint_utils.torch_persistent_save

    def torch_persistent_save(obj: Any, filename: str, async_write: bool = False) -> None:
        if async_write:
            in_background(obj, filename, async_write=True)
            return
        with write_whole(Path(filename)) as part:
            torch.save(obj, part)

    def verify_checkpoint_directory(save_dir: str) -> None:
        os.makedirs(save_dir, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=save_dir):
            pass

    PathManager.copy = staticmethod(copy)
    checkpoint_utils.torch_persistent_save = torch_persistent_save
    checkpoint_utils.verify_checkpoint_directory = verify_checkpoint_directory


def _explain_unreadable_checkpoints() -> None:
    """A damaged checkpoint, or one that asks for more than plain data, is refused in one line before fairseq reads it."""
    from fairseq import checkpoint_utils

    original = checkpoint_utils.load_checkpoint_to_cpu
    if getattr(original, "explains", False):
        return

    def load_checkpoint_to_cpu(path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        read_checkpoint(path)
        return original(path, *args, **kwargs)

    load_checkpoint_to_cpu.explains = True  # type: ignore[attr-defined]
    checkpoint_utils.load_checkpoint_to_cpu = load_checkpoint_to_cpu


check_versions()
_quiet_import()
_filter_warnings()
_allow_checkpoint_globals()
_write_whole_checkpoints()
_explain_unreadable_checkpoints()
