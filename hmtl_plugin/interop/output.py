"""Writing what imports and exports make: whole or not at all, errors in a line."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.output_folder import OutputFolder


def refuse_existing(out: Path) -> None:
    """`UserError` if there is something at ``out``, were it a link to nowhere."""
    if os.path.lexists(out):
        raise UserError(f"--out {out}: is there already: remove it, or name another")


def write_folder(out: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write into a folder beside ``out``, which becomes ``out`` when it is whole.

    Raises:
        UserError: if it cannot be written, as another run writes it; then nothing stays.
    """
    with explained_out(out), OutputFolder(out, overwrite=False) as output:
        refuse_existing(out)  # again, under the lock: another run may have come first
        fill(output.part)
        output.publish()


@contextlib.contextmanager
def explained_out(out: Path) -> Iterator[None]:
    """What the system refuses while ``out`` is written, in a line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror or error}); nothing was kept") from None
