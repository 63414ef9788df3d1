"""Second stage of preparation: the spool to fairseq's ``.bin`` and ``.idx``, byte for byte what
`fairseq-preprocess` writes.

Workers encode a part of the spool each, straight into the file's dtype; this process appends. The index needs
the size of
every item: they wait in a file, 4 bytes each, and are turned into the index block by block.
"""

import hashlib
import itertools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from hmtl_plugin.corruption.vocabulary import WORD_BOUNDARY, word_starts
from hmtl_plugin.errors import UserError
from hmtl_plugin.parallel import WorkerPool
from hmtl_plugin.preparation.gather import Spool
from hmtl_plugin.preparation.readers.text import read_bytes
from hmtl_plugin.special_tokens import EOS
from hmtl_plugin.tokenizers.base import UNK, Tokenizer
from hmtl_plugin.tokenizers.unknown import SAID, unknown_parts

SPLITS = ("train", "valid")
_HEADER = struct.Struct("<9sQBQ")  # magic, version, dtype code, number of items
_MAGIC = b"MMIDIDX\x00\x00"
_DTYPE_CODES = {"uint16": 8, "uint32": 9}
_BLOCK_ITEMS = 1 << 20


def item_dtype(vocabulary: int) -> np.dtype[Any]:
    """The dtype fairseq stores ids of a vocabulary of this size in."""
    return np.dtype("<u2" if vocabulary < 65500 else "<u4")


def narrow(ids_N: npt.NDArray[Any], vocabulary: int) -> npt.NDArray[Any]:
    """Ids in the file's dtype; `UserError` for an id outside the vocabulary, which must never wrap around."""
    if len(ids_N) and (int(ids_N.min()) < 0 or int(ids_N.max()) >= vocabulary):
        wrong = int(ids_N.min()) if int(ids_N.min()) < 0 else int(ids_N.max())
        raise UserError(
            f"token id {wrong} is outside the vocabulary of {vocabulary}; the tokenizer does not belong to it"
        )
    return ids_N.astype(item_dtype(vocabulary))


@dataclass(frozen=True)
class Items:
    """Encoded items of one split.

    Attributes:
        data: ids of all items, each item with its ``</s>``, in the file's dtype, as bytes.
        sizes_I: int32, ids of each item. An item of size 1 separates documents.
        separators: how many of them do.
        unknown: how many ids are ``<unk>``; `parts` are some characters or words that became it, where there are many.
        words, characters: of the whole block, whatever the split: how many pieces begin a word, as the dictionary marks
            it, and how long the text is. blanks: pieces that are nothing but sentencepiece's mark of one.
    """

    data: bytes
    sizes_I: npt.NDArray[np.int32]
    separators: int
    unknown: int = 0
    parts: tuple[str, ...] = ()
    words: int = 0
    characters: int = 0
    blanks: int = 0


@dataclass(frozen=True)
class TextCounts:
    """Of all splits; see `Items`."""

    words: int
    characters: int
    blanks: int
    parts: tuple[str, ...]


