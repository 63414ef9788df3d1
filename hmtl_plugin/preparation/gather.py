"""First stage of preparation: files to one text file of kept documents, one sentence a line.

The text file (the *spool*) holds a blank line before every document but the first. Beside it stand 8 bytes a
document (`keys`), from which the train/valid split is drawn, and a table of places where the second stage may
start reading. Workers read, clean, split and hash; this process decides and writes. A document may be longer
than memory: it is written as it comes and cut off again when its end shows that it is a duplicate.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from hmtl_plugin.preparation.deduplication import ExcludedSentences, SeenKeys, comparable, new_hash, normalise
from hmtl_plugin.preparation.readers.plain import TextOptions, read_span
from hmtl_plugin.preparation.readers.text import SPAN_BYTES, Span
from hmtl_plugin.preparation.splitting import SentenceSplitter


class Piece(NamedTuple):
    """Part of a document, or a whole one: what a worker found between two document boundaries of its span.

    Attributes:
        text: sentences, each with its line end, in UTF-8.
        sentences: how many.
        digest: 8 bytes, the document's key, when the piece is a whole document; else empty.
        normal: its normalised text when it may be a part only.
        excluded: whether it shares a sentence with the excluded files.
        empty: whether it is a record without text.
    """

    text: bytes
    sentences: int
    digest: bytes
    normal: bytes
    excluded: bool
    empty: bool = False


@dataclass
class Reader:
    """What a worker needs to turn spans or paragraphs into pieces; sent to workers once, when they are
    forked.
    """

    options: TextOptions
    excluded: ExcludedSentences | None = None

    def __post_init__(self) -> None:
        self.splitter = SentenceSplitter(self.options.language)

    def shares(self, text: str) -> bool:
        """Whether a document's text (one unit a line) shares a sentence, as it stands or split again."""
        if self.excluded is None or not len(self.excluded):
            return False
        lines = text.split("\n")
        return self.excluded.shared(lines) or self.excluded.shared(
            s for line in lines for s in self.splitter.split(line)
        )

    def piece(self, text: str | None, whole: bool) -> Piece:
        """A piece of sentences one a line, without a last line end; None: a record without text."""
        if not text:
            return Piece(b"", 0, b"", b"", False, empty=text is None)
        digest = normal = b""
        if whole:
            running = new_hash()
            running.update(comparable(text))
            digest = running.digest()
        else:
            normal = normalise(text)
        return Piece(text.encode() + b"\n", text.count("\n") + 1, digest, normal, self.shares(text))


_reader: Reader


def set_reader(reader: Reader) -> None:
    """Set up a worker."""
    global _reader
    _reader = reader


def read_task(task: list[Span]) -> list[tuple[Span, list[Piece]]]:
    """In a worker: the pieces of each span; a document boundary stands between two pieces."""
    result = []
    for span in task:
        texts = read_span(span, _reader.options, _reader.splitter)
        last = len(texts) - 1
        pieces = [
            _reader.piece(text, whole=(i > 0 or span.first) and (i < last or span.last)) for i, text in enumerate(texts)
        ]
        result.append((span, pieces))
    return result


def split_task(documents: list[list[str]]) -> list[Piece]:
    """In a worker: documents given as tidy paragraphs to pieces."""
    return [_reader.piece(_reader.splitter.split_lines(paragraphs), whole=True) for paragraphs in documents]


@dataclass
class Spool:
    """The first stage's output.

    Attributes:
        text, keys: the two files; keys are uint64, one a document.
        starts: (byte, document) places in the text file where reading may start, with the number of the
            document that the
            line before belongs to (0 at the start).
        documents, sentences, duplicates, excluded, empty: counts; ``empty`` of records without text.
    """

    text: Path
    keys: Path
    starts: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    size: int = 0
    documents: int = 0
    sentences: int = 0
    duplicates: int = 0
    excluded: int = 0
    empty: int = 0
    incomplete_rows: int = 0
    duplicate_rows: int = 0


