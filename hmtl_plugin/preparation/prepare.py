"""Corpus preparation: text files to a data folder that `fairseq-train` can use.

Two stages over bounded memory: files to a text file of kept documents (`gather`, `gather_rows`), and that,
    with a tokenizer trained on a sample of it, to ``.bin`` and ``.idx`` (`binarise`). Everything is written
    to ``OUT.part`` and renamed
at the end: a killed run, or a full disk, leaves nothing that looks whole.
"""

import contextlib
import importlib.metadata
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hmtl_plugin.data.manifest import (
    SCHEMA,
    Manifest,
    check_manifest,
    file_sha256,
    read_manifest,
    words_in,
    write_manifest,
)
from hmtl_plugin.errors import UserError
from hmtl_plugin.files.output_folder import OutputFolder, finish_publishing
from hmtl_plugin.parallel import cpu_count, run_in_child
from hmtl_plugin.preparation.binarise import TextCounts, binarise
from hmtl_plugin.preparation.deduplication import choose_validation, split_keys
from hmtl_plugin.preparation.gather import Spool, sample_sentences
from hmtl_plugin.preparation.held_out import FILE_NAME as HELD_OUT
from hmtl_plugin.preparation.held_out import has_held_out, write_held_out
from hmtl_plugin.preparation.options import FORMATS, PrepareOptions
from hmtl_plugin.preparation.readers.text import check_readable
from hmtl_plugin.preparation.sources import gather_sources
from hmtl_plugin.progress import progress_bar
from hmtl_plugin.tokenizers.base import SENTENCEPIECE, WORDPIECE, Tokenizer
from hmtl_plugin.tokenizers.loading import load_tokenizer, tokenizer_from_bytes
from hmtl_plugin.tokenizers.training import train_tokenizer, train_wordpiece
from hmtl_plugin.tokenizers.unknown import REFUSED, describe, warn
from hmtl_plugin.tokenizers.wordpiece import MAX_WORD_CHARACTERS


@dataclass(frozen=True)
class Summary:
    """What a run did: the manifest, the text read in bytes, the time, whether the corpus was there already, and the
    held-out text that was written (None if none was).
    """

    folder: Path
    manifest: Manifest
    text_bytes: int
    seconds: float
    skipped: bool
    held_out: Path | None = None

    def __str__(self) -> str:
        splits = self.manifest["splits"]
        alone = [name for name, split in splits.items() if split["documents"] == 1]
        notes = f"; {' and '.join(alone)}: one document is too few for next-sentence prediction" if alone else ""
        if not words_in(self.manifest):
            notes += f"; {self.manifest['word_characters']:.0f} characters between blanks: words are single pieces"
        single = [name for name, split in splits.items() if 1 < split["documents"] == split["sentences"]]
        notes += (
            f"; {' and '.join(single)}: one sentence a document, no pairs for next-sentence prediction"
            if single
            else ""
        )
        notes += f"; held-out text: {self.held_out}" if self.held_out else ""
        if self.skipped:
            return f"already prepared: {self.folder} ({_counts(splits)}); --overwrite prepares it again{notes}"
        m = self.manifest
        dropped = [
            f"{m[name]:,} {what}"  # type: ignore[literal-required]
            for name, what in (
                ("duplicate_documents", "duplicate documents"),
                ("excluded_documents", "excluded documents"),
                ("duplicate_rows", "duplicate rows"),
                ("incomplete_rows", "incomplete rows"),
                ("empty_documents", "documents without text"),
            )
            if m.get(name)
        ]
        rate = self.text_bytes / 1e6 / max(self.seconds, 1e-9)
        return (
            f"{self.folder}: {_counts(splits)}; dropped: {', '.join(dropped) or 'nothing'}; "
            f"{self.text_bytes / 1e6:.1f} MB of text in {self.seconds:.1f} s ({rate:.1f} MB/s){notes}"
        )


def _counts(splits: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {c['documents']:,} document{'s' * (c['documents'] != 1)}, {c['sentences']:,} sentences, "
        f"{c['tokens']:,} tokens" + (f" ({c['unknown']:,} of them <unk>)" if c.get("unknown") else "")
        for name, c in splits.items()
    )


def prepare_corpus(files: list[str], out: Path | str, options: PrepareOptions, overwrite: bool = False) -> Summary:
    """Prepare a corpus; see `scripts/prepare_corpus.py --help`.

    Raises:
        UserError: anything the user can fix: options, files, text, a full disk. Nothing is left behind then.
    """
    started = time.perf_counter()
    options.check()
    if not files:
        raise UserError("no input files; name at least one")
    check_readable([*files, *options.exclude])
    tokenizer = _given_tokenizer(options)
    folder = Path(out)
    described, inputs = _describe(options, tokenizer), _inputs(files, options)
    finish_publishing(folder)
    held_out = folder / HELD_OUT if options.write_valid else None
    if done := None if overwrite else _already(folder, described, inputs):
        if options.write_valid and not has_held_out(folder, done.get("held_out")):
            with _system_errors(folder, f"the corpus is as it was, without {HELD_OUT}"):
                done = _add_held_out(files, folder, options, done)
        else:
            held_out = None
        return Summary(folder, done, 0, time.perf_counter() - started, skipped=True, held_out=held_out)
    with _system_errors(folder, "nothing was kept"), _terminable(), OutputFolder(folder, overwrite) as output:
        manifest = _prepare(files, output.part, options, tokenizer)
        manifest |= {"options": described, "inputs": inputs}
        write_manifest(output.part, manifest)
        output.publish()
    read = sum(entry["bytes"] for entry in inputs if entry["role"] == "text")
    return Summary(folder, manifest, read, time.perf_counter() - started, skipped=False, held_out=held_out)