class IndexedWriter:
    """Writes ``prefix.bin`` and ``prefix.idx``; nothing is held but what is given.

    Separators stand between documents only: never first, last or twice.
    """

    def __init__(self, prefix: Path, vocabulary: int) -> None:
        self.prefix, self.vocabulary = prefix, vocabulary
        self.dtype = item_dtype(vocabulary)
        self.items = self.ids = self.separators = self.unknown = self.words = self.characters = self.blanks = 0
        self.parts: dict[str, None] = {}
        self._ends_separated = True  # nothing written yet: no separator now
        self._sha = hashlib.sha256()
        self._data: IO[bytes] = Path(f"{prefix}.bin").open("wb")  # noqa: SIM115 - closed in finish
        self._sizes_path = Path(f"{prefix}.sizes")
        self._sizes: IO[bytes] = self._sizes_path.open("wb")
        self._held = Items(b"", np.empty(0, dtype=np.int32), 0)  # a separator that waits for its document

    def add(self, items: Items) -> None:
        """Append items that `encode_block` made: no two separators in a row within them."""
        self.unknown += items.unknown
        self.words += items.words
        self.characters += items.characters
        self.blanks += items.blanks
        self.parts |= dict.fromkeys(items.parts)
        if not len(items.sizes_I):
            return
        data, sizes = items.data, items.sizes_I
        separators = items.separators
        itemsize = self.dtype.itemsize
        if sizes[0] == 1 and self._ends_separated:
            data, sizes, separators = data[itemsize:], sizes[1:], separators - 1
        if not len(sizes):
            return
        if self._held.separators:
            self.append(self._held.data, self._held.sizes_I, 1)
            self._held = Items(b"", np.empty(0, dtype=np.int32), 0)
        self._ends_separated = bool(sizes[-1] == 1)
        if self._ends_separated:
            self._held = Items(data[-itemsize:], sizes[-1:], 1)
            data, sizes, separators = data[:-itemsize], sizes[:-1], separators - 1
        self.append(data, sizes, separators)

    def append(self, data: bytes, sizes: npt.NDArray[np.int32], separators: int = 0) -> None:
        """Append items as they are; an item of size 1 is then an empty text."""
        self._data.write(data)
        self._sha.update(data)
        self._sizes.write(np.ascontiguousarray(sizes, dtype="<i4").tobytes())
        self.items += len(sizes)
        self.ids += len(data) // self.dtype.itemsize
        self.separators += separators

    def finish(self) -> dict[str, int | str]:
        """Write the index; counts for the manifest, and the sha256 of the ``.bin``."""
        self._data.close()
        self._sizes.close()
        index = Path(f"{self.prefix}.idx")
        with index.open("wb") as file:
            file.write(_HEADER.pack(_MAGIC, 1, _DTYPE_CODES[self.dtype.name], self.items))
            for block in self._size_blocks():
                file.write(block.tobytes())
            address = 0
            for block in self._size_blocks():
                ends = np.cumsum(block, dtype="<i8") * self.dtype.itemsize + address
                file.write((ends - block.astype("<i8") * self.dtype.itemsize).tobytes())
                address = int(ends[-1])
        self._sizes_path.unlink()
        return {
            "documents": self.separators + 1 if self.items else 0,
            "sentences": self.items - self.separators,
            "tokens": self.ids - self.items,
            "unknown": self.unknown,
            "bytes_bin": Path(f"{self.prefix}.bin").stat().st_size,
            "bytes_idx": index.stat().st_size,
            "sha256": self._sha.hexdigest(),
        }

    def _size_blocks(self) -> Iterator[npt.NDArray[np.int32]]:
        with self._sizes_path.open("rb") as file:
            while block := file.read(4 * _BLOCK_ITEMS):
                yield np.frombuffer(block, dtype="<i4")


@dataclass
class Encoder:
    """What a worker needs to encode parts of the spool.

    Attributes:
        spool: path of the text file.
        rows: whether its lines are rows of two sentences.
        valid_D: bool, the documents of the validation split; empty when there is none.
        word_start_V: bool, the ids that begin a word. blank: the id of sentencepiece's mark alone, -1 where there is
            none.
    """

    tokenizer: Tokenizer
    spool: str
    rows: bool
    valid_D: npt.NDArray[np.bool_]
    word_start_V: npt.NDArray[np.bool_]
    blank: int = -1


_encoder: Encoder


def set_encoder(encoder: Encoder) -> None:
    """Set up a worker."""
    global _encoder
    _encoder = encoder


def encode_task(task: tuple[int, int, int]) -> tuple[int, list[Items]]:
    """In a worker: bytes ``start..end`` of the spool, which begin in a document of this number, to items of
    each split.
    """
    start, end, document = task
    lines = read_bytes(_encoder.spool, start, end).decode("utf-8").split("\n")[:-1]
    return end - start, encode_block(_encoder, lines, document)


