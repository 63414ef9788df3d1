"""Reading a JSON file that others wrote."""

import json
from pathlib import Path
from typing import Any

from hmtl_plugin.errors import UserError


def read_object(path: Path) -> dict[str, Any]:
    """The object in a file.

    Raises:
        UserError: if it holds something else, or is damaged.
        OSError: if it cannot be read.
    """
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: no JSON ({error}): fetch it again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: is no JSON object: fetch it again")
    return found
