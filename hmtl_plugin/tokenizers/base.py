"""Text to dictionary ids and back, whatever the tokenizer: what all kinds have in common.

A tokenizer speaks in the ids of a fairseq dictionary: ``<s>`` 0, ``<pad>`` 1, ``</s>`` 2, ``<unk>`` 3, ``<mask>`` 4
unless its dictionary says otherwise, then its pieces.
"""

import hashlib
import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hmtl_plugin.errors import UserError

if TYPE_CHECKING:
    from fairseq.data import Dictionary

SENTENCEPIECE = "sentencepiece.bpe.model"  # the name under which fairseq's hub looks for it, whatever the model type
WORDPIECE = "tokenizer.json"
FILE_NAMES = (SENTENCEPIECE, WORDPIECE)
VOCABULARY = "vocab.txt"  # what BERT published; beside it tokenizer_config.json
MASK = "<mask>"
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
UNK = 3
NEVER = -1  # in a table of ids: a special that text must not become
IdArray = npt.NDArray[np.int64]


class Tokenizer(ABC):
    """Text to dictionary ids and back. `tokenizers.loading` opens one.

    Attributes:
        file_name: the name to store it under.
        symbols: of the dictionary it speaks in: a symbol's place is its id.
        pieces: of the tokenizer itself, in its own order, specials by their names in a dictionary.
    """

    file_name: str
    symbols: list[str]
    pieces: list[str]

    @abstractmethod
    def to_bytes(self) -> bytes:
        """The file's content, byte for byte as it was loaded."""

    @abstractmethod
    def speaking_in(self, symbols: Sequence[str]) -> "Tokenizer":
        """The same tokenizer with the ids of another dictionary."""

    @abstractmethod
    def encode_flat(self, texts: list[str]) -> tuple[IdArray, IdArray]:
        """All ids of many texts in one array, and the number of ids of each text; no specials added, none in the text."""

    @abstractmethod
    def encode_with_ranges(self, text: str) -> tuple[IdArray, IdArray]:
        """(N,) ids as `encode` gives them and (N, 2) the characters [begin, end) of the text each was made of, white
        space included; see `hmtl_plugin.tokenizers.offsets`.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int] | IdArray) -> str:
        """Text of dictionary ids. ``<s>``, ``</s>`` and ``<pad>`` vanish, ``<mask>`` and ``<unk>`` show as
        such.
        """

    @property
    def sha256(self) -> str:
        """Fingerprint of the file."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def __len__(self) -> int:
        """V, the size of the dictionary."""
        return len(self.symbols)

    def dictionary(self) -> "Dictionary":
        """A fairseq dictionary whose ids are this tokenizer's; ``save`` writes the dict.txt that loads as the
        same.
        """
        from fairseq.data import Dictionary

        dictionary = Dictionary()
        for symbol in self.symbols[len(SPECIALS) :]:
            dictionary.add_symbol(symbol)
        return dictionary

    def dictionary_text(self) -> str:
        """dict.txt as fairseq's ``Dictionary.save`` writes it; `UserError` for pieces that it could not read
        back.
        """
        for symbol in self.symbols[len(SPECIALS) :]:
            if not fits_dictionary(symbol):
                raise UserError(
                    f"the tokenizer's piece {symbol!r} holds white space, which fairseq's dict.txt cannot; "
                    "train one with the default normalisation (leave out --tokenizer)"
                )
        if len(set(self.symbols)) != len(self.symbols):
            raise UserError("the tokenizer has the same piece twice; train another (leave out --tokenizer)")
        return "".join(f"{symbol} 1\n" for symbol in self.symbols[len(SPECIALS) :])

    def check(self, dictionary: "Dictionary") -> None:
        """`UserError` unless the dictionary's ids are this tokenizer's; symbols added at its end do not
        matter.
        """
        own, other = self.symbols, list(dictionary.symbols)
        if MASK not in self.pieces and (MASK not in other or other.index(MASK) != own.index(MASK)):
            own = [symbol for symbol in own if symbol != MASK]  # built without <mask>; the task adds it at the end
            other = [symbol for symbol in other if symbol != MASK]
        if other[: len(own)] == own:
            return
        place = next((i for i, pair in enumerate(zip(own, other)) if pair[0] != pair[1]), min(len(own), len(other)))
        theirs = repr(other[place]) if place < len(other) else "nothing"
        raise UserError(
            f"{self.file_name} does not belong to the dictionary: id {place} is {theirs} in dict.txt "
            f"and {own[place]!r} in the tokenizer; use the tokenizer that the data was prepared with"
        )

    def bound_to(self, dictionary: "Dictionary") -> "Tokenizer":
        """The same tokenizer speaking in the ids of a dictionary of other order (built by counting, as stock
        fairseq does).

        `UserError` when fewer than half of the dictionary's symbols are pieces of this tokenizer.
        """
        known = set(self.pieces)
        others = [s for s in dictionary.symbols if s not in SPECIALS and s != MASK and not s.startswith("madeupword")]
        if 2 * sum(symbol in known for symbol in others) < len(others):
            raise UserError(
                f"{self.file_name} does not belong to the dictionary: it has fewer than half of its symbols"
            )
        return self.speaking_in(dictionary.symbols)

    def encode(self, text: str) -> list[int]:
        """Dictionary ids of a text, no specials added; no text, not even ``<mask>`` or ``</s>``, becomes a
        special.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """`encode` for many texts at once."""
        ids_N, lengths = self.encode_flat(texts)
        bounds = [0, *np.cumsum(lengths).tolist()]
        flat = ids_N.tolist()
        return [flat[start:end] for start, end in itertools.pairwise(bounds)]

    def encode_parts(self, parts: Sequence[str]) -> list[list[int]]:
        """Ids of the parts of a text between which a piece each is masked: those that they have in the whole text.

        To WordPiece a mask is a word, as it is for BERT's users.
        """
        return self.encode_batch(list(parts))

    def table(self, never: Sequence[bool]) -> IdArray:
        """(pieces,) the dictionary id of each piece; `NEVER` for those that text must never become, ``<unk>`` for
        unknown ones.
        """
        index = {symbol: i for i, symbol in enumerate(self.symbols)}
        ids = [NEVER if refused else index.get(piece, UNK) for piece, refused in zip(self.pieces, never, strict=True)]
        return np.array(ids, dtype=np.int64)


def fits_dictionary(symbol: str) -> bool:
    """Whether it has no white space at its ends and no line end within, and so can stand in a line of dict.txt."""
    return symbol == symbol.strip() and not re.search("[\r\n]", symbol)
