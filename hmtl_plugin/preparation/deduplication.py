"""Which documents are kept and where they go: exact duplicates, excluded sentences, train or validation.

Everything works on 64-bit hashes of normalised text, 8 bytes a document or excluded sentence; text is never
held. Among 10 million documents the chance that any two different ones meet in a hash is 3 in a million.
"""

import functools
import hashlib
import unicodedata
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from hmtl_plugin.corruption.random import GOLDEN, mix

Uint64Array = npt.NDArray[np.uint64]

_DROPPED_CATEGORIES = ("P", "Z", "C", "Sk")  # punctuation, spaces, control and format characters, ` and ^


def _dropped(character: str) -> bool:
    return unicodedata.category(character).startswith(_DROPPED_CATEGORIES)


_ASCII = bytes(range(128))
_ASCII_DROPPED = bytes(code for code in range(128) if _dropped(chr(code)))
_ASCII_LOWER = bytes(code + 32 if 65 <= code <= 90 else code for code in range(256))


def normalise(text: str) -> bytes:
    """What counts when texts are compared: case folded, without white space, punctuation and the like.

    `The  "cat", sat!` and `the cat sat` are equal. Where lines break does not matter, and a text cut at line
    ends may be normalised in parts.
    """
    raw = text.encode("utf-8")
    if not text.isascii():
        wide = _wide_characters(raw)
        if not all(map(_is_simple, wide)):
            raw = unicodedata.normalize("NFKC", text).encode("utf-8")
            wide = _wide_characters(raw)
        for character in wide:
            if (replacement := _replacement(character)) != character:
                raw = raw.replace(character.encode("utf-8"), replacement.encode("utf-8"))
    return raw.translate(_ASCII_LOWER, _ASCII_DROPPED)


def _wide_characters(raw: bytes) -> set[str]:
    """The different characters beyond ASCII of a UTF-8 text; there are few."""
    return set(raw.translate(None, _ASCII).decode("utf-8"))


@functools.cache
def _is_simple(character: str) -> bool:
    """Whether NFKC leaves the character alone wherever it stands."""
    code = ord(character)
    in_plain_block = code < 0x300 or 0x2010 <= code <= 0x2027
    return in_plain_block and unicodedata.normalize("NFKC", character) == character


@functools.cache
def _replacement(character: str) -> str:
    return "" if _dropped(character) else character.casefold()


def comparable(text: str) -> bytes:
    """`normalise`, but a text of nothing but punctuation keeps it (less the spaces): `...` is not `---`."""
    return normalise(text) or "".join(text.split()).encode("utf-8")


def new_hash() -> "hashlib.blake2b":
    """The running 64-bit hash behind every key; feed it `normalise`d text."""
    return hashlib.blake2b(digest_size=8)


def key(text: str) -> int:
    """64-bit key of a text's normalised form."""
    return int.from_bytes(hashlib.blake2b(comparable(text), digest_size=8).digest(), "little")


def split_keys(document_keys: Uint64Array, seed: int) -> Uint64Array:
    """A uniform 64-bit number for each document, a function of its content and the seed."""
    salt = int.from_bytes(hashlib.blake2b(f"split {seed}".encode(), digest_size=8).digest(), "little")
    return mix((document_keys ^ np.uint64(salt)) + GOLDEN)


def choose_validation(keys: Uint64Array, fraction: float, documents: int | None = None) -> npt.NDArray[np.bool_]:
    """(D,) which documents go to the validation split; stable: a document added to the corpus moves no other, but where
    the least number decides.

    With `documents` those with the smallest keys; else every document with its chance of `fraction`, but for a
    fraction above 0 at least two, as next-sentence prediction takes segments from two (one where fewer than four
    documents would leave none or one to train on). All False where nothing is asked for.
    """
    if documents is not None:
        return _smallest(keys, documents)
    if fraction <= 0:
        return np.zeros(len(keys), dtype=np.bool_)
    chosen = keys < np.uint64(int(fraction * 2**64))
    fewest = 2 if len(keys) >= 4 else 1
    return chosen if chosen.sum() >= fewest else _smallest(keys, fewest)


def _smallest(keys: Uint64Array, count: int) -> npt.NDArray[np.bool_]:
    """Which are the `count` smallest, or all."""
    chosen = np.zeros(len(keys), dtype=np.bool_)
    if count := min(count, len(keys)):
        chosen[np.argpartition(keys, count - 1)[:count]] = True
    return chosen


class SeenKeys:
    """A growing set of 64-bit keys, 8 bytes a key (16 while two runs are merged), in a few sorted runs."""

    def __init__(self) -> None:
        self._runs: list[Uint64Array] = []

    def add(self, keys: Uint64Array) -> npt.NDArray[np.bool_]:
        """Add keys; True for each that was not there, the first of equal ones included."""
        unique, first = np.unique(keys, return_index=True)
        fresh = np.ones(len(unique), dtype=np.bool_)
        for run in self._runs:
            fresh &= ~contains(run, unique)
        is_new = np.zeros(len(keys), dtype=np.bool_)
        is_new[first[fresh]] = True
        if fresh.any():
            self._runs.append(unique[fresh])
        while len(self._runs) > 1 and len(self._runs[-2]) <= 2 * len(self._runs[-1]):
            merged = np.concatenate([self._runs.pop(), self._runs.pop()])
            merged.sort(kind="stable")
            self._runs.append(merged)
        return is_new

    def __len__(self) -> int:
        return sum(map(len, self._runs))


def contains(sorted_keys: Uint64Array, keys: Uint64Array) -> npt.NDArray[np.bool_]:
    """For each of `keys` whether it is among `sorted_keys`."""
    if not len(sorted_keys):
        return np.zeros(len(keys), dtype=np.bool_)
    place = np.searchsorted(sorted_keys, keys)
    place[place == len(sorted_keys)] = 0
    return sorted_keys[place] == keys


class ExcludedSentences:
    """The normalised sentences of evaluation files, 8 bytes each.

    ``minimum_words``: shorter sentences ("Yes.", "He said.") are not counted as shared; 1 counts every
    sentence.
    """

    def __init__(self, minimum_words: int = 1) -> None:
        self.minimum_words = minimum_words
        self._parts: list[Uint64Array] = []
        self._sorted: Uint64Array = np.empty(0, dtype=np.uint64)

    def keys(self, sentences: Iterable[str]) -> Uint64Array:
        """The keys of those sentences that are long enough to count; none for empty ones."""
        enough = self.minimum_words
        found = [key(s) for s in sentences if s and (enough <= 1 or s.count(" ") + 1 >= enough)]
        return np.array(found, dtype=np.uint64)

    def add(self, keys: Uint64Array) -> None:
        """Exclude these keys; call `seal` after the last."""
        self._parts.append(np.unique(keys))

    def seal(self) -> None:
        """Make the set ready for `shared`."""
        self._sorted = np.unique(np.concatenate([self._sorted, *self._parts]))
        self._parts = []

    def shared(self, sentences: Iterable[str]) -> bool:
        """Whether any of these sentences is excluded."""
        return bool(contains(self._sorted, self.keys(sentences)).any())

    def __len__(self) -> int:
        return len(self._sorted)
