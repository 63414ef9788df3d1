"""English prose that every Python installation carries in its documentation, for a first run without a download.

Sources: the language reference in ``pydoc_data.topics``, the docstrings of the standard library and of the
installed packages (parsed, never imported), and the text files and descriptions that packages bring along. A
topic, a module or a file is a document. Sources are visited in a fixed order and a fixed file order: one
machine gives one corpus.
"""

import ast
import os
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.publishing import write_whole
from hmtl_plugin.parallel import WorkerPool, cpu_count
from hmtl_plugin.preparation.deduplication import SeenKeys, key
from hmtl_plugin.preparation.prose import paragraphs
from hmtl_plugin.progress import progress_bar

_SKIPPED_FOLDERS = frozenset(
    "test tests testing _test _tests site-packages dist-packages __pycache__ _vendor vendor vendored"
    " third_party idlelib lib2to3 turtledemo ensurepip encodings locale licenses node_modules include share bin".split()
)
_TEXT_SUFFIXES = (".rst", ".md", ".txt")
_SKIPPED_TEXTS = (
    "license",
    "licence",
    "copying",
    "notice",
    "authors",
    "requirements",
    "top_level",
    "entry_points",
    "sources",
    "installer",
    "record",
    "wheel",
    "thanks",
    "contributors",
    "changelog",
    "changes",
    "history",
    "vocab",
)
_MAX_FILE_BYTES = 2_000_000
_MIN_PARAGRAPHS = 2
_FILES_A_TASK = 48
_TRIPLE_QUOTED = re.compile(rb'"""(.*?)"""', re.DOTALL)
_MIN_QUOTED, _MIN_QUOTED_SHARE = 200, 0.07  # halves the time and costs a seventh of the text


@dataclass(frozen=True)
class EmbeddedSummary:
    """What was gathered: documents, paragraphs, bytes of text, and whether the file was there already."""

    path: Path
    documents: int
    paragraphs: int
    size: int
    skipped: bool = False

    def __str__(self) -> str:
        if self.skipped:
            return f"already gathered: {self.path} ({self.size / 1e6:.1f} MB); --overwrite gathers it again"
        counts = f"{self.documents:,} documents, {self.paragraphs:,} paragraphs"
        return f"{self.path}: {counts}, {self.size / 1e6:.1f} MB"


def package_folders() -> list[Path]:
    """The folders that hold installed packages, those of a base installation behind a virtual environment
    included.
    """
    candidates = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    candidates += [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    folders: dict[str, Path] = {}
    for candidate in candidates:
        if candidate and os.path.isdir(candidate):
            folders.setdefault(os.path.realpath(candidate), Path(candidate))
    return list(folders.values())


def standard_library() -> Path:
    """The folder of the standard library's modules."""
    return Path(sysconfig.get_path("stdlib"))


def source_files() -> Iterator[Path]:
    """Python and text files to read, the standard library first, each folder in sorted order."""
    for root in (standard_library(), *package_folders()):
        for folder, subfolders, files in os.walk(root):
            subfolders[:] = sorted(
                name for name in subfolders if name not in _SKIPPED_FOLDERS and not name.startswith(".")
            )
            for name in sorted(files):
                if _wanted(name):
                    yield Path(folder, name)


def _wanted(name: str) -> bool:
    if name.endswith(".py"):
        return not name.startswith("test_")
    lower = name.lower()
    return name == "METADATA" or (lower.endswith(_TEXT_SUFFIXES) and not lower.startswith(_SKIPPED_TEXTS))


def _worth_parsing(source: bytes) -> bool:
    """Whether enough of a source is in triple quotes: parsing, not filtering, takes the time (2 MB/s)."""
    quoted = sum(map(len, _TRIPLE_QUOTED.findall(source)))
    return quoted >= max(_MIN_QUOTED, _MIN_QUOTED_SHARE * len(source))


def docstrings(source: bytes) -> list[str]:
    """The docstrings of a module in the order of the source, and the texts given to ``add_docstr`` and its
    like.
    """
    if not _worth_parsing(source):
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    found: list[str] = []
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text:
                found.append(text)
            pending += reversed(node.body)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            found += _documenting_texts(node.value)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            pending += reversed(node.body)
    return found


def _documenting_texts(call: ast.Call) -> list[str]:
    """Long texts among the arguments of a call: C extensions get their docstrings from such calls
    (``add_docstr``).
    """
    texts: list[str] = []
    for argument in call.args:
        inner = (
            argument.func.value
            if isinstance(argument, ast.Call) and isinstance(argument.func, ast.Attribute)
            else argument
        )
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str) and len(inner.value) > 200:
            texts.append(inner.value)
    return texts


