"""What corruption needs to know of a token id: specials, word starts, pieces without punctuation."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

WORD_BOUNDARY = "\u2581"  # sentencepiece's mark at the start of a word
CONTINUATION = "##"  # WordPiece's mark on the pieces that go on with one
MASK = "<mask>"
# A dictionary of spaced text marks over half of its pieces, one of Chinese, Japanese or Thai text next to none.
MIN_MARKED_SHARE = 0.05


class DictionaryLike(Protocol):
    """The part of fairseq's Dictionary that is read here."""

    symbols: list[str]

    def bos(self) -> int: ...
    def pad(self) -> int: ...
    def eos(self) -> int: ...
    def unk(self) -> int: ...


def _is_plain(piece: str) -> bool:
    """Letters, marks and digits only: nothing attached that would give a word's place away."""
    bare = piece.removeprefix(WORD_BOUNDARY).removeprefix(CONTINUATION)
    if bare.isascii():  # the same, at once
        return bare.isalnum() or not bare
    return all(unicodedata.category(character)[0] in "LMN" for character in bare)


def _marked(symbols: Sequence[str]) -> npt.NDArray[np.bool_]:
    """(V,) which symbols have sentencepiece's mark."""
    return np.array([symbol.startswith(WORD_BOUNDARY) for symbol in symbols])


def _continuing(symbols: Sequence[str]) -> npt.NDArray[np.bool_]:
    """(V,) which symbols have WordPiece's mark."""
    return np.array([symbol.startswith(CONTINUATION) and symbol != CONTINUATION for symbol in symbols])


def word_starts(symbols: Sequence[str]) -> npt.NDArray[np.bool_]:
    """(V,) which symbols begin what is marked as a word, however few are marked; all where none is."""
    marked_V = _marked(symbols)
    return marked_V if marked_V.any() else ~_continuing(symbols)


def _word_starts(symbols: Sequence[str]) -> tuple[npt.NDArray[np.bool_], bool]:
    """(V,) which symbols begin a word, and whether words are known at all; see `Vocabulary.from_dictionary`."""
    marked_V = _marked(symbols)
    if marked_V.sum() >= MIN_MARKED_SHARE * len(symbols):
        return marked_V, True
    continuing_V = _continuing(symbols)
    if continuing_V.sum() >= MIN_MARKED_SHARE * len(symbols):
        return ~continuing_V, True
    return np.ones(len(symbols), dtype=bool), not marked_V.any()


def _is_filler(symbol: str) -> bool:
    """Rows that no text ever holds: of fairseq's dictionaries, padded to a multiple of 8, and of BERT's vocabularies."""
    return (symbol.startswith("madeupword") and symbol[10:].isdigit()) or (
        symbol.startswith("[unused") and symbol.endswith("]")
    )


@dataclass(frozen=True)
class Vocabulary:
    """Tables over the V token ids of a dictionary.

    Attributes:
        special_V: bool, ids that are never masked, moved or used as a replacement (``<s> <pad> </s> <unk> <mask>``).
        word_start_V: bool, the piece begins a word.
        plain_V: bool, the piece holds letters, marks and digits only.
        replacements: int64, the ids that may stand in for a masked token.
        has_words: whether word boundaries are known; without them every piece counts as a word.
    """

    bos: int
    pad: int
    eos: int
    unk: int
    mask: int
    special_V: npt.NDArray[np.bool_]
    word_start_V: npt.NDArray[np.bool_]
    plain_V: npt.NDArray[np.bool_]
    replacements: npt.NDArray[np.int64]
    has_words: bool

    @property
    def size(self) -> int:
        """V, the number of ids."""
        return len(self.special_V)

    def without_words(self) -> "Vocabulary":
        """The same for a text whose blanks stand between phrases: every piece counts as a word."""
        return replace(self, word_start_V=np.ones_like(self.word_start_V), has_words=False)

    @classmethod
    def from_dictionary(cls, dictionary: DictionaryLike) -> "Vocabulary":
        """Read the tables off a fairseq dictionary that holds ``<mask>``.

        Word boundaries come from sentencepiece's marks, or from WordPiece's, which stand on the pieces that go on with
        a word (its words are runs of letters, and single marks of punctuation). A dictionary without a single mark is
        one of whole words (what ``fairseq-preprocess`` writes for tokenised text), so each of its symbols begins a
        word. One with very few of sentencepiece's is of a script that writes no spaces: each piece is a unit and
        ``has_words`` is false.
        """
        symbols: Sequence[str] = dictionary.symbols
        mask = symbols.index(MASK)
        special = np.zeros(len(symbols), dtype=bool)
        fillers = [i for i, symbol in enumerate(symbols) if _is_filler(symbol)]
        special[[dictionary.bos(), dictionary.pad(), dictionary.eos(), dictionary.unk(), mask, *fillers]] = True
        word_start_V, has_words = _word_starts(symbols)
        return cls(
            bos=dictionary.bos(),
            pad=dictionary.pad(),
            eos=dictionary.eos(),
            unk=dictionary.unk(),
            mask=mask,
            special_V=special,
            word_start_V=word_start_V,
            plain_V=np.array([_is_plain(symbol) for symbol in symbols]) & ~special,
            replacements=np.flatnonzero(~special).astype(np.int64),
            has_words=has_words,
        )
