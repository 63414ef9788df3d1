"""Corpora of any size in fairseq's format, by simulated lengths: sentences of 24 tokens on average, log-normal.

Written in blocks, so that 100 million sentences (6.3 GB of files) need no memory to speak of.
"""

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

_HEADER = struct.Struct("<9sQBQ")  # as in hmtl_plugin/data/corpus.py
_UINT16 = 8
_BLOCK = 1 << 20
EOS, FIRST_WORD, WORDS = 2, 5, 16000


def write_corpus(prefix: Path, sentences: int, documents: int) -> None:
    """``prefix.idx`` and ``.bin`` of about so many sentences of random words, equally frequent.

    Args:
        documents: of geometric length; of two, one has 20 sentences and the other the rest.
    """
    rng = np.random.default_rng(0)
    few = np.array([sentences, 20][:documents])
    counts = few if documents <= 2 else rng.geometric(documents / sentences, documents)
    separators = np.cumsum(counts + 1) - 1
    items = int(separators[-1])  # none after the last document
    words = rng.integers(FIRST_WORD, WORDS, 1 << 24).astype(np.uint16)
    with open(f"{prefix}.idx", "wb") as index, open(f"{prefix}.bin", "wb") as text:
        index.write(_HEADER.pack(b"MMIDIDX\x00\x00", 1, _UINT16, items))
        for begin in range(0, items, _BLOCK):
            sizes = _sizes(rng, begin, min(begin + _BLOCK, items), separators)
            sizes.tofile(index)
            tokens = np.resize(words, int(sizes.sum()))
            tokens[np.cumsum(sizes) - 1] = EOS
            tokens.tofile(text)
    _write_pointers(Path(f"{prefix}.idx"), items)


def _sizes(rng: np.random.Generator, begin: int, end: int, separators: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Tokens of the items ``begin:end``, each with its ``</s>``."""
    draws = rng.standard_normal(end - begin, dtype=np.float32)
    sizes = np.clip(np.exp(3.0 + 0.65 * draws), 1, 2000).astype(np.int32) + 1
    low, high = np.searchsorted(separators, [begin, end])
    sizes[separators[low:high] - begin] = 1
    return sizes


def _write_pointers(path: Path, items: int) -> None:
    """Append where each item begins in the ``.bin``, in bytes."""
    sizes = np.memmap(path, dtype=np.uint8, mode="r")[_HEADER.size :].view("<i4")
    before = 0
    with path.open("ab") as index:
        for begin in range(0, items, _BLOCK):
            ends = np.cumsum(sizes[begin : begin + _BLOCK], dtype=np.int64) + before
            starts = np.append(before, ends[:-1])
            (starts * np.dtype(np.uint16).itemsize).tofile(index)
            before = int(ends[-1])
