"""SQuAD's files to binarised data, one folder for all splits; every context is tokenised once.

    OUT/dict.txt, OUT/sentencepiece.bpe.model                 the vocabulary
    OUT/squad.json                                            counts, fingerprints
    OUT/SPLIT/{context,question}.{bin,idx}                    a text an item, ending in ``</s>``
    OUT/SPLIT/offsets.npy                                     (N, 2) characters [begin, end) of every token of the
    contexts OUT/SPLIT/questions.npy                                   (Q,) of `QUESTION`: context, first and last token
    of the answer OUT/SPLIT/source.json                                     the file as it was given, for scoring and
    for answers' text

Workers tokenise; this process writes.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fairseq.data import Dictionary

from hmtl_plugin.data.manifest import file_sha256
from hmtl_plugin.errors import UserError
from hmtl_plugin.files.output_folder import OutputFolder, finish_publishing
from hmtl_plugin.files.prepared import SCHEMA, read_prepared
from hmtl_plugin.files.shape import COUNT, Shape
from hmtl_plugin.parallel import WorkerPool
from hmtl_plugin.preparation.binarise import IndexedWriter, Items, narrow, with_ends
from hmtl_plugin.progress import progress_bar
from hmtl_plugin.squad.answers import answer_tokens
from hmtl_plugin.squad.files import SquadFile, read_squad
from hmtl_plugin.tokenizers.base import Tokenizer
from hmtl_plugin.tokenizers.offsets import OffsetArray, encode_with_offsets
from hmtl_plugin.tokenizers.unknown import SAID, unknown_parts, warn

MANIFEST = "squad.json"
_SHAPE: dict[str, Shape] = {
    "version_2": bool,
    "splits": {str: {"sha256": str, "labelled": bool, "contexts": COUNT, "questions": COUNT}},
}
_TEXTS = 128  # a task of a worker


class EncodedTexts(NamedTuple):
    """Texts as items; of contexts their tokens' offsets too."""

    items: Items
    offsets_N2: OffsetArray | None
    unknown_parts: list[str]


@dataclass
class PreparedSquad:
    """What `prepare_squad` made: the folder, its manifest, and whether it was there already."""

    folder: Path
    manifest: dict[str, Any]
    known: bool


_tokenizer: Tokenizer


def _set_tokenizer(tokenizer: Tokenizer) -> None:
    global _tokenizer
    _tokenizer = tokenizer


def _encode(job: tuple[list[str], bool]) -> EncodedTexts:
    """In a worker."""
    texts, with_offsets = job
    if with_offsets:
        ids_N, lengths, offsets_N2 = encode_with_offsets(_tokenizer, texts)
    else:
        (ids_N, lengths), offsets_N2 = _tokenizer.encode_flat(texts), None
    items = with_ends(narrow(ids_N, len(_tokenizer)), lengths)
    parts = unknown_parts(_tokenizer, texts) if items.unknown > SAID * len(ids_N) else []
    return EncodedTexts(items, offsets_N2, parts)