def _add_held_out(files: list[str], folder: Path, options: PrepareOptions, manifest: Manifest) -> Manifest:
    """Write the held-out text of a corpus that was prepared without; returns its new manifest.

    The corpus is made again, beside, with the tokenizer of the first time. Only if it comes out the same to the byte
    are these documents the ones that were held out: another version may read or split the text in another way.

    Raises:
        UserError: the corpus comes out in another way. It is left as it was.
    """
    with _terminable(), OutputFolder(folder, overwrite=True) as output:
        again = _prepare(files, output.part, options, load_tokenizer(folder))
        if again["data_sha256"] != manifest.get("data_sha256"):
            raise UserError(
                f"{folder}: holds a corpus that this version would prepare in another way, so its held-out documents "
                "are not known; --overwrite prepares it again (train models on it again then), or choose another --out"
            )
        manifest = manifest | {"held_out": again["held_out"]}
        write_manifest(folder, manifest)  # first: a text that no manifest knows would be refused
        (output.part / HELD_OUT).rename(folder / HELD_OUT)
    return manifest


@contextlib.contextmanager
def _system_errors(folder: Path, left: str) -> Iterator[None]:
    """Errors of the operating system as `UserError`, which also says what is ``left``."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror}; {left}") from error


class _terminable:
    """While preparing, SIGTERM unwinds the stack, and so removes what was begun, instead of killing at once."""

    def __enter__(self) -> None:
        def stop(number: int, frame: object) -> None:
            sys.exit(128 + number)

        try:
            self._previous: Any = signal.signal(signal.SIGTERM, stop)
        except ValueError:  # not in the main thread
            self._previous = None

    def __exit__(self, *exception: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)


def _given_tokenizer(options: PrepareOptions) -> Tokenizer | None:
    if options.tokenizer is None:
        return None
    if not Path(options.tokenizer).exists():
        raise UserError(f"{options.tokenizer}: no such file")
    tokenizer = load_tokenizer(options.tokenizer)
    tokenizer.dictionary_text()  # refuses what dict.txt cannot hold
    if options.vocab_size is not None and options.vocab_size != len(tokenizer):
        raise UserError(
            f"--vocab-size {options.vocab_size}: {options.tokenizer} has {len(tokenizer)} pieces; "
            "leave --vocab-size out"
        )
    return tokenizer


def _describe(options: PrepareOptions, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """The options as corpus.json records them: files by content, nothing that the data do not depend on."""
    described = asdict(options)
    for name in ("workers", "exclude", "write_valid", "allow_unknown"):
        del described[name]
    if tokenizer is not None:
        described |= {"tokenizer": tokenizer.sha256, "vocab_size": len(tokenizer), "model_type": None}
    return described


def _inputs(files: list[str], options: PrepareOptions) -> list[dict[str, Any]]:
    named = [(file, "text") for file in files] + [(file, "exclude") for file in options.exclude]
    entries = []
    with progress_bar("fingerprints", sum(Path(f).stat().st_size for f, _ in named)) as bar:
        for file, role in named:
            size = Path(file).stat().st_size
            entries.append({"name": Path(file).name, "role": role, "bytes": size, "sha256": file_sha256(file)})
            bar.update(size)
    return entries


def _already(folder: Path, described: dict[str, Any], inputs: list[dict[str, Any]]) -> Manifest | None:
    """The manifest when the folder holds just this corpus; `UserError` when it holds another."""
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    fix = "--overwrite replaces it, or choose another --out"
    defaults = {f.name: f.default for f in fields(PrepareOptions)}  # an option that is younger than the corpus
    differing = [k for k, v in described.items() if manifest["options"].get(k, defaults.get(k)) != v]
    if differing:
        name = differing[0]
        raise UserError(
            f"{folder}: holds a corpus prepared with other options "
            f"({name} was {manifest['options'].get(name)}, is {described[name]}); {fix}"
        )
    if manifest["inputs"] != inputs:
        raise UserError(f"{folder}: holds a corpus prepared from other files, or the files have changed; {fix}")
    for split in manifest["splits"]:
        check_manifest(folder, split)
    return manifest


def _prepare(files: list[str], part: Path, options: PrepareOptions, tokenizer: Tokenizer | None) -> Manifest:
    workers = options.workers or cpu_count()
    spool = gather_sources(files, part, options, workers)
    valid_D = _split(spool, options)
    if tokenizer is None:
        tokenizer = _train(spool, valid_D, options)
    with progress_bar("encoding", spool.size) as bar:
        counts, text = binarise(spool, tokenizer, part, valid_D, options.rows, workers, bar.update)
    held_out = write_held_out(spool, valid_D, part / HELD_OUT) if options.write_valid else None
    spool.text.unlink()
    spool.keys.unlink()
    if not counts["train"]["sentences"]:
        raise UserError("the tokenizer knows no piece of this text: every sentence came out empty; choose another")
    _check_unknown(counts, text, options)
    (part / "dict.txt").write_text(tokenizer.dictionary_text(), encoding="utf-8")
    (part / tokenizer.file_name).write_bytes(tokenizer.to_bytes())
    manifest = _manifest(part, spool, counts, options, tokenizer)
    # Not what begins a sentence: of a script without blanks that is all that the dictionary marks, however short they
    # are.
    within = text.words - sum(int(count["sentences"]) for count in counts.values())
    manifest["word_characters"] = round(text.characters / max(within, 1) - 1, 2)  # less the blank before each
    return manifest if held_out is None else manifest | {"held_out": held_out}


def _check_unknown(counts: dict[str, dict[str, Any]], text: TextCounts, options: PrepareOptions) -> None:
    """Say how much of the text is ``<unk>`` if it is worth a line; `UserError` if it is most of it."""
    unknown, tokens = (sum(count[name] for count in counts.values()) for name in ("unknown", "tokens"))
    tokens -= text.blanks  # of unknown characters in a row sentencepiece makes one piece, the blank before them another
    if unknown > REFUSED * tokens and not options.allow_unknown:
        fix = "raise --character-coverage" if options.tokenizer is None else "train one (--vocab-size), give another"
        if options.model_type == "wordpiece" and any(len(part) > MAX_WORD_CHARACTERS for part in text.parts):
            fix = f"give --model-type unigram (to wordpiece, what is longer than {MAX_WORD_CHARACTERS} characters is unknown)"
        raise UserError(
            f"{describe(unknown, tokens, text.parts)}: the tokenizer does not fit this text: {fix}, or add --allow-unknown"
        )
    warn("this text", unknown, tokens, text.parts)


def _manifest(
    part: Path, spool: Spool, counts: dict[str, dict[str, Any]], options: PrepareOptions, tokenizer: Tokenizer
) -> Manifest:
    splits = {name: {k: v for k, v in count.items() if k != "sha256"} for name, count in counts.items()}
    return Manifest(
        schema=SCHEMA,
        layout="rows" if options.rows else "segments",
        splits=splits,  # type: ignore[typeddict-item]
        dictionary_sha256=file_sha256(part / "dict.txt"),
        tokenizer_sha256=tokenizer.sha256,
        data_sha256={name: count["sha256"] for name, count in counts.items()},
        excluded_documents=spool.excluded,
        duplicate_documents=spool.duplicates,
        duplicate_rows=spool.duplicate_rows,
        incomplete_rows=spool.incomplete_rows,
        empty_documents=spool.empty,
        versions={name: importlib.metadata.version(name) for name in ("sentencepiece", "sentencex", "numpy")},
    )


def _split(spool: Spool, options: PrepareOptions) -> npt.NDArray[np.bool_]:
    """Which documents are held out; `UserError` when none is left to train on."""
    one, many = ("group of rows", "groups of rows") if options.rows else ("document", "documents")
    if not spool.documents:
        if spool.excluded:
            raise UserError(
                f"no {many} left: all {spool.excluded} share a sentence with the --exclude files; "
                "--exclude-min-words 5 lets short sentences pass"
            )
        raise UserError("the corpus is empty: the files hold no text in this --format")
    keys = split_keys(np.fromfile(spool.keys, dtype="<u8"), options.seed)
    valid_D = choose_validation(keys, options.valid_fraction, options.valid_documents)
    if not valid_D.any():
        return np.empty(0, dtype=np.bool_)
    if valid_D.all():
        raise UserError(
            f"only {spool.documents} {one if spool.documents == 1 else many}: none is left to train on beside the validation split; "
            "give more text with blank lines between documents, or --valid-fraction 0 for no validation split"
        )
    return valid_D


def _train(spool: Spool, valid_D: npt.NDArray[np.bool_], options: PrepareOptions) -> Tokenizer:
    """Train the tokenizer on a sample of the training documents, in a child process."""
    assert options.vocab_size is not None
    with progress_bar("training the tokenizer (seconds)", None, unit="s") as bar:
        content = run_in_child(_train_sampled, spool, valid_D, options, tick=lambda: bar.update(0.5))
    return tokenizer_from_bytes(WORDPIECE if options.model_type == "wordpiece" else SENTENCEPIECE, content)


def _train_sampled(spool: Spool, valid_D: npt.NDArray[np.bool_], options: PrepareOptions) -> bytes:
    sentences = sample_sentences(spool, valid_D, options.tokenizer_sentences, options.seed)
    assert options.vocab_size is not None
    if options.model_type == "wordpiece":
        return train_wordpiece(sentences, options.vocab_size, options.lowercase)
    return train_tokenizer(sentences, options.vocab_size, options.model_type, options.character_coverage)


__all__ = ["FORMATS", "PrepareOptions", "Summary", "prepare_corpus"]
