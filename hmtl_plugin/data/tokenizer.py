"""The sentencepiece tokenizer in terms of dictionary ids, and its training.

Our own models are trained with fairseq's ids (``<s>`` 0, ``<pad>`` 1, ``</s>`` 2, ``<unk>`` 3, ``<mask>`` 4),
so a piece's id is its dictionary id. Any other model works through a table from its ids to the dictionary's.
"""

import hashlib
import io
import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hmtl_plugin.errors import UserError

if TYPE_CHECKING:
    from fairseq.data import Dictionary

FILE_NAME = "sentencepiece.bpe.model"  # the name under which fairseq's hub looks for it, whatever the model type
MASK = "<mask>"
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
UNK = 3
_SPACE = "\u2581"
_NEVER = -1  # in the id table: a special that text must not become
_TRAINING_THREADS = 4  # fixed: sums of floats depend on it, the machine must not
_MAX_TRAINING_BYTES = 4096
_LITERALS = re.compile(r"<(?=/?[A-Za-z]+>)")
IdArray = npt.NDArray[np.int64]


class Tokenizer:
    """Text to dictionary ids and back. Load one with `load` or `from_bytes`.

    Args:
        content: the bytes of a sentencepiece model.
        file_name: the name to store it under.
        symbols: symbols of a dictionary to speak in; by default the tokenizer's own, see `dictionary`.
    """

    def __init__(self, content: bytes, file_name: str = FILE_NAME, symbols: Sequence[str] | None = None) -> None:
        self._content, self.file_name = content, file_name
        self._processor = _processor(content, file_name)
        self._pieces = [self._processor.id_to_piece(i) for i in range(self._processor.get_piece_size())]
        self.symbols: list[str] = list(symbols) if symbols is not None else self._own_symbols()
        self._to_dictionary = self._table()
        self._from_dictionary = np.full(len(self.symbols), self._processor.unk_id(), dtype=np.int64)
        plain = self._to_dictionary > UNK
        self._from_dictionary[self._to_dictionary[plain]] = np.flatnonzero(plain)

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """The tokenizer in a sentencepiece model file; `UserError` when it is missing or none."""
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
        return cls(content, FILE_NAME) if _is_model(content) else _refuse(path)

    @classmethod
    def from_bytes(cls, file_name: str, content: bytes) -> "Tokenizer":
        """The tokenizer that `to_bytes` gave, as it travels in a checkpoint."""
        return cls(content, file_name) if _is_model(content) else _refuse(file_name)

    @staticmethod
    def find(folder: Path | str) -> Path | None:
        """The tokenizer file of a data or checkpoint folder, None where there is none."""
        path = Path(folder) / FILE_NAME
        return path if path.is_file() else None

    def to_bytes(self) -> bytes:
        """The sentencepiece model, byte for byte as it was loaded."""
        return self._content

    def __getstate__(self) -> tuple[bytes, str, list[str]]:
        return self._content, self.file_name, self.symbols

    def __setstate__(self, state: tuple[bytes, str, list[str]]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    @property
    def sha256(self) -> str:
        """Fingerprint of the model file."""
        return hashlib.sha256(self._content).hexdigest()

    def _own_symbols(self) -> list[str]:
        """fairseq's four, ``<mask>`` at 4 unless the model has one of its own, then the pieces in their
        order.
        """
        model, taken = self._processor, set(SPECIALS)
        pieces = [p for i, p in enumerate(self._pieces) if not (p in taken or model.is_unknown(i))]
        return [*SPECIALS, *([] if MASK in pieces else [MASK]), *pieces]

    def _table(self) -> IdArray:
        """(pieces,) the dictionary id of each piece; `_NEVER` for what text must never become."""
        index = {symbol: i for i, symbol in enumerate(self.symbols)}
        model = self._processor
        table = np.empty(len(self._pieces), dtype=np.int64)
        for i, piece in enumerate(self._pieces):
            if model.is_unknown(i):
                table[i] = UNK
            elif model.is_control(i) or model.is_unused(i) or piece in SPECIALS or piece == MASK:
                table[i] = _NEVER
            else:
                table[i] = index.get(piece, UNK)
        return table

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
            if symbol != symbol.strip() or re.search("[\r\n]", symbol):
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
        if MASK not in self._pieces and (MASK not in other or other.index(MASK) != own.index(MASK)):
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
        known = set(self._pieces)
        others = [s for s in dictionary.symbols if s not in SPECIALS and s != MASK and not s.startswith("madeupword")]
        if 2 * sum(symbol in known for symbol in others) < len(others):
            raise UserError(
                f"{self.file_name} does not belong to the dictionary: it has fewer than half of its symbols"
            )
        return Tokenizer(self._content, self.file_name, dictionary.symbols)

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

    def encode_flat(self, texts: list[str]) -> tuple[IdArray, IdArray]:
        """All ids of many texts in one array, and the number of ids of each text."""
        pieces = self._processor.encode(texts, num_threads=1)
        lengths = np.fromiter(map(len, pieces), dtype=np.int64, count=len(pieces))
        flat = np.fromiter(itertools.chain.from_iterable(pieces), dtype=np.int64, count=int(lengths.sum()))
        ids_N = self._to_dictionary[flat]
        if not (ids_N < 0).any():
            return ids_N, lengths
        text_N = np.repeat(np.arange(len(texts)), lengths)
        for text in np.unique(text_N[ids_N < 0]).tolist():  # rare: the model knows a special by its name
            pieces[text] = self._without_specials(texts[text])
        lengths = np.fromiter(map(len, pieces), dtype=np.int64, count=len(pieces))
        flat = np.fromiter(itertools.chain.from_iterable(pieces), dtype=np.int64, count=int(lengths.sum()))
        return np.where(self._to_dictionary[flat] < 0, UNK, self._to_dictionary[flat]), lengths

    def _without_specials(self, text: str) -> list[int]:
        return list(self._processor.encode(_LITERALS.sub("< ", text)))

    def encode_with_ranges(self, text: str) -> tuple[IdArray, IdArray]:
        """(N,) ids as `encode` gives them and (N, 2) the characters [begin, end) of the text each was made of, white
        space included; see `hmtl_plugin.data.offsets`.
        """
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
        """Text of dictionary ids. ``<s>``, ``</s>`` and ``<pad>`` vanish, ``<mask>`` and ``<unk>`` show as
        such.
        """
        text = ""
        run: list[int] = []

        def finish_run() -> str:
            if not run:
                return ""
            ends = [self._pieces[run[0]].startswith(_SPACE), self._pieces[run[-1]] == _SPACE]
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


def _processor(content: bytes, file_name: str) -> Any:
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_proto=content)
    except Exception as error:
        raise UserError(f"{file_name}: not a sentencepiece model; give the .model file that spm_train wrote") from error


