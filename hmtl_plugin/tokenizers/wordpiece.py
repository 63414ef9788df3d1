"""WordPiece, the tokenizer of BERT, through the library `tokenizers` (Hugging Face, Apache 2.0; Rust): the one that
BERT checkpoints are used with, so that ids are the same.

Its file is a tokenizer.json; `wordpiece_files` reads what BERT published. BERT's specials take fairseq's names and
places in the dictionary: [CLS] is <s>, [SEP] is </s>, [PAD], [UNK] and [MASK] are theirs.
"""

import itertools
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from hmtl_plugin.errors import UserError
from hmtl_plugin.tokenizers.base import MASK, NEVER, SPECIALS, UNK, WORDPIECE, IdArray, Tokenizer, fits_dictionary

CONTINUES = "##"
UNKNOWN = "[UNK]"
BERT_SPECIALS = {"[CLS]": SPECIALS[0], "[PAD]": SPECIALS[1], "[SEP]": SPECIALS[2], "[UNK]": SPECIALS[3], "[MASK]": MASK}
FILLER = "madeupword{:04d}"  # as fairseq names symbols of a dictionary that no text reaches
MAX_WORD_CHARACTERS = 100
_NO_SPECIALS: dict[str, Any] = {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}


class WordPieceTokenizer(Tokenizer):
    """See `Tokenizer`.

    Args:
        content: a tokenizer.json whose model is WordPiece.
        source: for messages.
        symbols: of a dictionary to speak in; by default its own: fairseq's specials, ``<mask>``, the pieces in their
            order.

    Attributes:
        added: tokens that the file adds to its vocabulary, BERT's specials aside; they are not used: text is text here.
        fillers: pieces that a dictionary cannot hold, with white space, which splitting removes from all text;
            fairseq's names of fillers stand for them, in `pieces` too.
        followed: where the folder that it was read from contradicts itself, which file counted.
    """

    followed: Sequence[str] = ()

    def __init__(self, content: bytes, source: str = WORDPIECE, symbols: Sequence[str] | None = None) -> None:
        self._content, self._source, self.file_name = content, source, WORDPIECE
        settings = _settings(content, source)
        self.added = _added(settings, source)
        self._library = _library({**settings, **_NO_SPECIALS}, source)
        self.pieces, self.fillers = _pieces(settings["model"]["vocab"], source)
        own = [*SPECIALS, MASK, *(piece for piece in self.pieces if piece not in (*SPECIALS, MASK))]
        self.symbols = list(symbols) if symbols is not None else own
        self._to_dictionary = self.table([piece in (*SPECIALS[:3], MASK) for piece in self.pieces])

    def to_bytes(self) -> bytes:
        """The tokenizer.json, byte for byte as it was loaded."""
        return self._content

    def __getstate__(self) -> tuple[bytes, str, list[str]]:
        return self._content, self._source, self.symbols

    def __setstate__(self, state: tuple[bytes, str, list[str]]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def speaking_in(self, symbols: Sequence[str]) -> "WordPieceTokenizer":
        """See `Tokenizer`."""
        return WordPieceTokenizer(self._content, self._source, symbols)

    def encode_flat(self, texts: list[str]) -> tuple[IdArray, IdArray]:
        """See `Tokenizer`."""
        pieces = [found.ids for found in self._library.encode_batch_fast(texts, add_special_tokens=False)]
        lengths = np.fromiter(map(len, pieces), dtype=np.int64, count=len(pieces))
        flat = np.fromiter(itertools.chain.from_iterable(pieces), dtype=np.int64, count=int(lengths.sum()))
        return self._ids(flat), lengths

    def encode_with_ranges(self, text: str) -> tuple[IdArray, IdArray]:
        """See `Tokenizer`."""
        found = self._library.encode(text, add_special_tokens=False)
        return self._ids(np.array(found.ids, dtype=np.int64)), np.array(found.offsets, dtype=np.int64).reshape(-1, 2)

    def _ids(self, pieces_N: IdArray) -> IdArray:
        ids_N = self._to_dictionary[pieces_N]
        ids_N[ids_N == NEVER] = UNK
        return ids_N

    def decode(self, ids: Sequence[int] | IdArray) -> str:
        """See `Tokenizer`."""
        words: list[str] = []
        for i in np.asarray(ids, dtype=np.int64).tolist():
            if not 0 <= i < len(self.symbols):
                raise UserError(f"id {i} is outside the vocabulary of {len(self.symbols)}")
            symbol = self.symbols[i]
            if symbol in SPECIALS[:UNK]:
                continue
            if symbol.startswith(CONTINUES) and words:
                words[-1] += symbol.removeprefix(CONTINUES)
            else:
                words.append(symbol)
        return " ".join(words)


def wordpiece_file(
    vocabulary: Sequence[str], lowercase: bool, strip_accents: bool | None = None, split_chinese: bool = True
) -> bytes:
    """A tokenizer.json with BERT's normalisation; an id is a piece's place.

    Args:
        strip_accents: None: as ``lowercase``.
        split_chinese: every Chinese character is a word.
    """
    settings: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": split_chinese,
            "strip_accents": strip_accents,
            "lowercase": lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": {"type": "WordPiece", "prefix": CONTINUES, "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": UNKNOWN,
            "continuing_subword_prefix": CONTINUES,
            "max_input_chars_per_word": MAX_WORD_CHARACTERS,
            "vocab": {piece: number for number, piece in enumerate(vocabulary)},
        },
    }
    return file_content(settings, WORDPIECE)


