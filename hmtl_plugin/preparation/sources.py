"""From the named files to a spool: which reader serves which format."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from hmtl_plugin.errors import UserError
from hmtl_plugin.parallel import WorkerPool
from hmtl_plugin.preparation import exclude as excluding
from hmtl_plugin.preparation.deduplication import ExcludedSentences, SeenKeys, key
from hmtl_plugin.preparation.gather import (
    Reader,
    Spool,
    SpoolWriter,
    group_documents,
    read_task,
    set_reader,
    split_task,
)
from hmtl_plugin.preparation.gather_rows import RowReader, gather_rows, set_row_reader
from hmtl_plugin.preparation.options import PrepareOptions
from hmtl_plugin.preparation.readers import squad
from hmtl_plugin.preparation.readers.pairs import jsonl_columns, tsv_columns
from hmtl_plugin.preparation.readers.plain import TextOptions, looks_wrapped
from hmtl_plugin.preparation.readers.text import spans, tasks
from hmtl_plugin.progress import progress_bar

logger = logging.getLogger(__name__)

_LOOK = 1 << 16  # bytes of a file that tell its format


def gather_sources(files: list[str], part: Path, options: PrepareOptions, workers: int) -> Spool:
    """Read all files into a spool in the folder `part`, less duplicates and what `options.exclude` excludes."""
    excluded = _excluded(options)
    total = sum(Path(file).stat().st_size for file in files)
    gather = _gather_pairs if options.rows else _gather_text
    with progress_bar("reading", total) as bar:
        return gather(files, part, options, excluded, workers, bar.update)


def _excluded(options: PrepareOptions) -> ExcludedSentences | None:
    if not options.exclude:
        return None
    with progress_bar("excluded files", sum(Path(f).stat().st_size for f in options.exclude)) as bar:
        return excluding.read_excluded(
            options.exclude,
            options.exclude_format,
            options.language,
            options.exclude_minimum_words,
            bar.update,
        )


def _gather_text(
    files: list[str],
    part: Path,
    options: PrepareOptions,
    excluded: ExcludedSentences | None,
    workers: int,
    advance: Callable[[int], object],
) -> Spool:
    text_options = TextOptions(options.format, options.text_field, options.blank_line_ends_document, options.language)
    reader = Reader(text_options, excluded)
    with SpoolWriter(part) as writer, WorkerPool(workers, set_reader, (reader,)) as pool:
        if options.format == "squad":
            documents = _squad_documents(files, options.with_questions, advance)
            for pieces in pool.map(split_task, group_documents(documents)):
                writer.add_whole(pieces)
        else:
            for file in files:
                _check_format(file, options)
            boundary = b"\n\n" if options.format == "documents" else b"\n"
            work = tasks(span for file in files for span in spans(file, boundary))
            for result in pool.map(read_task, work):
                for span, pieces in result:
                    writer.add_span(span, pieces)
                    advance(span.end - span.start)
    return writer.spool


def _check_format(file: str, options: PrepareOptions) -> None:
    """Refuse JSON given as plain text, a slip that would train on braces; warn of paragraphs that are lines of a
    wrapped text.
    """
    with open(file, "rb") as stream:
        head = stream.read(_LOOK)
    if options.format != "jsonl" and head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b'{"', b'[{"', b"{'")):
        raise UserError(f"{file}: looks like JSON, not {options.format}; choose --format jsonl, nli-jsonl or squad")
    if options.format == "paragraphs" and looks_wrapped(head.decode(errors="replace")):
        logger.warning(
            f"{file}: looks hard-wrapped, and each line is taken for a paragraph: if sentences run over lines, use --format documents"
        )


def _squad_documents(files: list[str], with_questions: bool, advance: Callable[[int], object]) -> Iterator[list[str]]:
    """Articles as lists of paragraphs, each paragraph once in all the files."""
    seen = SeenKeys()
    for file in files:
        for article in squad.articles(file):
            units = list(squad.article_units(article, file))
            fresh = seen.add(np.array([key(paragraph) for paragraph, _ in units], dtype=np.uint64))
            document: list[str] = []
            for (paragraph, questions), is_fresh in zip(units, fresh.tolist()):
                document += [paragraph] if is_fresh else []
                document += questions if with_questions else []
            yield document
        advance(Path(file).stat().st_size)


def _gather_pairs(
    files: list[str],
    part: Path,
    options: PrepareOptions,
    excluded: ExcludedSentences | None,
    workers: int,
    advance: Callable[[int], object],
) -> Spool:
    find = tsv_columns if options.format == "pairs" else jsonl_columns
    columns = {file: find(file, options.columns) for file in files}
    work = tasks(span for file in files for span in spans(file, skip=columns[file].header_bytes))
    reader = RowReader(columns, excluded, options.language)
    with WorkerPool(workers, set_row_reader, (reader,)) as pool:
        return gather_rows(part, pool, work, advance)