class SpoolWriter:
    """Appends documents to a spool, dropping duplicates and excluded ones. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder / "spool.txt", folder / "spool.keys")
        self._seen = SeenKeys()
        self._text: IO[bytes] = self.spool.text.open("wb")
        self._keys: IO[bytes] = self.spool.keys.open("wb")
        self._position = 0
        self._reset()

    def _reset(self) -> None:
        self._begin = self._position  # where the open document starts in the file
        self._sentences = 0
        self._hash = new_hash()
        self._excluded = False

    def __enter__(self) -> "SpoolWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._text.close()
        self._keys.close()
        self.spool.size = self._position

    def _write(self, data: bytes) -> None:
        self._text.write(data)
        self._position += len(data)

    def _mark(self) -> None:
        """Note a place to start reading when enough text was written since the last one."""
        if self._position - self.spool.starts[-1][0] >= SPAN_BYTES:
            self.spool.starts.append((self._position, max(0, self.spool.documents - (self._sentences == 0))))

    def add_whole(self, pieces: list[Piece]) -> None:
        """Append whole documents; no document may be open."""
        pieces = [piece for piece in pieces if piece.sentences]
        kept = [piece for piece in pieces if not piece.excluded]
        self.spool.excluded += len(pieces) - len(kept)
        keys = np.frombuffer(b"".join(piece.digest for piece in kept), dtype="<u8")
        fresh = self._seen.add(keys)
        self.spool.duplicates += len(kept) - int(fresh.sum())
        for piece, is_fresh in zip(kept, fresh.tolist()):
            if is_fresh:
                self._write((b"\n" if self.spool.documents else b"") + piece.text)
                self.spool.documents += 1
                self.spool.sentences += piece.sentences
                self._mark()
        self._keys.write(keys[fresh].tobytes())
        self._reset()

    def extend(self, piece: Piece) -> None:
        """Append a part to the open document, or open one."""
        if not piece.sentences:
            return
        if not self._sentences and self.spool.documents:
            self._write(b"\n")
        self._write(piece.text)
        self._sentences += piece.sentences
        self._hash.update(piece.normal)
        self._excluded |= piece.excluded
        self._mark()

    def close_document(self) -> None:
        """End the open document, if any: keep it, or cut it off when it is excluded or a duplicate."""
        if not self._sentences:
            return
        key = np.frombuffer(self._hash.digest(), dtype="<u8")
        if self._excluded:
            self.spool.excluded += 1
        elif not self._seen.add(key)[0]:
            self.spool.duplicates += 1
        else:
            self._keys.write(key.tobytes())
            self.spool.documents += 1
            self.spool.sentences += self._sentences
            self._reset()
            return
        self._text.seek(self._begin)
        self._text.truncate()
        self._position = self._begin
        while self.spool.starts[-1][0] > self._begin:
            self.spool.starts.pop()
        self._reset()

    def add_span(self, span: Span, pieces: list[Piece]) -> None:
        """Append what `read_task` found in a span."""
        self.spool.empty += sum(piece.empty for piece in pieces)
        whole: list[Piece] = []
        last = len(pieces) - 1
        for i, piece in enumerate(pieces):
            if piece.digest:
                whole.append(piece)
                continue
            self.add_whole(whole) if whole else None
            whole = []
            self.extend(piece)
            if i < last or span.last:
                self.close_document()
        if whole:
            self.add_whole(whole)


def group_documents(documents: Iterable[list[str]]) -> Iterator[list[list[str]]]:
    """Group documents (lists of paragraphs) into tasks for `split_task`."""
    group: list[list[str]] = []
    size = 0
    for document in documents:
        group.append(document)
        size += sum(map(len, document))
        if size >= SPAN_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def sample_sentences(spool: Spool, valid_D: npt.NDArray[np.bool_], count: int, seed: int) -> Iterator[str]:
    """About `count` sentences of the training documents, each as likely; all when there are fewer."""
    chance = min(1.0, count / max(1, spool.sentences))
    draw = _draws(chance, seed).__next__
    document = 0
    with spool.text.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            if line == "\n":
                document += 1
                continue
            if len(valid_D) and valid_D[document]:
                continue
            if chance < 1 and not draw():
                continue
            yield from line.rstrip("\n").split("\t")


def _draws(chance: float, seed: int) -> Iterator[bool]:
    random = np.random.default_rng(seed)
    while True:
        yield from (random.random(1 << 16) < chance).tolist()
