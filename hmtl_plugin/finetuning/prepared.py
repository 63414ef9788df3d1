"""The manifest of a folder of prepared fine-tuning data: what is in it and of what it was made."""

import json
from pathlib import Path
from typing import Any

from hmtl_plugin.errors import UserError

SCHEMA = 1


def read_prepared(path: Path) -> dict[str, Any] | None:
    """The manifest in a file (``glue.json``, ``squad.json``); None where there is none.

    Raises:
        UserError: for one that cannot be read.
    """
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["schema"] == SCHEMA:
            return dict(manifest)
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path}: damaged or of another version; prepare the data again with --overwrite")