def read_files(paths: list[Path]) -> list[list[str]]:
    """In a worker: the prose paragraphs of each file."""
    return [_read_file(path) for path in paths]


def _read_file(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            return []
        source = path.read_bytes()
    except OSError:
        return []
    if path.suffix == ".py":
        return [paragraph for text in docstrings(source) for paragraph in paragraphs(text)]
    text = source.decode("utf-8", errors="ignore").replace("\r\n", "\n")
    if path.name == "METADATA":
        text = text.partition("\n\n")[2]
    return paragraphs(text)


def topics() -> list[list[str]]:
    """The prose of Python's language reference, a topic a document."""
    from pydoc_data.topics import topics as texts

    return [paragraphs(texts[name], indented=True) for name in sorted(texts)]


def documents(workers: int, progress: bool = True) -> Iterator[list[str]]:
    """All documents in their order, of at least two paragraphs that were in none before."""
    seen = SeenKeys()
    files = list(source_files())
    groups = [files[i : i + _FILES_A_TASK] for i in range(0, len(files), _FILES_A_TASK)]
    with (
        WorkerPool(workers, _nothing) as pool,
        progress_bar("documentation", len(files), unit="files") as bar,
    ):
        for group in _in_order(topics(), pool, groups, bar.update):
            for document in group:
                fresh = seen.add(np.array([key(paragraph) for paragraph in document], dtype=np.uint64)).tolist()
                kept = [paragraph for paragraph, is_fresh in zip(document, fresh) if is_fresh]
                if len(kept) >= _MIN_PARAGRAPHS:
                    yield kept


def _nothing() -> None:
    pass


def _in_order(
    first: list[list[str]], pool: WorkerPool, groups: list[list[Path]], advance: object
) -> Iterator[list[list[str]]]:
    yield first
    for group, result in zip(groups, pool.map(read_files, groups)):
        advance(len(group))  # type: ignore[operator]
        yield result


def gather_python_prose(
    out: Path | str,
    max_megabytes: float = 8.0,
    min_megabytes: float = 0.0,
    workers: int = 0,
    overwrite: bool = False,
) -> EmbeddedSummary:
    """Write that prose: a paragraph a line, a blank line between documents (``--format
    paragraphs``).

    Args:
        out: file to write; left alone when it is there already, but with `overwrite`.
        max_megabytes: stop after the document that reaches so many.
        min_megabytes: `UserError` when less is found.
    """
    path = Path(out)
    if path.is_file() and path.stat().st_size and not overwrite:
        return EmbeddedSummary(path, 0, 0, path.stat().st_size, skipped=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    count = lines = size = 0
    with write_whole(path) as part:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            for document in documents(workers or cpu_count()):
                text = ("\n" if count else "") + "".join(f"{paragraph}\n" for paragraph in document)
                file.write(text)
                count += 1
                lines += len(document)
                size += len(text.encode())
                if size >= max_megabytes * 1e6:
                    break
        if size < min_megabytes * 1e6:
            raise UserError(
                f"found {size / 1e6:.1f} MB of prose on this machine, {min_megabytes} are asked for; "
                "give text of your own to scripts/prepare_corpus.py"
            )
    return EmbeddedSummary(path, count, lines, size)
