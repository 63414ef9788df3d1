"""corpus.json: what a data folder holds, from what it was made, and whether its files belong together."""

import hashlib
from pathlib import Path
from typing import Any, TypedDict

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.publishing import write_json
from hmtl_plugin.files.shape import COUNT, Shape, one_of, read_json

FILE_NAME = "corpus.json"
SCHEMA = 1
LAYOUTS = ("segments", "rows")
LONGEST_WORDS = 12.0
"""Characters, on average. English has 4.6, German 6, Finnish 8; a Thai phrase over 20."""

_SHAPE: Shape = {
    "schema": one_of(SCHEMA),
    "layout": one_of(*LAYOUTS),
    "splits": {str: {"documents": COUNT, "sentences": COUNT, "tokens": COUNT, "bytes_bin": COUNT, "bytes_idx": COUNT}},
    "dictionary_sha256": str,
    "tokenizer_sha256": str,
    "data_sha256?": {str: str},
    "held_out?": {"documents": COUNT, "sentences": COUNT, "bytes": COUNT, "sha256": str},
    "options": {str: object},
    "inputs": [{str: object}],
    "versions?": {str: str},
}


class SplitCounts(TypedDict):
    """One split; `tokens` without ``</s>``, `unknown` those that are ``<unk>`` (not there in older ones)."""

    documents: int
    sentences: int
    tokens: int
    unknown: int
    bytes_bin: int
    bytes_idx: int


class HeldOutText(TypedDict):
    """The text of the validation split (see `held_out`). It may have more documents and sentences than the split,
    which lacks those of which the tokenizer knows no piece.
    """

    documents: int
    sentences: int
    bytes: int
    sha256: str


class Manifest(TypedDict, total=False):
    """The content of corpus.json. ``layout`` is "segments" (running text) or "rows" (first, second, first,
    second ...). ``held_out`` is there when the text was asked for. ``word_characters`` says how many characters there
    are for each word that the dictionary marks within a sentence.
    """

    schema: int
    layout: str
    splits: dict[str, SplitCounts]
    dictionary_sha256: str
    tokenizer_sha256: str
    data_sha256: dict[str, str]
    held_out: HeldOutText
    options: dict[str, Any]
    inputs: list[dict[str, Any]]
    excluded_documents: int
    duplicate_documents: int
    duplicate_rows: int
    incomplete_rows: int
    empty_documents: int
    word_characters: float
    versions: dict[str, str]


def file_sha256(path: Path | str) -> str:
    """sha256 of a file's bytes, in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path | str, manifest: Manifest) -> None:
    """Write corpus.json."""
    write_json(Path(folder) / FILE_NAME, manifest)


def read_manifest(folder: Path | str) -> Manifest | None:
    """corpus.json of a folder, None when there is none; `UserError` when it cannot be understood."""
    path = Path(folder) / FILE_NAME
    try:
        manifest: Manifest = read_json(path, _SHAPE, "prepare the corpus again")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return manifest


def words_in(manifest: Manifest | None) -> bool:
    """Whether what the dictionary marks as words are words, by their length in the text: what stands between the blanks
    of Thai or Khmer are phrases. True where it is not known, as in corpora prepared by earlier versions.
    """
    return manifest is None or manifest.get("word_characters", 0.0) <= LONGEST_WORDS


def check_manifest(folder: Path | str, split: str) -> Manifest | None:
    """corpus.json after checking that the files of a split belong to it; None when there is none.

    Quick: hashes the dictionary and the tokenizer, of the data it looks at the sizes alone. A split that
    corpus.json does not know (binarised by other means into the same folder) is not checked beyond the
    dictionary.

    Raises:
        UserError: the dictionary, the tokenizer or the data is not the one that was prepared.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    again = "restore the file or prepare the corpus again"
    from hmtl_plugin.tokenizers.base import FILE_NAMES

    tokenizers = [(name, "tokenizer_sha256") for name in FILE_NAMES]
    for name, expected in (("dict.txt", "dictionary_sha256"), *tokenizers):
        path = folder / name
        if not path.is_file():
            if name == "dict.txt":
                raise UserError(f"{path}: missing; {again}")
            continue  # training needs no tokenizer
        if file_sha256(path) != manifest[expected]:  # type: ignore[literal-required]
            raise UserError(
                f"{path}: does not belong to the data beside it (corpus.json has another fingerprint); {again}"
            )
    counts = manifest["splits"].get(split)
    if counts is not None:
        for suffix, size in (("bin", counts["bytes_bin"]), ("idx", counts["bytes_idx"])):
            path = folder / f"{split}.{suffix}"
            if not path.is_file():
                raise UserError(f"{path}: missing; {again}")
            if path.stat().st_size != size:
                raise UserError(f"{path}: has {path.stat().st_size} bytes where corpus.json says {size}; {again}")
    return manifest
