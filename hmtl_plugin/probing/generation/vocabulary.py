"""The words of the sampled text, and what their letters say of them."""

import functools
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
_CHUNK = 1 << 14  # sentences whose words are held at once


@dataclass(frozen=True)
class Vocabulary:
    """V different words, as they stand between blanks.

    Attributes:
        words: their text.
        core_V: number of the word without letter case and without the punctuation around it: ``Dog,`` and
            ``dog`` share one.
        bare_V: nothing but a letter or digit begins or ends the word: no punctuation is attached.
        letters_V: letters alone.
        lower_V: has no capital.
    """

    words: list[str]
    core_V: IntArray
    bare_V: BoolArray
    letters_V: BoolArray
    lower_V: BoolArray

    def __len__(self) -> int:
        return len(self.words)


@functools.cache
def _is_part(character: str) -> bool:
    """Letters and digits, and the vowel signs and accents (marks) that belong to letters."""
    return character.isalnum() or unicodedata.category(character).startswith("M")


@functools.cache
def _is_letter(character: str) -> bool:
    return character.isalpha() or unicodedata.category(character).startswith("M")


def core(word: str) -> str:
    """A word in small letters, without what is no letter or digit at its ends; as it stands if nothing is left."""
    begin, end = 0, len(word)
    while begin < end and not _is_part(word[begin]):
        begin += 1
    while begin < end and not _is_part(word[end - 1]):
        end -= 1
    return word[begin:end].lower() or word


def is_bare(word: str) -> bool:
    """Whether a word begins and ends with a letter or digit."""
    return _is_part(word[0]) and _is_part(word[-1])


def _numbers() -> defaultdict[str, int]:
    """A table that numbers what it is asked for, in the order of asking."""
    table: defaultdict[str, int] = defaultdict()
    table.default_factory = table.__len__
    return table


def number_words(sentences: Sequence[str]) -> tuple[Vocabulary, npt.NDArray[np.int32], IntArray]:
    """The vocabulary, the N words of all sentences as numbers, and where each sentence starts (S + 1 places)."""
    table = _numbers()
    parts = [np.empty(0, dtype=np.int32)]
    lengths = np.fromiter((s.count(" ") + 1 for s in sentences), dtype=np.int64, count=len(sentences))
    for chunk in range(0, len(sentences), _CHUNK):
        words = " ".join(sentences[chunk : chunk + _CHUNK]).split(" ")
        parts.append(np.fromiter(map(table.__getitem__, words), dtype=np.int32, count=len(words)))
    start_S1 = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
    return _described(list(table)), np.concatenate(parts), start_S1


def _described(words: list[str]) -> Vocabulary:
    cores = _numbers()

    def flags(values: Iterable[bool]) -> BoolArray:
        return np.fromiter(values, dtype=np.bool_, count=len(words))

    return Vocabulary(
        words,
        np.fromiter((cores[core(word)] for word in words), dtype=np.int64, count=len(words)),
        flags(map(is_bare, words)),
        flags(word.isalpha() or all(map(_is_letter, word)) for word in words),
        flags(word == word.lower() for word in words),
    )