def prepare_squad(
    train: Path | None,
    valid: Path | None,
    test: Path | None,
    out: Path,
    dictionary: Dictionary,
    tokenizer: Tokenizer,
    workers: int,
    overwrite: bool = False,
    version_2: bool = True,
) -> PreparedSquad:
    """Binarise the given files into ``out``; it appears whole, and one made of the same files is kept.

    Args:
        version_2: whether a question may have no answer.

    Raises:
        UserError: in one line, for a file that is not as it must be, or a folder that holds other data.
    """
    paths = {split: path for split, path in (("train", train), ("valid", valid), ("test", test)) if path is not None}
    if not paths:
        raise UserError("no SQuAD file: give --train, --valid or --test")
    files = {split: read_squad(path) for split, path in paths.items()}  # refuse all before anything is written
    for split in ("train", "valid"):
        if split in files and not files[split].labelled:
            raise UserError(f"{files[split].path}: its questions have no answers; only as --test can it be without")
        if split in files and files[split].version_2 and not version_2:
            raise UserError(f"{files[split].path}: has questions without an answer, as in SQuAD 2.0: add --version-2")
    sha256 = {split: file_sha256(str(path)) for split, path in paths.items()}
    finish_publishing(out)
    manifest = None if overwrite else _known(out, sha256, tokenizer)
    if manifest is not None:
        return PreparedSquad(out, manifest, known=True)
    with OutputFolder(out, overwrite) as folder, WorkerPool(workers, _set_tokenizer, (tokenizer,)) as pool:
        dictionary.save(str(folder.part / "dict.txt"))
        (folder.part / tokenizer.file_name).write_bytes(tokenizer.to_bytes())
        splits = {}
        for split, file in files.items():
            splits[split] = {"file": paths[split].name, "sha256": sha256[split]}
            splits[split] |= _prepare_split(file, folder.part / split, len(tokenizer), pool)
        manifest = {
            "schema": SCHEMA,
            "version_2": any(file.version_2 for file in files.values()),
            "splits": splits,
            "tokenizer_sha256": tokenizer.sha256,
        }
        (folder.part / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        folder.publish()
    return PreparedSquad(out, manifest, known=False)


def read_squad_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a prepared folder; None where there is none; `UserError` for one that cannot be read."""
    return read_prepared(folder / MANIFEST, _SHAPE)


def _known(folder: Path, sha256: dict[str, str], tokenizer: Tokenizer) -> dict[str, Any] | None:
    """The manifest of a folder that was made of these files and this tokenizer."""
    manifest = read_squad_manifest(folder)
    if manifest is None or manifest["tokenizer_sha256"] != tokenizer.sha256:
        return None
    made_of = {split: counts["sha256"] for split, counts in manifest["splits"].items()}
    return manifest if made_of == sha256 else None


def _prepare_split(file: SquadFile, folder: Path, vocabulary: int, pool: WorkerPool) -> dict[str, Any]:
    folder.mkdir()
    questions = [question.text for question in file.questions]
    contexts = IndexedWriter(folder / "context", vocabulary)
    asked = IndexedWriter(folder / "question", vocabulary)
    unknown, said = 0, dict[str, None]()
    sizes: list[np.ndarray[Any, np.dtype[np.int32]]] = []
    offsets: list[OffsetArray] = []
    jobs = [(part, True) for part in _parts(file.contexts)] + [(part, False) for part in _parts(questions)]
    with progress_bar(f"squad {folder.name}", sum(len(text) for part, _ in jobs for text in part)) as bar:
        for (part, _), (items, offsets_N2, parts) in zip(jobs, pool.map(_encode, jobs), strict=True):
            unknown, said = unknown + items.unknown, said | dict.fromkeys(parts)
            writer = asked if offsets_N2 is None else contexts
            writer.append(items.data, items.sizes_I)
            if offsets_N2 is not None:
                sizes.append(items.sizes_I)
                offsets.append(offsets_N2)
            bar.update(sum(map(len, part)))
    offsets_N2 = np.concatenate(offsets)
    table_Q = answer_tokens(file, np.concatenate(sizes).astype(np.int64) - 1, offsets_N2)
    np.save(folder / "offsets.npy", offsets_N2)
    np.save(folder / "questions.npy", table_Q)
    shutil.copyfile(file.path, folder / "source.json")
    context_tokens, question_tokens = (int(writer.finish()["tokens"]) for writer in (contexts, asked))
    warn(file.path, unknown, context_tokens + question_tokens, list(said))
    return {
        "contexts": len(file.contexts),
        "questions": len(file.questions),
        "impossible": sum(question.impossible for question in file.questions),
        "labelled": file.labelled,
        "context_tokens": context_tokens,
        "unknown": unknown,
    }


def _parts(texts: list[str]) -> Iterator[list[str]]:
    for begin in range(0, len(texts), _TEXTS):
        yield texts[begin : begin + _TEXTS]