def encode_block(encoder: Encoder, lines: list[str], document: int) -> list[Items]:
    """Encode spool lines; blank ones become separators, sentences without a single piece vanish (a row with
    both sides).
    """
    if encoder.rows:
        lines = [side for line in lines for side in (line.split("\t") if line else ("", ""))]
    ids_N, lengths_I = encoder.tokenizer.encode_flat(lines)
    blank_I = np.fromiter((not line for line in lines), dtype=np.bool_, count=len(lines))
    empty_I = (lengths_I == 0) & ~blank_I
    if encoder.rows:
        empty_I = np.repeat(empty_I[0::2] | empty_I[1::2], 2)
        blank_I[1::2] = False  # a blank line gave two items; the second goes
        empty_I[1::2] |= blank_I[0::2]
    narrow_ids = narrow(ids_N, len(encoder.tokenizer))
    counts_V = np.bincount(ids_N, minlength=len(encoder.word_start_V))
    parts: tuple[str, ...] = ()
    if counts_V[UNK] > SAID * len(ids_N):
        unknown_I = np.unique(np.repeat(np.arange(len(lines)), lengths_I)[ids_N == UNK])
        parts = tuple(unknown_parts(encoder.tokenizer, (lines[i] for i in unknown_I.tolist())))
    if empty_I.any():
        narrow_ids = narrow_ids[np.repeat(~empty_I, lengths_I)]
        lengths_I, blank_I = lengths_I[~empty_I], blank_I[~empty_I]
    document_I = document + np.cumsum(blank_I)
    in_valid_I = encoder.valid_D[document_I] if len(encoder.valid_D) else np.zeros(len(blank_I), dtype=np.bool_)
    kept, held_out = (_items(narrow_ids, lengths_I, blank_I, wanted_I) for wanted_I in (~in_valid_I, in_valid_I))
    whole = replace(
        kept,
        parts=parts,
        words=int(counts_V[encoder.word_start_V].sum()),
        characters=sum(map(len, lines)),
        blanks=int(counts_V[encoder.blank]) if encoder.blank >= 0 else 0,
    )
    return [whole, replace(held_out, parts=parts)]


def _items(
    ids_N: npt.NDArray[Any],
    lengths_I: npt.NDArray[np.int64],
    blank_I: npt.NDArray[np.bool_],
    wanted_I: npt.NDArray[np.bool_],
) -> Items:
    """The wanted items with their ``</s>``; of separators in a row the last."""
    if not wanted_I.all():
        ids_N = ids_N[np.repeat(wanted_I, lengths_I)]
        lengths_I, blank_I = lengths_I[wanted_I], blank_I[wanted_I]
    if len(blank_I) > 1:
        doubled = np.append(blank_I[:-1] & blank_I[1:], False)
        lengths_I, blank_I = lengths_I[~doubled], blank_I[~doubled]
    return with_ends(ids_N, lengths_I, separators=int(blank_I.sum()))


def with_ends(ids_N: npt.NDArray[Any], lengths_I: npt.NDArray[np.int64], separators: int = 0) -> Items:
    """Items of ``lengths_I`` ids each (`narrow`ed), with their ``</s>``."""
    sizes = lengths_I + 1
    ends = np.cumsum(sizes)
    out = np.full(int(ends[-1]) if len(ends) else 0, EOS, dtype=ids_N.dtype)
    is_token = np.ones(len(out), dtype=np.bool_)
    is_token[ends - 1] = False
    out[is_token] = ids_N
    return Items(out.tobytes(), sizes.astype(np.int32), separators, unknown=int(np.count_nonzero(ids_N == UNK)))


def binarise(
    spool: Spool,
    tokenizer: Tokenizer,
    folder: Path,
    valid_D: npt.NDArray[np.bool_],
    rows: bool,
    workers: int,
    advance: Callable[[int], object],
) -> tuple[dict[str, dict[str, int | str]], TextCounts]:
    """Encode the spool into ``folder/train`` and, with a validation split, ``folder/valid``.

    Args:
        valid_D: bool, the documents of the validation split; empty for none.
        advance: told the bytes encoded.

    Returns:
        For each split what `IndexedWriter.finish` returned, and what was counted of the text.
    """
    names = SPLITS if len(valid_D) else SPLITS[:1]
    writers = {name: IndexedWriter(folder / name, len(tokenizer)) for name in names}
    blank = tokenizer.symbols.index(WORD_BOUNDARY) if WORD_BOUNDARY in tokenizer.symbols else -1
    encoder = Encoder(tokenizer, str(spool.text), rows, valid_D, word_starts(tokenizer.symbols), blank)
    bounds = [*spool.starts, (spool.size, spool.documents)]
    tasks = [(here[0], after[0], here[1]) for here, after in itertools.pairwise(bounds) if after[0] > here[0]]
    with WorkerPool(min(workers, max(1, len(tasks))), set_encoder, (encoder,)) as pool:
        for size, parts in pool.map(encode_task, tasks):
            for name, part in zip(names, parts):
                writers[name].add(part)
            advance(size)
    words, characters, blanks = (
        sum(getattr(writer, name) for writer in writers.values()) for name in ("words", "characters", "blanks")
    )
    unknown = dict.fromkeys(part for writer in writers.values() for part in writer.parts)
    return {name: writer.finish() for name, writer in writers.items()}, TextCounts(
        words, characters, blanks, tuple(unknown)
    )
