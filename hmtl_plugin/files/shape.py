"""What a value that was read from a file, or written by a user, must look like: said once, and where it does not.

By hand: pydantic or jsonschema would be a dependency for these few checks alone.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NamedTuple

from hmtl_plugin.errors import UserError

Shape = Any
"""A type, or several in a tuple (``bool`` is no ``int`` here, and None is ``type(None)``); ``[shape]``: a list of such;
``{"key": shape, "key?": shape}``: a mapping with these keys, those with ``?`` if present, and any others;
``{str: shape}``: a mapping with keys of a type; a `Check`; ``object``: anything.
"""


class Check(NamedTuple):
    """A shape of one's own: how it is called in messages, and what tells it."""

    name: str
    holds: Callable[[Any], bool]


COUNT = Check("a number from 0", lambda value: type(value) is int and 0 <= value < 2**63)


def one_of(*values: Any) -> Check:
    """Nothing but these."""
    return Check(" or ".join(map(repr, values)), lambda value: type(value) in map(type, values) and value in values)


NUMBER = Check("a finite number", lambda value: type(value) in (int, float) and abs(value) < 1e300)


def read_json(path: Path, shape: Shape, again: str) -> Any:
    """What a JSON file of ours holds.

    Args:
        again: how to make the file anew, for the message.

    Raises:
        UserError: if it is damaged, or its content is not as ``shape`` says.
        FileNotFoundError: if there is none.
    """
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {again}") from None
    except (ValueError, RecursionError) as error:
        found: str | None = f"no JSON, {' '.join(str(error).split())[:200]}"
    else:
        found = misfit(value, shape)
    if found is not None:
        raise UserError(f"{path}: damaged or of another version ({found}); {again}")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file that others wrote.

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


def misfit(value: Any, shape: Shape, where: str = "") -> str | None:
    """The first part of ``value`` that is not as ``shape`` says, as in ``'splits.valid.rows' is a str, not an int``.

    Returns:
        None where all is as it must be.
    """
    if isinstance(shape, Check):
        return None if shape.holds(value) else f"{_name(where)} is not {shape.name}"
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{_name(where)} is {_kind(type(value))}, not a list"
        found = (misfit(item, shape[0], f"{where}[{number}]") for number, item in enumerate(value))
        return next(filter(None, found), None)
    if isinstance(shape, dict):
        return _misfit_of_mapping(value, shape, where)
    types = shape if isinstance(shape, tuple) else (shape,)
    if isinstance(value, types) and not (isinstance(value, bool) and not {bool, object} & set(types)):
        return None
    return f"{_name(where)} is {_kind(type(value))}, not {' or '.join(map(_kind, types))}"


def optional(shape: dict[Any, Shape]) -> dict[Any, Shape]:
    """The same, but any key may be missing, at any depth."""
    inner = {key: optional(value) if isinstance(value, dict) else value for key, value in shape.items()}
    return {f"{key}?" if isinstance(key, str) and not key.endswith("?") else key: value for key, value in inner.items()}


def shape_of_options(options: type) -> dict[str, Shape]:
    """Of a configuration stored as a mapping, whose options a dataclass has; each may be missing."""
    return {f"{each.name}?": _shape_of_option(each.default) for each in fields(options)}


def _shape_of_option(default: Any) -> Shape:
    if default is None or default is MISSING or (isinstance(default, str) and default.startswith("${")):
        return object
    if isinstance(default, bool):
        return bool
    if isinstance(default, int):
        return int
    if isinstance(default, float):
        return NUMBER
    return str if isinstance(default, str) else object


def _misfit_of_mapping(value: Any, shape: dict[Any, Shape], where: str) -> str | None:
    if not isinstance(value, Mapping):
        return f"{_name(where)} is {_kind(type(value))}, not a mapping"
    for key, inner in shape.items():
        if isinstance(key, type):
            parts = [(name, each, inner) for name, each in value.items()]
            if any(not isinstance(name, key) for name, _, _ in parts):
                return f"{_name(where)} has keys that are not {_kind(key)}"
        else:
            name = key.removesuffix("?")
            if name not in value:
                if key.endswith("?"):
                    continue
                return f"{_name(where)} lacks '{name}'"
            parts = [(name, value[name], inner)]
        for name, each, expected in parts:
            if (found := misfit(each, expected, f"{where}.{name}" if where else str(name))) is not None:
                return found
    return None


def _name(where: str) -> str:
    return f"'{where[:80]}'" if where else "it"


def _kind(kind: type) -> str:
    if kind is type(None):
        return "nothing"
    return f"{'an' if kind.__name__[0] in 'aeiou' else 'a'} {kind.__name__}"


_WHOLE = re.compile("[0-9]{1,18}")


def whole(text: str) -> int | None:
    """A whole number from 0 that 64 bits hold; None for anything else.

    ``str.isdigit`` is true of '²', ``str.isdecimal`` of '9' five thousand times over, and ``int`` reads neither.
    """
    return int(text) if _WHOLE.fullmatch(text) else None
