"""Settings in a TOML file: a study's profile, the recipes' table."""

import tomllib
from pathlib import Path
from typing import Any

from hmtl_plugin.errors import UserError


def read_toml(path: Path, wanted: str) -> dict[str, Any]:
    """A file's content.

    Args:
        wanted: what to give where there is no such file, as ``name a profile``.

    Raises:
        UserError: naming the file, for one that cannot be read or is no TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: {wanted}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {error}") from None
