"""Making probing sets: text files to a folder of tasks in SentEval's layout."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.output_folder import OutputFolder
from hmtl_plugin.parallel import cpu_count
from hmtl_plugin.preparation.readers.text import check_readable
from hmtl_plugin.preparation.sources import gather_sources
from hmtl_plugin.probing.generation import bigram_shift, odd_man_out, sentence_length, word_content
from hmtl_plugin.probing.generation.options import ProbingOptions
from hmtl_plugin.probing.generation.rows import Rows, Sizes, lacking
from hmtl_plugin.probing.generation.sample import Sample, draw_sample
from hmtl_plugin.probing.generation.split import SPLITS
from hmtl_plugin.probing.generation.write import count_labels, fingerprints, write_manifest, write_task
from hmtl_plugin.progress import progress_bar

Maker = Callable[[Sample, Sizes, np.random.Generator], Rows]


@dataclass(frozen=True)
class Summary:
    """What was made: the content of probing.json."""

    folder: Path
    manifest: dict[str, Any]

    def __str__(self) -> str:
        lines = [f"{self.folder}: {_read(self.manifest)}"]
        lines += [_made(self.manifest, name) for name in self.manifest["tasks"]]
        lines += [f"{name}: left out, {reason}" for name, reason in self.manifest["left_out"].items()]
        return "\n".join(lines)


def _read(manifest: dict[str, Any]) -> str:
    text, unit = manifest["text"], manifest["options"]["split_by"] + "s"
    parts = ", ".join(f"{split} {counts[unit]:,}" for split, counts in manifest["splits"].items())
    return f"{text['sampled']:,} of {text['sentences']:,} sentences used; {unit}: {parts}"


def _made(manifest: dict[str, Any], name: str) -> str:
    """A task's rows, and whether they are fewer than was asked for."""
    counts, options = manifest["tasks"][name], manifest["options"]
    asked = dict(zip(SPLITS, (options["train"], options["valid"], options["test"])))
    sizes = {split: sum(labels.values()) for split, labels in counts.items()}
    line = f"{name}: {', '.join(f'{split} {size:,}' for split, size in sizes.items())} ({len(counts['tr']):,} labels)"
    if any(asked[split] - size >= len(counts[split]) for split, size in sizes.items()):
        cause = "the sample (--max-sentences)" if manifest["text"]["not_sampled"] else "the text"
        line += f"; {', '.join(f'{size:,}' for size in asked.values())} asked for: {cause} gives no more balanced rows"
    return line


def make_probing(files: list[str], out: Path | str, options: ProbingOptions, overwrite: bool = False) -> Summary:
    """Make probing sets; see `scripts/make_probing.py --help`.

    Raises:
        UserError: anything the user can fix: options, files, too little text. Nothing is left behind then.
    """
    options.check()
    if not files:
        raise UserError("no input files; name at least one")
    check_readable([*files, *options.exclude])
    folder = Path(out)
    try:
        with OutputFolder(folder, overwrite) as output:
            inputs = fingerprints(files, list(options.exclude))
            text, dropped = _read_text(files, output.part, options)
            tasks, left_out = _make_tasks(text, output.part, options)
            manifest = {
                "options": options.described(),
                "inputs": inputs,
                "text": dropped | text.counts,
                "splits": _splits(text),
                "tasks": tasks,
                "left_out": left_out,
            }
            write_manifest(output.part, manifest)
            output.publish()
    except OSError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror}; nothing was kept") from error
    return Summary(folder, manifest)


def _read_text(files: list[str], part: Path, options: ProbingOptions) -> tuple[Sample, dict[str, int]]:
    """The sample, and the documents and rows that were dropped while reading."""
    spool = gather_sources(files, part, options.reading(), options.workers or cpu_count())
    if not spool.documents and spool.excluded:
        raise UserError(
            f"no text left: all {spool.excluded} documents share a sentence with the --exclude files; "
            "--exclude-min-words 5 lets short sentences pass"
        )
    with progress_bar("sampling", spool.size) as bar:
        text = draw_sample(spool, options, bar.update)
    spool.text.unlink()
    spool.keys.unlink()
    return text, {
        "documents": spool.documents,
        "duplicate_documents": spool.duplicates,
        "excluded_documents": spool.excluded,
    }


def _makers(options: ProbingOptions) -> dict[str, Maker]:
    return {
        "sentence_length": sentence_length.make,
        "word_content": partial(word_content.make, words=options.words),
        "bigram_shift": bigram_shift.make,
        "odd_man_out": odd_man_out.make,
    }


def _make_tasks(
    text: Sample, part: Path, options: ProbingOptions
) -> tuple[dict[str, dict[str, dict[str, int]]], dict[str, str]]:
    """Write all tasks; the counts of those that were made, and why others were not."""
    tasks: dict[str, dict[str, dict[str, int]]] = {}
    left_out: dict[str, str] = {}
    makers = _makers(options)
    with progress_bar("tasks", len(makers), unit="task") as bar:
        for number, (name, make) in enumerate(makers.items()):
            rows = make(text, options.sizes, np.random.default_rng([options.seed, number]))
            if reason := lacking(rows, options.sizes):
                left_out[name] = reason
            else:
                write_task(part / f"{name}.txt", rows)
                tasks[name] = count_labels(rows)
            bar.update(1)
    if not tasks:
        first = next(iter(left_out))
        raise UserError(
            f"too little text for any probing task ({text.counts['sampled']:,} usable sentences; "
            f"{first}: {left_out[first]}); give more text"
        )
    return tasks, left_out


def _splits(text: Sample) -> dict[str, dict[str, int]]:
    return {
        name: {
            "documents": len(np.unique(text.document_S[text.split_S == split])),
            "sentences": int((text.split_S == split).sum()),
        }
        for split, name in enumerate(SPLITS)
    }
