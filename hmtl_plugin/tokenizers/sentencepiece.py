"""The sentencepiece tokenizer.

Our own models are trained with fairseq's ids (`tokenizers.training`), so a piece's id is its dictionary id. Any other
model works through a table from its ids to the dictionary's.
"""

import itertools
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from hmtl_plugin.errors import UserError
from hmtl_plugin.tokenizers.base import MASK, SENTENCEPIECE, SPECIALS, UNK, IdArray, Tokenizer

_SPACE = "\u2581"
_WORD = "0"  # that no normalisation joins to its neighbours
_NO_BLANKS = b"\x1a\x04\x18\x00\x20\x00"  # more of the message of the normaliser: no dummy prefix, no blanks removed
_LITERALS = re.compile(r"<(?=/?[A-Za-z]+>)")


class SentencePieceTokenizer(Tokenizer):
    """See `Tokenizer`.

    Args:
        content: the bytes of a sentencepiece model.
        file_name: the name to store it under.
        symbols: symbols of a dictionary to speak in; by default the tokenizer's own, see `dictionary`.
        source: where it comes from, for messages.
    """

    def __init__(
        self,
        content: bytes,
        file_name: str = SENTENCEPIECE,
        symbols: Sequence[str] | None = None,
        source: str | None = None,
    ) -> None:
        self._content, self.file_name = content, file_name
        self._processor = _processor(content, source or file_name)
        try:
            self.pieces = [self._processor.id_to_piece(i) for i in range(self._processor.get_piece_size())]
        except UnicodeDecodeError as error:
            raise UserError(f"{source or file_name}: damaged: a piece is no text ({error}): fetch it again") from None
        self.symbols = list(symbols) if symbols is not None else self._own_symbols()
        self._to_dictionary = self._table()
        self._from_dictionary = np.full(len(self.symbols), self._processor.unk_id(), dtype=np.int64)
        plain = self._to_dictionary > UNK
        self._from_dictionary[self._to_dictionary[plain]] = np.flatnonzero(plain)

    def to_bytes(self) -> bytes:
        """The sentencepiece model, byte for byte as it was loaded."""
        return self._content

    def __getstate__(self) -> tuple[bytes, str, list[str]]:
        return self._content, self.file_name, self.symbols

    def __setstate__(self, state: tuple[bytes, str, list[str]]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def speaking_in(self, symbols: Sequence[str]) -> "SentencePieceTokenizer":
        """See `Tokenizer`."""
        return SentencePieceTokenizer(self._content, self.file_name, symbols)

    def _own_symbols(self) -> list[str]:
        """fairseq's four, ``<mask>`` at 4 unless the model has one of its own, then the pieces in their
        order.
        """
        model, taken = self._processor, set(SPECIALS)
        pieces = [p for i, p in enumerate(self.pieces) if not (p in taken or model.is_unknown(i))]
        return [*SPECIALS, *([] if MASK in pieces else [MASK]), *pieces]

    def _table(self) -> IdArray:
        model = self._processor
        never = [
            model.is_control(i) or model.is_unused(i) or piece in SPECIALS or piece == MASK
            for i, piece in enumerate(self.pieces)
        ]
        table = self.table(never)
        table[[model.is_unknown(i) for i in range(len(table))]] = UNK
        return table

    def scores(self) -> dict[str, float]:
        """The log-probability (unigram) or rank (BPE) of each piece that text can become, bytes aside."""
        plain = [i for i in np.flatnonzero(self._to_dictionary > UNK).tolist() if not self._processor.is_byte(i)]
        return {self.pieces[i]: float(self._processor.get_score(i)) for i in plain}

    def falls_back_to_bytes(self) -> bool:
        """Whether characters without a piece become pieces of their UTF-8 bytes instead of ``<unk>``."""
        return any(self._processor.is_byte(i) for i in range(len(self.pieces)))

    def encode_flat(self, texts: list[str]) -> tuple[IdArray, IdArray]:
        """See `Tokenizer`."""
        return self._encode_flat(self._processor, texts)

    def encode_parts(self, parts: Sequence[str]) -> list[list[int]]:
        """See `Tokenizer`."""
        if len(parts) == 1:
            return self.encode_batch(list(parts))
        texts = [self._normalised(part, number, number + 1 == len(parts)) for number, part in enumerate(parts)]
        return [self._encode_flat(self._inner, [text])[0].tolist() for text in texts]

    @cached_property
    def _inner(self) -> Any:
        """The model for text that is normalised: it puts no blank before it and takes none away."""
        return _processor(self._content + _NO_BLANKS, self.file_name)

    def _normalised(self, part: str, number: int, last: bool) -> str:
        """A part of a text as it is within the whole, without the blank that belongs to a mask beside it."""
        before, after = ("" if number == 0 else _WORD), ("" if last else _WORD)
        text = str(self._processor.normalize(f"{before}{part}{after}"))
        text = text[text.index(before) + len(before) : text.rindex(after) if after else None]
        if self._processor.normalize(_WORD).endswith(_SPACE):  # the mark ends a word
            return text.removeprefix(_SPACE) if before else text
        return text.removesuffix(_SPACE) if after else text

    def _encode_flat(self, processor: Any, texts: list[str]) -> tuple[IdArray, IdArray]:
        pieces = processor.encode(texts, num_threads=1)
        lengths = np.fromiter(map(len, pieces), dtype=np.int64, count=len(pieces))
        flat = np.fromiter(itertools.chain.from_iterable(pieces), dtype=np.int64, count=int(lengths.sum()))
        ids_N = self._to_dictionary[flat]
        if not (ids_N < 0).any():
            return ids_N, lengths
        text_N = np.repeat(np.arange(len(texts)), lengths)
        for text in np.unique(text_N[ids_N < 0]).tolist():  # rare: the model knows a special by its name
            pieces[text] = processor.encode(_LITERALS.sub("< ", texts[text]))
        lengths = np.fromiter(map(len, pieces), dtype=np.int64, count=len(pieces))
        flat = np.fromiter(itertools.chain.from_iterable(pieces), dtype=np.int64, count=int(lengths.sum()))
        return np.where(self._to_dictionary[flat] < 0, UNK, self._to_dictionary[flat]), lengths

    def encode_with_ranges(self, text: str) -> tuple[IdArray, IdArray]:
        """See `Tokenizer`."""
        ids_N, ranges_N2 = self._ids_and_ranges(text)
        if not (ids_N < 0).any():
            return ids_N, ranges_N2
        ids_N, ranges_N2 = self._ids_and_ranges(_LITERALS.sub("< ", text))
        added = np.array([match.end() + before for before, match in enumerate(_LITERALS.finditer(text))])
        return np.where(ids_N < 0, UNK, ids_N), ranges_N2 - np.searchsorted(added, ranges_N2)

    def _ids_and_ranges(self, text: str) -> tuple[IdArray, IdArray]:
        found = self._processor.encode(text, return_type="offset_mapping")
        ids_N = self._to_dictionary[np.array(found["ids"], dtype=np.int64)]
        return ids_N, np.array(found["offsets"], dtype=np.int64).reshape(-1, 2)

    def decode(self, ids: Sequence[int] | IdArray) -> str:
        """See `Tokenizer`."""
        text = ""
        run: list[int] = []

        def finish_run() -> str:
            if not run:
                return ""
            ends = [self.pieces[run[0]].startswith(_SPACE), self.pieces[run[-1]] == _SPACE]
            words = self._processor.decode(run).strip(" ")
            run.clear()
            return " " * ends[0] + words + " " * (ends[1] and bool(words))

        for i in np.asarray(ids, dtype=np.int64).tolist():
            if not 0 <= i < len(self.symbols):
                raise UserError(f"id {i} is outside the vocabulary of {len(self.symbols)}")
            if self.symbols[i] == MASK:
                text = f"{text}{finish_run()}".rstrip(" ") + f" {MASK}"
            elif i == UNK:
                text += finish_run() + SPECIALS[UNK]
            elif i > UNK and self._from_dictionary[i] != self._processor.unk_id():
                run.append(int(self._from_dictionary[i]))
        return (text + finish_run()).strip()


def _processor(content: bytes, source: str) -> Any:
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_proto=content)
    except Exception as error:
        raise UserError(f"{source}: not a sentencepiece model; give the .model file that spm_train wrote") from error
