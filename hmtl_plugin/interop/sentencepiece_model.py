"""What a sentencepiece model file says and the library does not tell: how it normalises, its kind, what it was given.

The file is a protocol buffer (sentencepiece_model.proto). Few fields are read here, which needs no package for that.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from hmtl_plugin.errors import UserError

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # fields of the model
_PIECE, _PIECE_TYPE, _USER_DEFINED = 1, 3, 4  # of a piece, and a value
_MODEL_TYPE, _SPACE_AT_END = 3, 24  # of the trainer's settings
_CHARSMAP, _DUMMY_PREFIX, _EXTRA_SPACES = 2, 3, 4  # of the normaliser's
_KINDS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class ModelSettings:
    """Of a model.

    Attributes:
        kind: ``unigram``, ``bpe``, ``word`` or ``char``.
        charsmap: the compiled normalisation, may be empty.
        dummy_prefix: a space is put before every text.
        strips_spaces: spaces at the ends vanish, several become one.
        space_at_end: the mark of a space ends a piece instead of beginning it.
        user_defined: pieces that the trainer was given (``user_defined_symbols``).
    """

    kind: str
    charsmap: bytes
    dummy_prefix: bool
    strips_spaces: bool
    space_at_end: bool
    user_defined: tuple[str, ...]


def read_settings(content: bytes, source: str) -> ModelSettings:
    """Settings of a model file; `UserError` for bytes that are none."""
    try:
        model = dict(_fields(content))
        pieces = [dict(_fields(_bytes(value))) for number, value in _fields(content) if number == _PIECES]
        given = tuple(_part(p, _PIECE).decode() for p in pieces if p.get(_PIECE_TYPE) == _USER_DEFINED)
        trainer, normalizer = dict(_fields(_part(model, _TRAINER))), dict(_fields(_part(model, _NORMALIZER)))
    except (IndexError, ValueError):
        raise UserError(f"{source}: not a sentencepiece model; give the .model file that spm_train wrote") from None
    return ModelSettings(
        _KINDS.get(int(trainer.get(_MODEL_TYPE, 1)), "unknown"),
        _part(normalizer, _CHARSMAP),
        bool(normalizer.get(_DUMMY_PREFIX, 1)),
        bool(normalizer.get(_EXTRA_SPACES, 1)),
        bool(trainer.get(_SPACE_AT_END, 0)),
        given,
    )


def _part(message: dict[int, int | bytes], number: int) -> bytes:
    return _bytes(message.get(number, b""))


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError
    return value


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field; of numbers that come again (pieces) the last counts for a reader."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, place = _varint(message, place)
            yield number, value
        elif wire == _BYTES:
            length, place = _varint(message, place)
            if place + length > len(message):
                raise ValueError
            yield number, message[place : place + length]
            place += length
        elif wire in (_FIXED64, _FIXED32):
            place += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
