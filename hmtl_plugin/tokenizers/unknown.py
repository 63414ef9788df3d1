"""Pieces of a text that its tokenizer does not know: from which share on it is said, and what they stand for."""

import logging
from collections.abc import Iterable, Sequence

from hmtl_plugin.errors import printable
from hmtl_plugin.tokenizers.base import UNK, Tokenizer

logger = logging.getLogger(__name__)

SAID, REFUSED = 0.01, 0.5
"""Shares of a text's pieces."""
_EXAMPLES, _TEXTS, _SHOWN = 8, 200, 20


def unknown_parts(tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    """Some characters of the texts that become ``<unk>``, or words whose characters alone would not."""
    found: dict[str, None] = {}
    for _, text in zip(range(_TEXTS), texts, strict=False):
        for word in text.split():
            if UNK in tokenizer.encode(word):
                found |= dict.fromkeys([c for c in word if UNK in tokenizer.encode(c)] or [word])
        if len(found) >= _EXAMPLES:
            break
    return list(found)[:_EXAMPLES]


def describe(unknown: int, tokens: int, parts: Sequence[str]) -> str:
    """``12.3 % of the pieces are <unk> (among them: x, y)``."""
    shown = ", ".join(part if len(part) <= _SHOWN else f"{part[:_SHOWN]}..." for part in parts)
    among = f" (among them: {printable(shown)})" if parts else ""
    return f"{100 * unknown / max(tokens, 1):.1f} % of the pieces are <unk>{among}"


def warn(place: str, unknown: int, tokens: int, parts: Sequence[str]) -> None:
    """Say it in a line, if it is worth one."""
    if unknown > SAID * tokens:
        logger.warning(f"{place}: {describe(unknown, tokens, parts)}: the tokenizer does not fit this text")
