"""The WordPiece tokenizer that a folder's files mean: vocab.txt or tokenizer.json, and the configurations beside it.

Read by hand: transformers, which knows them too, is needed for nothing else but tests.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.shape import read_object
from hmtl_plugin.tokenizers.wordpiece import MAX_WORD_CHARACTERS, WordPieceTokenizer, file_content, wordpiece_file

_CONFIG, _MODEL_CONFIG = "tokenizer_config.json", "config.json"
_NORMALIZER_NAMES = {  # in tokenizer_config.json, and in tokenizer.json
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
_LIKE_BERT = [
    f"{name}Tokenizer"
    for name in "Bert DistilBert Electra MobileBert ConvBert LayoutLM Lxmert RetriBert SqueezeBert Splinter".split()
]
_LIKE_THE_FILE = ["PreTrainedTokenizer", "TokenizersBackend"]  # of transformers 4 and 5: tokenizer.json as it is
_SPLITTING = {"word_tokenizer_type": "basic", "subword_tokenizer_type": "wordpiece", "do_basic_tokenize": True}
"""What else decides how words are split, and the value that is BERT's."""
_MAX_CAPITALS = 0.01  # of the pieces of an uncased vocabulary


def from_vocabulary_file(path: Path, content: bytes) -> WordPieceTokenizer:
    """The tokenizer of a vocab.txt; case as the tokenizer_config.json beside it says. Without a word on case, a
    vocabulary with capitals is a cased one.

    Raises:
        UserError: if it is no vocabulary, or of a tokenizer that splits words otherwise than BERT's.
    """
    try:
        lines = content.decode().replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read ({error}): fetch it again") from None
    vocabulary = lines[: -1 if lines[-1] == "" else None]
    if "" in vocabulary:
        raise UserError(f"{path}: line {vocabulary.index('') + 1} is empty: a line is a piece; fetch it again")
    config = _tokenizer_config(path.parent, _LIKE_BERT)
    found = wordpiece_file(
        vocabulary,
        config.get("do_lower_case", not _has_capitals(vocabulary)),
        config.get("strip_accents"),
        config.get("tokenize_chinese_chars", True),
    )
    return WordPieceTokenizer(found, str(path))


def from_tokenizer_file(path: Path, content: bytes) -> WordPieceTokenizer:
    """The tokenizer of a tokenizer.json. Where a tokenizer_config.json of BERT beside it says other things of case,
    accents or Chinese, it counts, as it does for transformers. `WordPieceTokenizer.followed` says so.

    Raises:
        UserError: if it is no WordPiece tokenizer, or one that splits words otherwise than BERT's.
    """
    config = _tokenizer_config(path.parent, [*_LIKE_BERT, *_LIKE_THE_FILE])
    found = WordPieceTokenizer(content, str(path))
    settings = json.loads(content)
    normalizer, splitter = ({"type": None} | (settings.get(part) or {}) for part in ("normalizer", "pre_tokenizer"))
    whole = config["tokenizer_class"] in _LIKE_THE_FILE
    config_counts = normalizer["type"] == "BertNormalizer" and not whole
    followed = []
    for theirs, ours in _NORMALIZER_NAMES.items():
        if theirs in config and config[theirs] != normalizer.get(ours):
            said = [f"{theirs} {config[theirs]} of {_CONFIG}", f"{ours} {normalizer.get(ours)} of {path.name}"]
            followed.append(", not ".join(said if config_counts else reversed(said)))
    if config_counts and followed:
        meant = {ours: config[theirs] for theirs, ours in _NORMALIZER_NAMES.items() if theirs in config}
        found = WordPieceTokenizer(
            file_content(settings | {"normalizer": {**normalizer, **meant}}, str(path)), str(path)
        )
    if config_counts and "do_lower_case" not in config and not normalizer.get("lowercase"):
        followed.append(f"lowercase False of {path.name}; {_CONFIG} has no do_lower_case: for transformers it is True")
    for part, value, usual in (
        ("normalizer", normalizer["type"], "BertNormalizer"),
        ("pre_tokenizer", splitter["type"], "BertPreTokenizer"),
        ("max_input_chars_per_word", settings["model"].get("max_input_chars_per_word"), MAX_WORD_CHARACTERS),
    ):
        if value != usual and not whole:
            followed.append(f"{part} {value} of {path.name}, as for transformers 4; for 5 it is {usual}")
    found.followed = followed
    return found


def _tokenizer_config(folder: Path, classes: Sequence[str]) -> dict[str, Any]:
    """tokenizer_config.json, empty where there is none; its ``tokenizer_class`` is BERT's if no file names one.

    Raises:
        UserError: if it, or config.json, cannot be read, or words are split otherwise than by one of ``classes``.
    """
    config, model = (
        read_object(folder / name) if (folder / name).is_file() else {} for name in (_CONFIG, _MODEL_CONFIG)
    )
    said = {name: value for part in (model, config) for name, value in part.items() if value is not None}
    kind = str(said.get("tokenizer_class", "BertTokenizer")).removesuffix("Fast")
    other = [name for name, value in _SPLITTING.items() if said.get(name, value) != value]
    if kind not in classes:
        other = ["tokenizer_class"]
    elif "AutoTokenizer" in str(said.get("auto_map")):
        other = ["auto_map"]
    if other:
        path = folder / (_MODEL_CONFIG if config.get(other[0]) is None else _CONFIG)
        raise UserError(
            f"{path}: {other[0]} is {said[other[0]]!r}: it splits words otherwise than BERT's own tokenizer, which "
            "alone is known here: give a model with that (BertTokenizer)"
        )
    for name in _NORMALIZER_NAMES:
        value = config.get(name)
        if name in config and not (isinstance(value, bool) or (name == "strip_accents" and value is None)):
            raise UserError(f"{folder / _CONFIG}: {name} is {value!r}: write true or false")
    return config | {"tokenizer_class": kind}


def _has_capitals(vocabulary: Sequence[str]) -> bool:
    """More than a few pieces, specials in brackets aside, that lower-cased text cannot become."""
    capitals = sum(piece != piece.lower() for piece in vocabulary if not piece.startswith("["))
    return capitals > _MAX_CAPITALS * len(vocabulary)
