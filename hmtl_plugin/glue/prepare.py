"""GLUE's files to binarised data in the layout of fairseq's ``sentence_prediction``, one folder a task.

    TASK/{input0,input1}/{dict.txt, SPLIT.bin, SPLIT.idx}     a sentence an item, ending in ``</s>``
    TASK/label/{dict.txt, SPLIT.bin, SPLIT.idx}               a class an item; for regression SPLIT.label, a number a
    line TASK/sentencepiece.bpe.model                              the tokenizer
    TASK/glue.json                                            label map, counts, fingerprints

Splits are train, valid, test, and MNLI's valid_mm, test_mm and ax. Workers read and encode spans; this process writes.
"""

import json
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
from hmtl_plugin.files.shape import COUNT, Shape, one_of
from hmtl_plugin.glue.files import GlueFile, find_files, read_rows
from hmtl_plugin.glue.tasks import TASKS, GlueTask
from hmtl_plugin.parallel import WorkerPool
from hmtl_plugin.preparation.binarise import IndexedWriter, Items, narrow, with_ends
from hmtl_plugin.preparation.readers.text import Span
from hmtl_plugin.progress import progress_bar
from hmtl_plugin.tokenizers.base import Tokenizer
from hmtl_plugin.tokenizers.unknown import SAID, unknown_parts, warn

MANIFEST = "glue.json"
_SHAPE: dict[str, Shape] = {
    "task": one_of(*TASKS),
    "splits": {
        str: {
            "file": str,
            "sha256": str,
            "rows": COUNT,
            "labelled": bool,
            "broken_rows": COUNT,
            "unlabelled_rows": COUNT,
        }
    },
}


class EncodedRows(NamedTuple):
    """Rows of a span: the items of each sentence column, and what `GlueRows` says of the rest."""

    columns: tuple[Items, ...]
    labels: list[str] | None
    broken: int
    unlabelled: int
    unknown_parts: list[str]


_tokenizer: Tokenizer


def _set_tokenizer(tokenizer: Tokenizer) -> None:
    global _tokenizer
    _tokenizer = tokenizer


def _encode_span(job: tuple[GlueTask, GlueFile, Span]) -> EncodedRows:
    """In a worker."""
    rows = read_rows(*job)
    columns, parts = [], []
    for texts in rows.texts:
        ids_N, lengths_I = _tokenizer.encode_flat(texts)
        columns.append(with_ends(narrow(ids_N, len(_tokenizer)), lengths_I))
        if columns[-1].unknown > SAID * len(ids_N):
            parts += unknown_parts(_tokenizer, texts)
    return EncodedRows(tuple(columns), rows.labels, rows.broken, rows.unlabelled, parts)


@dataclass
class PreparedTask:
    """What `prepare_glue` made of a task: its folder, its manifest, and whether it was there already."""

    folder: Path
    manifest: dict[str, Any]
    known: bool


def prepare_glue(
    tasks: list[GlueTask],
    glue_dir: Path,
    out: Path,
    dictionary: Dictionary,
    tokenizer: Tokenizer,
    workers: int,
    overwrite: bool = False,
) -> Iterator[PreparedTask]:
    """Binarise the tasks into ``out/TASK``; each folder appears whole, and one made of the same files is kept.

    Raises:
        UserError: in one line, for a file or row that is not as it must be, or a folder that holds other data.
    """
    found = {task.name: find_files(task, glue_dir) for task in tasks}  # refuse all before the first is written
    for task in tasks:
        finish_publishing(out / task.name)
    known = {task.name: _known(out / task.name, found[task.name], tokenizer) for task in tasks}
    with WorkerPool(workers, _set_tokenizer, (tokenizer,)) as pool:
        for task in tasks:
            manifest = None if overwrite else known[task.name]
            if manifest is None:
                with OutputFolder(out / task.name, overwrite) as folder:
                    manifest = _prepare_task(task, found[task.name], folder.part, dictionary, tokenizer, pool)
                    folder.publish()
                yield PreparedTask(out / task.name, manifest, known=False)
            else:
                yield PreparedTask(out / task.name, manifest, known=True)


def read_glue_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a task's folder; None where there is none; `UserError` for one that cannot be read."""
    return read_prepared(folder / MANIFEST, _SHAPE)


