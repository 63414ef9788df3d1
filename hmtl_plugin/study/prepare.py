"""First stage: the tasks' files to a pre-training corpus without their evaluation text, and capped copies to fine-tune
on.

STUDY/data/corpus/       binarised, its tokenizer beside it
STUDY/data/glue/, squad/, probing/
STUDY/data/prepared.json counts and fingerprints, written last
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hmtl_plugin.data.manifest import file_sha256
from hmtl_plugin.errors import UserError
from hmtl_plugin.files.publishing import locked
from hmtl_plugin.files.shape import misfit
from hmtl_plugin.preparation.mixture import write_mixture
from hmtl_plugin.preparation.options import PrepareOptions
from hmtl_plugin.preparation.prepare import prepare_corpus
from hmtl_plugin.study.profile import Profile
from hmtl_plugin.study.sources import SQUAD, Sources, copy_capped, copy_probing

PREPARED, CORPUS, PROBING = "prepared.json", "corpus", "probing"
_PART = f"{PREPARED}.part"  # there from the beginning: it tells a folder of ours that is not complete
_VERSION = 1  # of what is written for the same files and options
Prepared = dict[str, Any]
_SHAPE = {"inputs": dict, "corpus_sha256": str, "tasks_sha256": {str: str}, "probing_sha256": str, "missing": list}


def prepare(sources: Sources, profile: Profile, folder: Path, corpus: Path | None = None) -> Prepared:
    """Prepare ``folder`` unless it holds just this; returns the content of prepared.json.

    Args:
        corpus: binarised already, used in place of the tasks' own text.

    Raises:
        UserError: for files that cannot be read, or no text left. Nothing that looks whole is left behind.
    """
    if corpus and not (corpus / "dict.txt").is_file():
        raise UserError(f"--corpus {corpus}: no dict.txt: give a folder that scripts/prepare_corpus.py wrote")
    question = _question(sources, profile, corpus)
    known = read_prepared(folder)
    if known and known["inputs"] == question:
        return known
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock")):  # whoever prepares the same study waits, and finds it done
        known = read_prepared(folder)
        if known and known["inputs"] == question:
            return known
        return _write(sources, profile, folder, corpus, question)


def _write(sources: Sources, profile: Profile, folder: Path, corpus: Path | None, question: dict[str, Any]) -> Prepared:
    _make_room(folder, [*_files(sources), *([corpus / "dict.txt"] if corpus else [])])
    part = folder / _PART
    part.touch()
    text = _given_corpus(corpus, folder) if corpus else _own_text(sources, profile, folder)
    wanted = {f.task: f for f in profile.finetuning}
    for task in sources.tasks:
        copy_capped(task, wanted[task.name], task_folder(folder, task.name))
    copy_probing(sources.probing, profile.probing.rows, folder / PROBING)
    prepared = {
        "inputs": question,
        "text": text,
        "corpus_sha256": _digest(folder / CORPUS),
        "tasks_sha256": {task.name: _digest(task_folder(folder, task.name)) for task in sources.tasks},
        "probing_sha256": _digest(folder / PROBING),
        "missing": list(sources.missing),
    }
    part.write_text(json.dumps(prepared, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, folder / PREPARED)
    return prepared


def read_prepared(folder: Path) -> Prepared | None:
    """What prepared.json says; None where there is none."""
    try:
        content: Prepared = json.loads((folder / PREPARED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if misfit(content, _SHAPE) is None else None


def task_folder(folder: Path, task: str) -> Path:
    """Where the files of a task lie in the prepared data."""
    return folder / "squad" if task == SQUAD else folder / "glue" / task


def _make_room(folder: Path, given: Sequence[Path]) -> None:
    """Empty the folder of what an earlier preparation left; `UserError` for one that holds anything else."""
    if folder.exists():
        ours = any((folder / name).exists() for name in (PREPARED, _PART)) or not any(folder.iterdir())
        if not ours or any(folder.resolve() in path.resolve().parents for path in given):
            raise UserError(
                f"{folder}: holds files that the study did not write, and would be removed: give another --out"
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def _own_text(sources: Sources, profile: Profile, folder: Path) -> dict[str, Any]:
    options = PrepareOptions(
        "sentences",
        vocab_size=profile.text.vocab_size,
        valid_fraction=profile.text.valid_fraction,
        exclude=tuple(sources.evaluation()),
        exclude_minimum_words=profile.text.exclude_min_words,
    )
    gathered = write_mixture(sources.text(), folder / "text.txt", options)
    plain = PrepareOptions("sentences", vocab_size=options.vocab_size, valid_fraction=options.valid_fraction)
    summary = prepare_corpus([str(folder / "text.txt")], folder / CORPUS, plain)
    return {
        "gathered": [g.as_dict() for g in gathered],
        "excluded_files": [Path(name).name for name in options.exclude],
        "splits": summary.manifest["splits"],
        "vocabulary": profile.text.vocab_size,
    }


def _given_corpus(corpus: Path, folder: Path) -> dict[str, Any]:
    shutil.copytree(corpus, folder / CORPUS)
    manifest = folder / CORPUS / "corpus.json"
    splits = json.loads(manifest.read_text(encoding="utf-8")).get("splits", {}) if manifest.is_file() else {}
    return {"given": corpus.name, "splits": splits}


def _question(sources: Sources, profile: Profile, corpus: Path | None) -> dict[str, Any]:
    """All that what is written depends on."""
    return {
        "version": _VERSION,
        "files": {f"{path.parent.name}/{path.name}": file_sha256(path) for path in _files(sources)},
        "corpus": _digest(corpus) if corpus else None,
        "text": asdict(profile.text),
        "rows": {f.task: [f.train_rows, f.valid_rows] for f in profile.finetuning},
        "probing_rows": profile.probing.rows,
    }


def _files(sources: Sources) -> list[Path]:
    return [*(path for task in sources.tasks for path in (task.train, *task.evaluation)), *sources.probing]


def _digest(folder: Path) -> str:
    """Fingerprint of a folder's files: names and content, but corpus.json, which names versions of packages."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "corpus.json":
            digest.update(f"{path.relative_to(folder)} {file_sha256(path)}\n".encode())
    return digest.hexdigest()
