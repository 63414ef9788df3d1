"""Text of several formats as one file of documents: what tasks of sentence pairs and of paragraphs are trained on.

A group of pairs that share a sentence becomes a document of their sentences, each once, in the order of the file: a
premise and its hypotheses. So text of all formats is of one kind, sentences in documents, and one tokenizer and one
pairing serve it.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.publishing import write_whole
from hmtl_plugin.parallel import cpu_count
from hmtl_plugin.preparation.gather import Spool
from hmtl_plugin.preparation.options import ROW_FORMATS, PrepareOptions
from hmtl_plugin.preparation.readers.text import check_readable
from hmtl_plugin.preparation.sources import gather_sources


@dataclass
class Gathered:
    """What one format gave.

    Attributes:
        documents, sentences: written.
        excluded: documents that share a sentence with the excluded files, and were left out.
        duplicates: documents that were there already; of pairs: rows.
    """

    files: list[str]
    format: str
    documents: int
    sentences: int
    excluded: int
    duplicates: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, files by name."""
        return asdict(self) | {"files": [Path(file).name for file in self.files]}


def write_mixture(sources: Mapping[str, Sequence[str]], out: Path, options: PrepareOptions) -> list[Gathered]:
    """Write one text file, a sentence a line and a blank line between documents; returns what each format gave.

    Args:
        sources: format (see `PrepareOptions`) -> files.
        options: what is excluded, and how files are read; its ``format`` is not used.

    Raises:
        UserError: for a file that cannot be read, or if no document is left. `out` is written beside and renamed.
    """
    check_readable([*(file for files in sources.values() for file in files), *options.exclude])
    out.parent.mkdir(parents=True, exist_ok=True)
    gathered: list[Gathered] = []
    with contextlib.ExitStack() as stack:
        part = stack.enter_context(write_whole(out))
        text = stack.enter_context(part.open("w", encoding="utf-8", newline="\n"))
        for format, files in sources.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=out.parent)))
            chosen = replace(options, format=format)
            spool = gather_sources(list(files), folder, chosen, options.workers or cpu_count())
            begun = any(g.documents for g in gathered)
            sentences = _append(spool, format in ROW_FORMATS, text, begun)
            duplicates = spool.duplicates + spool.duplicate_rows
            gathered.append(Gathered(list(files), format, spool.documents, sentences, spool.excluded, duplicates))
        text.close()
        if not any(g.documents for g in gathered):
            raise UserError(
                f"{out}: no document is left: {sum(g.excluded for g in gathered):,} share a sentence with the --exclude files, "
                "the other files are empty"
            )
    return gathered


def _append(spool: Spool, pairs: bool, text: IO[str], begun: bool) -> int:
    """Copy a spool's documents; returns the number of sentences written."""
    count = 0
    for document in _documents(spool):
        sentences = dict.fromkeys(side for line in document for side in line.split("\t")) if pairs else document
        text.write(("\n" if begun else "") + "".join(f"{sentence}\n" for sentence in sentences))
        begun = True
        count += len(sentences)
    return count


def _documents(spool: Spool) -> Iterator[list[str]]:
    document: list[str] = []
    with spool.text.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            if line == "\n":
                yield document
                document = []
            else:
                document.append(line.removesuffix("\n"))
    if document:
        yield document
