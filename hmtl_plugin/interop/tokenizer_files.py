"""A tokenizer of ours as a fast tokenizer of Hugging Face's that gives the same ids: tokenizer.json and its two
settings files.

WordPiece keeps the ids it was imported with. Sentencepiece models keep ours, the dictionary's. Written by hand and not
by the library `tokenizers`, which exporting does not need then.
"""

import base64
import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hmtl_plugin.errors import UserError
from hmtl_plugin.interop.names import Family
from hmtl_plugin.interop.sentencepiece_model import ModelSettings, read_settings
from hmtl_plugin.tokenizers.base import MASK, SPECIALS, Tokenizer
from hmtl_plugin.tokenizers.sentencepiece import SentencePieceTokenizer
from hmtl_plugin.tokenizers.wordpiece import BERT_SPECIALS, WordPieceTokenizer

TOKENIZER, CONFIG, SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
_SPACE = "\u2581"
_ROLES = {
    SPECIALS[0]: "cls_token",
    SPECIALS[2]: "sep_token",
    SPECIALS[1]: "pad_token",
    SPECIALS[3]: "unk_token",
    MASK: "mask_token",
}
_UNREACHABLE = -1e6  # the score of a piece that no text may become


def id_order(tokenizer: Tokenizer, symbols: Sequence[str]) -> list[int]:
    """For each id of the export, ours."""
    if not isinstance(tokenizer, WordPieceTokenizer):
        return list(range(len(symbols)))
    index = {symbol: number for number, symbol in enumerate(symbols)}
    own = set(tokenizer.pieces)
    return [index[piece] for piece in tokenizer.pieces] + [n for n, symbol in enumerate(symbols) if symbol not in own]


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Ids in the export of the specials, by our names."""
    listed = tokenizer.pieces if isinstance(tokenizer, WordPieceTokenizer) else tokenizer.symbols
    return {name: listed.index(name) for name in (*SPECIALS, MASK)}


def tokenizer_files(tokenizer: Tokenizer, symbols: Sequence[str], family: Family, max_positions: int) -> dict[str, str]:
    """The files by their names.

    Raises:
        UserError: for a sentencepiece model of a kind that the fast tokenizers do not have.
    """
    names = (
        {ours: theirs for theirs, ours in BERT_SPECIALS.items()} if isinstance(tokenizer, WordPieceTokenizer) else {}
    )
    shown = {special: names.get(special, special) for special in (*SPECIALS, MASK)}
    body = (
        json.loads(tokenizer.to_bytes())
        if isinstance(tokenizer, WordPieceTokenizer)
        else _sentencepiece(tokenizer, symbols)
    )
    ids = special_ids(tokenizer)
    body |= {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(ids[special], shown[special]) for special in sorted(ids, key=lambda name: ids[name])],
        "post_processor": _ends(shown[SPECIALS[0]], ids[SPECIALS[0]], shown[SPECIALS[2]], ids[SPECIALS[2]]),
    }
    special = {_ROLES[ours]: theirs for ours, theirs in shown.items()}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_positions,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **special,
    }
    return {
        name: json.dumps(value, ensure_ascii=False, indent=1) + "\n"
        for name, value in ((TOKENIZER, body), (CONFIG, config), (SPECIAL, special))
    }


def _added(number: int, content: str) -> dict[str, Any]:
    """A special. Sentencepiece's mask is looked for in normalised text: what is beside it is normalised as one."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    return {"id": number, "content": content, **flags, "normalized": content == MASK, "special": True}


def _ends(first: str, first_id: int, end: str, end_id: int) -> dict[str, Any]:
    """``<s> A </s>`` and ``<s> A </s> B </s>``, with segment 1 for B and its end."""

    def special(name: str, segment: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": segment}}

    def sequence(name: str, segment: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": segment}}

    single = [special(first, 0), sequence("A", 0), special(end, 0)]
    known = {
        name: {"id": name, "ids": [number], "tokens": [name]} for name, number in ((first, first_id), (end, end_id))
    }
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, sequence("B", 1), special(end, 1)],
        "special_tokens": known,
    }