def file_content(settings: dict[str, Any], source: str) -> bytes:
    """A tokenizer.json of these settings."""
    try:
        return (json.dumps(settings, ensure_ascii=False, indent=1) + "\n").encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{source}: holds what is no text ({error}): fetch it again") from None


def _settings(content: bytes, source: str) -> dict[str, Any]:
    """What the file says."""
    try:
        settings = json.loads(content)
        model = settings["model"]
        kind, vocabulary = (
            model.get("type", "WordPiece" if "continuing_subword_prefix" in model else None),
            model["vocab"],
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{source}: no tokenizer.json of the library tokenizers: give the one of a BERT checkpoint"
        ) from None
    if kind != "WordPiece" or not isinstance(vocabulary, dict):
        raise UserError(
            f"{source}: its model is {kind}, not WordPiece: give a sentencepiece model, or the tokenizer of a BERT"
        )
    if model.get("continuing_subword_prefix") != CONTINUES:
        raise UserError(f"{source}: pieces go on with {model.get('continuing_subword_prefix')!r}, not {CONTINUES!r}")
    if model.get("unk_token") != UNKNOWN:
        raise UserError(f"{source}: what it does not know becomes {model.get('unk_token')!r}, not {UNKNOWN!r}")
    for part in ("normalizer", "pre_tokenizer"):
        if not isinstance(settings.get(part) or {}, dict):
            raise UserError(f"{source}: its {part} is {settings[part]!r}, no object: fetch it again")
    return dict(settings)


def _added(settings: dict[str, Any], source: str) -> list[str]:
    """See `WordPieceTokenizer`."""
    tokens = settings.get("added_tokens") or []
    if not isinstance(tokens, list) or not all(isinstance(token, dict) for token in tokens):
        raise UserError(f"{source}: its added_tokens are no list of tokens: fetch it again")
    return [name for token in tokens if (name := str(token.get("content"))) not in BERT_SPECIALS]


def _pieces(vocabulary: dict[str, int], source: str) -> tuple[list[str], list[str]]:
    """By id, specials and fillers by fairseq's names; and what the fillers are."""
    numbers = list(vocabulary.values())
    if {*map(type, numbers)} != {int} or sorted(numbers) != list(range(len(numbers))):
        raise UserError(
            f"{source}: its ids are not 0 to {len(vocabulary) - 1}, each once: a piece comes twice, or one is missing"
        )
    missing = [name for name in BERT_SPECIALS if name not in vocabulary]
    if missing:
        raise UserError(f"{source}: lacks {', '.join(missing)}: give the vocabulary of a BERT checkpoint")
    by_id = sorted(vocabulary, key=lambda piece: vocabulary[piece])
    taken = [piece for piece in by_id if piece in BERT_SPECIALS.values()]
    if taken:
        raise UserError(f"{source}: has a piece {taken[0]}, which is a special of fairseq's dictionary")
    text = "".join(by_id)
    spaced = text.split() != [text]  # first of all at once, which is fast
    fillers = [piece for piece in by_id if not fits_dictionary(piece)] if spaced else []
    names = BERT_SPECIALS | {piece: FILLER.format(number) for number, piece in enumerate(fillers)}
    return [names.get(piece, piece) for piece in by_id], fillers


def _library(settings: dict[str, Any], source: str) -> Any:
    # Processes that read text are forked after this: its threads would not be there, and it would warn of that.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import tokenizers
    except ImportError:
        raise UserError(f"{source}: WordPiece needs the package tokenizers: pip install tokenizers") from None
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(settings))
    except Exception as error:  # the library raises nothing more exact
        raise UserError(
            f"{source}: not a tokenizer that the library tokenizers {tokenizers.__version__} reads ({error})"
        ) from None
