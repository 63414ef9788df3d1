"""What a user reads when a file is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hmtl_plugin.errors import UserError


def refusal(path: Path, read: Callable[[Path], object]) -> str:
    """The one line with which a file is refused, without the file's name, with which it begins."""
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")
