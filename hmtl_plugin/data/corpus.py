"""A binarised split as memory-mapped arrays: sentences, their tokens, and where documents begin and end.

The files are fairseq's ``mmap`` format as ``fairseq-preprocess --only-source`` writes it: one sentence an
item, each ending in ``</s>``; an item that holds nothing but ``</s>`` stands between documents. Nothing is
copied: memory holds 16 bytes a document, and the operating system shares the mapped pages between workers and
ranks.

fairseq's own reader is not used: it reads both files from end to end before the first use, and meets a
truncated file with a bare assertion or not at all.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hmtl_plugin.errors import UserError

Int64Array = npt.NDArray[np.int64]

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQ")  # magic, version, dtype code, number of items; 26 bytes, so what follows is unaligned
# fairseq.data.indexed_dataset numbers dtypes like this; 6 and 7 are floats, which hold no token ids
_DTYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2", 9: "<u4", 10: "<u8"}
_CHUNK = 1 << 20
_CHECKED_ITEMS = 8
_AGAIN = "copy the file again or binarise the text again"


class Corpus:
    """One split of a data folder.

    Args:
        prefix: path without ``.idx`` and ``.bin``.
        eos: id of ``</s>``.

    Attributes:
        sizes: (items,) int32, tokens of each item including its ``</s>``; a view of the ``.idx`` (not
            aligned: gather through `lengths`).
        tokens: (tokens in all,) the ``.bin`` as one flat array of the file's own dtype.
        document_start, document_end: (documents,) int64, document d is the items ``start[d]:end[d]``. Empty
            documents are left out.
        token_count: tokens in all, ``</s>`` not counted.

    Raises:
        UserError: a file is missing, truncated, of another format, or holds no sentence.
    """

    def __init__(self, prefix: str, eos: int = 2) -> None:
        self.prefix, self.eos = str(prefix), eos
        self._index_path, self._data_path = f"{self.prefix}.idx", f"{self.prefix}.bin"
        dtype, items = self._read_header()
        index = _map(self._index_path)
        self.sizes: npt.NDArray[np.int32] = index[_HEADER.size :][: 4 * items].view("<i4")
        pointers = index[_HEADER.size + 4 * items :]
        # numpy copies all of an unaligned array before it takes elements; opaque items know no alignment
        self._opaque_sizes, self._opaque_pointers = self.sizes.view("V4"), pointers.view("V8")
        self._pointers: Int64Array = pointers.view("<i8")
        self._item_bytes = dtype.itemsize
        self.tokens = self._map_tokens(dtype)
        self.document_start, self.document_end, total = self._scan()
        self.token_count = total - items
        self._check_eos()

    def __len__(self) -> int:
        """Number of items, those that separate documents included."""
        return len(self.sizes)

    def __getstate__(self) -> tuple[str, int]:
        return self.prefix, self.eos  # a worker maps the files anew

    def __setstate__(self, state: tuple[str, int]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    @property
    def fingerprint(self) -> tuple[object, ...]:
        """Which files these are, by path, size and time: cheap, and another for any file that was written anew."""
        found = [os.stat(path) for path in (self._index_path, self._data_path)]
        return os.path.realpath(self.prefix), self.eos, *((each.st_size, each.st_mtime_ns) for each in found)

    @property
    def documents(self) -> tuple[Int64Array, Int64Array]:
        """(start, end) of each document as item numbers."""
        return self.document_start, self.document_end

    def lengths(self, items: npt.NDArray[np.integer]) -> Int64Array:
        """Tokens of each of the given items, without ``</s>``."""
        return gather_sizes(self.sizes, items) - np.int64(1)

    def token_start(self, items: npt.NDArray[np.integer]) -> Int64Array:
        """Where each of the given items begins in `tokens`."""
        return self._opaque_pointers.take(items).view(np.int64) // self._item_bytes

    def gather(
        self, starts: npt.NDArray[np.integer], counts: npt.NDArray[np.integer]
    ) -> tuple[Int64Array, npt.NDArray[np.bool_]]:
        """Tokens of ranges of sentences, without their ``</s>``, one after the other.

        Args:
            starts, counts: (R,) range r is the items ``starts[r]:starts[r] + counts[r]``.

        Returns:
            (N,) int64 tokens and (N,) bool, true at the first token of each sentence.
        """
        items = expand_ranges(starts, counts)
        lengths = self.lengths(items)
        tokens = self.tokens.take(expand_ranges(self.token_start(items), lengths)).astype(np.int64)
        sentence_start = np.zeros(len(tokens), dtype=bool)
        sentence_start[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
        return tokens, sentence_start

    def check_vocabulary(self, size: int) -> None:
        """Raise `UserError` if any token id is not below ``size``; reads the whole ``.bin`` once, in
        chunks.
        """
        for begin in range(0, len(self.tokens), _CHUNK):
            self.check_ids(self.tokens[begin : begin + _CHUNK], size)

    def check_ids(self, ids: npt.NDArray[np.integer], size: int) -> None:
        """Raise `UserError` if any of some tokens of the corpus is not below ``size``."""
        low, high = int(ids.min(initial=0)), int(ids.max(initial=0))
        if low < 0 or high >= size:
            wrong = high if high >= size else low
            raise UserError(
                f"{self._data_path}: token id {wrong} is outside the dictionary of {size} symbols; "
                "use the dict.txt that the data was binarised with, or binarise the text again"
            )

    def _read_header(self) -> tuple[np.dtype, int]:
        for path in (self._index_path, self._data_path):
            if not Path(path).is_file():
                raise UserError(f"{path}: no such file; give a folder that scripts/prepare_corpus.py wrote")
        with open(self._index_path, "rb") as stream:
            header = stream.read(_HEADER.size)
        found = Path(self._index_path).stat().st_size
        if not header.startswith(_MAGIC):
            raise UserError(
                f"{self._index_path}: not an index in fairseq's mmap format; "
                "binarise with --dataset-impl mmap (the default)"
            )
        if len(header) < _HEADER.size:
            raise UserError(f"{self._index_path}: truncated, expected {_HEADER.size} bytes at least, found {found}")
        _, version, code, items = _HEADER.unpack(header)
        if version != 1 or code not in _DTYPES:
            raise UserError(f"{self._index_path}: unknown version {version} or token type {code}; binarise again")
        expected = _HEADER.size + 12 * items
        if found != expected:
            raise UserError(
                f"{self._index_path}: truncated or damaged, expected {expected} bytes, found {found}; {_AGAIN}"
            )
        if items == 0:
            raise UserError(f"{self._index_path}: the corpus is empty; binarise a text that holds sentences")
        return np.dtype(_DTYPES[code]), items

    def _map_tokens(self, dtype: np.dtype) -> npt.NDArray[np.integer]:
        last = int(self._pointers[-1]) + int(self.sizes[-1]) * dtype.itemsize
        found = Path(self._data_path).stat().st_size
        if found != last:
            raise UserError(
                f"{self._data_path}: truncated or not of this .idx, expected {last} bytes, found {found}; {_AGAIN}"
            )
        return _map(self._data_path).view(dtype)

    def _scan(self) -> tuple[Int64Array, Int64Array, int]:
        """Documents and the sum of sizes, in one pass over sizes and offsets, which must say the same: what is read by
        either of two that differ is other text.
        """
        separators, total = [], 0
        for begin, last in blocks(0, len(self), _CHUNK):
            sizes, offsets = np.array(self.sizes[begin:last]), np.array(self._pointers[begin:last])
            if sizes.min() < 1:
                item = begin + int(sizes.argmin())
                raise UserError(
                    f"{self._index_path}: item {item} has size {sizes.min()}, but every item ends in </s>; "
                    "binarise with fairseq-preprocess --only-source or scripts/prepare_corpus.py"
                )
            ends = np.cumsum(sizes, dtype=np.int64)
            wrong = offsets != (ends - sizes + total) * self._item_bytes
            if wrong.any():
                item = begin + int(wrong.argmax())
                raise UserError(f"{self._index_path}: sizes and offsets disagree at item {item}; {_AGAIN}")
            total += int(ends[-1])
            separators.append(np.flatnonzero(sizes == 1) + begin)
        cuts = np.concatenate(separators)
        start, end = np.append(0, cuts + 1), np.append(cuts, len(self))
        kept = np.flatnonzero(end > start)  # neighbouring separators enclose nothing
        if len(kept) == 0:
            raise UserError(
                f"{self._index_path}: the corpus holds no sentence, only document separators; binarise a text"
            )
        return start[kept], end[kept], total

    def _check_eos(self) -> None:
        """Look at the first and last few items and some between; all of them would mean reading the whole
        file.
        """
        count = len(self)
        items = np.unique(np.linspace(0, count - 1, min(count, 4 * _CHECKED_ITEMS)).astype(np.int64))
        items = np.union1d(items, np.r_[0 : min(count, _CHECKED_ITEMS), max(0, count - _CHECKED_ITEMS) : count])
        last = self.token_start(items) + self.lengths(items)
        wrong = items[self.tokens.take(last) != self.eos]
        if len(wrong):
            raise UserError(
                f"{self._data_path}: item {wrong[0]} does not end in </s> (id {self.eos}); "
                "binarise with --append-eos (fairseq-preprocess does) and this dictionary"
            )


def gather_sizes(sizes: npt.NDArray[np.int32], items: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
    """``sizes[items]`` for int32 sizes of any alignment, without a copy of the whole array."""
    return sizes.view("V4").take(items).view(np.int32)


def expand_ranges(starts: npt.NDArray[np.integer], counts: npt.NDArray[np.integer]) -> Int64Array:
    """The numbers ``starts[r], ..., starts[r] + counts[r] - 1`` of every range r, one range after the
    other.
    """
    counts = counts.astype(np.int64)
    ends = np.cumsum(counts)
    return np.repeat(starts - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)


def blocks(first: int, last: int, size: int) -> Iterator[tuple[int, int]]:
    """Neighbouring half-open intervals of ``size`` numbers that cover ``first:last``."""
    for begin in range(first, last, size):
        yield begin, min(begin + size, last)


def _map(path: str) -> npt.NDArray[np.uint8]:
    """The file's bytes, read-only; a plain array over the map, for subclass arrays are slower to index."""
    return np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
