"""The documents of the validation split as text: what to probe on that pre-training never saw."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hmtl_plugin.data.manifest import HeldOutText, file_sha256
from hmtl_plugin.errors import UserError
from hmtl_plugin.preparation.gather import Spool

FILE_NAME = "held_out.txt"


def write_held_out(spool: Spool, valid_D: npt.NDArray[np.bool_], path: Path) -> HeldOutText:
    """Write the held-out documents of a spool to `path`; returns what corpus.json says of the file.

    The text is what the tokenizer is given, not what it makes of it: sentences as they were read, one a line, with a
    blank line between documents (``--format sentences``). A row of a pair is two lines. Memory holds one line.

    Args:
        valid_D: bool, the documents of the validation split.
    """
    document, last_written = 0, -1
    documents = sentences = 0
    with spool.text.open("rb") as lines, path.open("wb") as file:
        for line in lines:
            if line == b"\n":  # stands before every document but the first
                document += 1
                continue
            if not valid_D[document]:
                continue
            if document != last_written:
                file.write(b"\n" if documents else b"")
                documents, last_written = documents + 1, document
            sides = line.replace(b"\t", b"\n")
            file.write(sides)
            sentences += sides.count(b"\n")
    return HeldOutText(documents=documents, sentences=sentences, bytes=path.stat().st_size, sha256=file_sha256(path))


def has_held_out(folder: Path, recorded: HeldOutText | None) -> bool:
    """Whether a data folder holds the held-out text that its corpus.json records.

    Raises:
        UserError: a file of that name is there, and it is another.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return False
    if recorded is None or file_sha256(path) != recorded["sha256"]:
        raise UserError(f"{path}: is not the held-out text of this corpus; move it away, and --write-valid writes it")
    return True