def _is_model(content: bytes) -> bool:
    return content[:1] == b"\n"  # field 1 of the protocol buffer, the pieces; anything else makes the library log


def _refuse(path: Path | str) -> "Tokenizer":
    raise UserError(f"{path}: not a sentencepiece model; give the .model file that spm_train wrote")


def training_text(sentences: Iterable[str]) -> Iterable[str]:
    """Sentences as the trainer takes them: over-long ones in pieces of at most 4,096 bytes, cut at spaces."""
    for sentence in sentences:
        if len(sentence) * 4 <= _MAX_TRAINING_BYTES or len(sentence.encode()) <= _MAX_TRAINING_BYTES:
            yield sentence
            continue
        part: list[str] = []
        size = 0
        for word in sentence.split(" "):
            length = len(word.encode()) + 1
            if size + length > _MAX_TRAINING_BYTES and part:
                yield " ".join(part)
                part, size = [], 0
            if length <= _MAX_TRAINING_BYTES:
                part.append(word)
                size += length
        if part:
            yield " ".join(part)


def train_tokenizer(
    sentences: Iterable[str], vocab_size: int, model_type: str = "unigram", character_coverage: float = 0.9995
) -> bytes:
    """Train a sentencepiece model with fairseq's ids; the same sentences give the same bytes.

    Args:
        sentences: tidy sentences, already sampled.
        vocab_size: pieces in all, the five specials included; the size of the dictionary.
        model_type: ``unigram`` or ``bpe``.
        character_coverage: share of the text's characters that get a piece; the rest becomes ``<unk>``.

    Raises:
        UserError: the text is too little for so many pieces, or has more characters than pieces.
    """
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(training_text(sentences)),
            model_writer=model,
            vocab_size=vocab_size,
            model_type=model_type,
            character_coverage=character_coverage,
            max_sentence_length=_MAX_TRAINING_BYTES + 1,
            bos_id=0,
            pad_id=1,
            eos_id=2,
            unk_id=3,
            bos_piece=SPECIALS[0],
            pad_piece=SPECIALS[1],
            eos_piece=SPECIALS[2],
            unk_piece=SPECIALS[3],
            control_symbols=[MASK],
            num_threads=_TRAINING_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explain(error, vocab_size) from error
    return model.getvalue()


def _explain(error: RuntimeError, vocab_size: int) -> UserError:
    message = str(error)
    if found := re.search(r"set it to a value <= (\d+)", message):
        return UserError(f"--vocab-size {vocab_size} is too large for this text; the largest possible is {found[1]}")
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return UserError(
            f"--vocab-size {vocab_size} is too small for this text: its characters alone need {found[1]}; "
            "raise it or lower --character-coverage"
        )
    return UserError(
        f"sentencepiece cannot train on this text with --vocab-size {vocab_size}: {' '.join(message.split())}"
    )
