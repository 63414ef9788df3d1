"""WordPiece, the tokenizer of BERT, through the library `tokenizers` (Hugging Face, Apache 2.0; Rust): the one that BERT checkpoints
are used with, so that ids are the same.

A file is a tokenizer.json, or a vocab.txt with a tokenizer_config.json beside it, as BERT was published. BERT's specials take
fairseq's names and places in the dictionary: [CLS] is <s>, [SEP] is </s>, [PAD], [UNK] and [MASK] are theirs.
"""

import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hmtl_plugin.data.tokenizer import MASK, NEVER, SPECIALS, UNK, WORDPIECE, IdArray, Tokenizer
from hmtl_plugin.errors import UserError

CONTINUES = "##"
UNKNOWN = "[UNK]"
BERT_SPECIALS = {"[CLS]": SPECIALS[0], "[PAD]": SPECIALS[1], "[SEP]": SPECIALS[2], "[UNK]": SPECIALS[3], "[MASK]": MASK}
_CONFIG = "tokenizer_config.json"
_NORMALIZER_NAMES = {  # in tokenizer_config.json, and in tokenizer.json
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
_MAX_CAPITALS = 0.01  # of the pieces of an uncased vocabulary
_MAX_WORD_CHARACTERS = 100


class WordPieceTokenizer(Tokenizer):
    """See `Tokenizer`.

    Args:
        content: a tokenizer.json whose model is WordPiece.
        source: for messages.
        symbols: of a dictionary to speak in; by default its own: fairseq's specials, ``<mask>``, the pieces in their order.

    Attributes:
        added: tokens that the file adds to its vocabulary, BERT's specials aside; they are not used: text is text here.
    """

    def __init__(self, content: bytes, source: str = WORDPIECE, symbols: Sequence[str] | None = None) -> None:
        self._content, self._source, self.file_name = content, source, WORDPIECE
        settings = _settings(content, source)
        self.added = _added(content)
        self._library = _library(settings, source)
        vocabulary: dict[str, int] = settings["model"]["vocab"]
        self.pieces = _pieces(vocabulary, source)
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


def from_vocabulary_file(path: Path) -> WordPieceTokenizer:
    """The tokenizer of a vocab.txt; case as the tokenizer_config.json beside it says. Without a word on case, a vocabulary with
    capitals is a cased one.

    Raises:
        UserError: if a file cannot be read, or is no vocabulary.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    vocabulary = [line.removesuffix("\r") for line in lines[: -1 if lines[-1] == "" else None]]
    if "" in vocabulary:
        raise UserError(f"{path}: line {vocabulary.index('') + 1} is empty: a line is a piece; fetch it again")
    config = _tokenizer_config(path.parent)
    content = wordpiece_file(
        vocabulary,
        bool(config.get("do_lower_case", not _has_capitals(vocabulary))),
        config.get("strip_accents"),
        bool(config.get("tokenize_chinese_chars", True)),
    )
    return WordPieceTokenizer(content, str(path))


def from_tokenizer_file(path: Path, content: bytes) -> WordPieceTokenizer:
    """The tokenizer of a tokenizer.json. Where a tokenizer_config.json of BERT beside it says other things of case, accents or
    Chinese, it counts, as it does for transformers.
    """
    settings, config = _settings(content, str(path)), _tokenizer_config(path.parent)
    normalizer = settings.get("normalizer")
    if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        return WordPieceTokenizer(content, str(path))
    if not str(config.get("tokenizer_class", "BertTokenizer")).startswith("BertTokenizer"):
        return WordPieceTokenizer(content, str(path))
    meant = {ours: config[theirs] for theirs, ours in _NORMALIZER_NAMES.items() if theirs in config}
    if all(normalizer.get(name) == value for name, value in meant.items()):
        return WordPieceTokenizer(content, str(path))
    changed = json.loads(content) | {"normalizer": {**normalizer, **meant}}
    return WordPieceTokenizer((json.dumps(changed, ensure_ascii=False, indent=1) + "\n").encode(), str(path))


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, empty where there is none."""
    path = folder / _CONFIG
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no JSON ({error}): fetch it again, or remove it") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: is no JSON object: fetch it again, or remove it")
    return config


def _has_capitals(vocabulary: Sequence[str]) -> bool:
    """More than a few pieces, specials in brackets aside, that lower-cased text cannot become."""
    capitals = sum(piece != piece.lower() for piece in vocabulary if not piece.startswith("["))
    return capitals > _MAX_CAPITALS * len(vocabulary)


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
            "max_input_chars_per_word": _MAX_WORD_CHARACTERS,
            "vocab": {piece: number for number, piece in enumerate(vocabulary)},
        },
    }
    return (json.dumps(settings, ensure_ascii=False, indent=1) + "\n").encode()


def _settings(content: bytes, source: str) -> dict[str, Any]:
    """What the file says, without what would let text become a special, or cut it."""
    try:
        settings = json.loads(content)
        model = settings["model"]
        kind, vocabulary = (
            model.get("type", "WordPiece" if "continuing_subword_prefix" in model else None),
            model["vocab"],
        )
    except (ValueError, KeyError, TypeError, AttributeError):
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
    return {**settings, "added_tokens": [], "post_processor": None, "truncation": None, "padding": None}


def _added(content: bytes) -> list[str]:
    """See `WordPieceTokenizer`; ``content`` as `_settings` has accepted it."""
    tokens = json.loads(content).get("added_tokens") or []
    named = [str(token.get("content")) for token in tokens if isinstance(token, dict)]
    return [name for name in named if name not in BERT_SPECIALS]


def _pieces(vocabulary: dict[str, int], source: str) -> list[str]:
    """By id, specials by fairseq's names."""
    by_id = sorted(vocabulary, key=lambda piece: vocabulary[piece])
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise UserError(
            f"{source}: its ids are not 0 to {len(vocabulary) - 1}, each once: a piece comes twice, or one is missing"
        )
    missing = [name for name in BERT_SPECIALS if name not in vocabulary]
    if missing:
        raise UserError(f"{source}: lacks {', '.join(missing)}: give the vocabulary of a BERT checkpoint")
    taken = [piece for piece in by_id if piece in BERT_SPECIALS.values()]
    if taken:
        raise UserError(f"{source}: has a piece {taken[0]}, which is a special of fairseq's dictionary")
    return [BERT_SPECIALS.get(piece, piece) for piece in by_id]


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
