"""The manifest of a folder of prepared fine-tuning data: what is in it and of what it was made."""

from pathlib import Path
from typing import Any

from hmtl_plugin.files.shape import Shape, one_of, read_json

SCHEMA = 1
_AGAIN = "prepare the data again with --overwrite"


def read_prepared(path: Path, shape: dict[str, Shape]) -> dict[str, Any] | None:
    """The manifest in a file (``glue.json``, ``squad.json``) of a shape; None where there is none.

    Raises:
        UserError: for one that cannot be read.
    """
    try:
        return dict(read_json(path, {"schema": one_of(SCHEMA), "tokenizer_sha256": str, **shape}, _AGAIN))
    except (FileNotFoundError, NotADirectoryError):
        return None