def _sentencepiece(tokenizer: Tokenizer, symbols: Sequence[str]) -> dict[str, Any]:
    """The parts of tokenizer.json that normalise, split and cut into pieces."""
    assert isinstance(tokenizer, SentencePieceTokenizer)
    settings = read_settings(tokenizer.to_bytes(), tokenizer.file_name)
    if settings.kind not in ("unigram", "bpe"):
        raise UserError(f"{tokenizer.file_name}: is of kind {settings.kind}: only unigram and bpe can be exported")
    if settings.space_at_end:
        raise UserError(f"{tokenizer.file_name}: puts spaces at the ends of words: the fast tokenizers cannot")
    scores = tokenizer.scores()
    _refuse_ambiguous(settings, scores, tokenizer.file_name)
    crosses = any(_SPACE in piece.lstrip(_SPACE) for piece in scores)  # pieces of several words
    spaces = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "never", "split": not crosses}
    model = _unigram(symbols, scores) if settings.kind == "unigram" else _bpe(symbols, scores, tokenizer.file_name)
    return {
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(settings)},
        "pre_tokenizer": spaces,
        "decoder": spaces | {"prepend_scheme": "always" if settings.dummy_prefix else "never"},
        "model": model | {"byte_fallback": tokenizer.falls_back_to_bytes()},
    }


def _refuse_ambiguous(settings: ModelSettings, scores: dict[str, float], source: str) -> None:
    """User-defined symbols are pieces that sentencepiece prefers by a bonus of its own. The fast tokenizers, which know
    none, find the same where no other piece reaches across a symbol's ends, as with digits, punctuation and ``<sep>``.

    Raises:
        UserError: for other symbols, and those that normalisation changes or a combining mark may.
    """
    given = [symbol for symbol in settings.user_defined if symbol in scores]
    within = Counter(character for piece in scores if len(piece) > 1 for character in set(piece))
    for symbol in given:
        ends, own = {symbol[0], symbol[-1]}, len(symbol) > 1
        changes = unicodedata.normalize("NFKC", symbol) != symbol or symbol[-1].isalpha()
        if changes or any(within[character] > own for character in ends) or (own and settings.kind == "bpe"):
            raise UserError(
                f"{source}: was trained with user_defined_symbols, {symbol!r} among them, which the fast tokenizers do "
                "not cut as sentencepiece does: use it through this project's hub interface, or train one without it"
            )


def _normalizers(settings: ModelSettings) -> list[dict[str, Any]]:
    def replace(pattern: str, content: str) -> dict[str, Any]:
        return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}

    steps: list[dict[str, Any]] = []
    if settings.charsmap:
        steps.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(settings.charsmap).decode()})
    if settings.strips_spaces:
        steps.append(replace(" {2,}", " "))
        steps.append(replace(r"\A +| +\z", ""))  # not Strip: other white space than the space is no space
    if settings.dummy_prefix:
        steps.append({"type": "Prepend", "prepend": " "})  # not Metaspace's, which it puts behind a mask too
    steps.append(replace(f" (?={MASK})", ""))  # of the masked piece
    return steps


def _unigram(symbols: Sequence[str], scores: dict[str, float]) -> dict[str, Any]:
    vocabulary = [[symbol, scores.get(symbol, _UNREACHABLE)] for symbol in symbols]
    return {"type": "Unigram", "unk_id": SPECIALS.index("<unk>"), "vocab": vocabulary}


def _bpe(symbols: Sequence[str], scores: dict[str, float], source: str) -> dict[str, Any]:
    """Merges in the order of the scores of what they make: a piece is made of any two others, the most frequent first.

    Raises:
        UserError: for a piece that no merge makes.
    """
    index = {symbol: number for number, symbol in enumerate(symbols)}
    merges: list[tuple[float, int, int, str, str]] = []
    for piece, score in scores.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in scores and right in scores:
                merges.append((-score, index[left], index[right], left, right))
    made = {left + right for *_, left, right in merges}
    given = [piece for piece in scores if len(piece) > 1 and piece not in made]
    if given:
        raise UserError(
            f"{source}: its piece {given[0]!r} is made of no two others: the fast tokenizers have no such BPE"
        )
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": "<unk>",
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "ignore_merges": False,
        "vocab": index,
        "merges": [[left, right] for *_, left, right in sorted(merges)],
    }