def _known(folder: Path, files: list[GlueFile], tokenizer: Tokenizer) -> dict[str, Any] | None:
    """The manifest of a folder that was made of these files and this tokenizer."""
    manifest = read_glue_manifest(folder)
    if manifest is None or manifest["tokenizer_sha256"] != tokenizer.sha256:
        return None
    inputs = {split: counts["sha256"] for split, counts in manifest["splits"].items()}
    return manifest if inputs == {file.split: file_sha256(file.path) for file in files} else None


def _prepare_task(
    task: GlueTask,
    files: list[GlueFile],
    folder: Path,
    dictionary: Dictionary,
    tokenizer: Tokenizer,
    pool: WorkerPool,
) -> dict[str, Any]:
    columns = [folder / f"input{i}" for i in range(len(task.text))]
    for column in columns:
        column.mkdir()
        dictionary.save(str(column / "dict.txt"))
    (folder / tokenizer.file_name).write_bytes(tokenizer.to_bytes())
    labels = _label_dictionary(task)
    (folder / "label").mkdir()
    if not task.regression:
        labels.save(str(folder / "label" / "dict.txt"))
    splits = {file.split: _prepare_split(task, file, folder, columns, labels, len(tokenizer), pool) for file in files}
    manifest = {
        "schema": SCHEMA,
        "task": task.name,
        "labels": {label: number for number, label in enumerate(task.labels)},
        "metrics": list(task.metrics),
        "splits": splits,
        "tokenizer_sha256": tokenizer.sha256,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return manifest


def _label_dictionary(task: GlueTask) -> Dictionary:
    dictionary = Dictionary()
    for label in task.labels:
        dictionary.add_symbol(label)
    return dictionary


def _prepare_split(
    task: GlueTask,
    file: GlueFile,
    folder: Path,
    columns: list[Path],
    label_dictionary: Dictionary,
    vocabulary: int,
    pool: WorkerPool,
) -> dict[str, Any]:
    writers = [IndexedWriter(column / file.split, vocabulary) for column in columns]
    labels: list[str] | None = None if file.label is None else []
    broken = unlabelled = unknown = 0
    parts: dict[str, None] = {}
    spans = list(file.spans())
    with progress_bar(f"{task.name} {file.split}", sum(span.end - span.start for span in spans)) as bar:
        for span, rows in zip(spans, pool.map(_encode_span, ((task, file, span) for span in spans)), strict=True):
            for writer, items in zip(writers, rows.columns, strict=True):
                writer.append(items.data, items.sizes_I)
                unknown += items.unknown
            parts |= dict.fromkeys(rows.unknown_parts)
            if labels is not None:
                labels += rows.labels or []
            broken, unlabelled = broken + rows.broken, unlabelled + rows.unlabelled
            bar.update(span.end - span.start)
    counts = [writer.finish() for writer in writers]
    if not counts[0]["sentences"]:
        raise UserError(f"{file.path}: holds no rows")
    if labels is not None:
        _write_labels(task, labels, folder / "label" / file.split, label_dictionary)
    tokens = sum(int(count["tokens"]) for count in counts)
    warn(file.path, unknown, tokens, list(parts))
    return {
        "file": Path(file.path).name,
        "sha256": file_sha256(file.path),
        "rows": counts[0]["sentences"],
        "tokens": tokens,
        "unknown": unknown,
        "labelled": labels is not None,
        "broken_rows": broken,
        "unlabelled_rows": unlabelled,
    }


def _write_labels(task: GlueTask, labels: list[str], prefix: Path, dictionary: Dictionary) -> None:
    if task.regression:
        prefix.with_suffix(".label").write_text("".join(f"{float(label)}\n" for label in labels), encoding="ascii")
        return
    number = {label: dictionary.index(label) for label in task.labels}
    ids_N = np.fromiter(map(number.__getitem__, labels), dtype=np.int64, count=len(labels))
    writer = IndexedWriter(prefix, len(dictionary))
    items = with_ends(narrow(ids_N, len(dictionary)), np.ones(len(labels), dtype=np.int64))
    writer.append(items.data, items.sizes_I)
    writer.finish()
