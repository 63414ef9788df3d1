"""Numbers that a user writes."""

import re

_WHOLE = re.compile("[0-9]{1,18}")


def whole(text: str) -> int | None:
    """A whole number from 0 that 64 bits hold; None for anything else.

    ``str.isdigit`` is true of '²', ``str.isdecimal`` of '9' five thousand times over, and ``int`` reads neither.
    """
    return int(text) if _WHOLE.fullmatch(text) else None
