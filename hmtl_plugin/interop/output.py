"""Writing what imports and exports make: whole or not at all, errors in a line."""

import os
from collections.abc import Callable
from pathlib import Path

from hmtl_plugin.data.output import OutputFolder
from hmtl_plugin.errors import UserError


def refuse_existing(out: Path) -> None:
    """`UserError` if there is something at ``out``, were it a link to nowhere."""
    if os.path.lexists(out):
        raise UserError(f"--out {out}: is there already: remove it, or name another")


def write_folder(out: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write into a folder beside ``out``, which becomes ``out`` when it is whole.

    Raises:
        UserError: if it cannot be written, as another run writes it; then nothing stays.
    """
    try:
        with OutputFolder(out, overwrite=False) as output:
            refuse_existing(out)  # again, under the lock: another run may have come first
            fill(output.part)
            output.publish()
    except Exception as error:
        if not _of_writing(error):
            raise
        raise UserError(f"--out {out}: cannot be written ({_reason(error)}); nothing was kept") from None


def _of_writing(error: Exception) -> bool:
    """Also what torch and safetensors make of a full disk, which is no `OSError`."""
    return (
        isinstance(error, OSError) or type(error).__name__ == "SafetensorError" or "PytorchStreamWriter" in str(error)
    )


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())[:120]
