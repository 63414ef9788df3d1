"""A corpus in fairseq's format, made up: what costs time in a loader is lengths and counts, not what words mean."""

from pathlib import Path
from typing import Any

import numpy as np

from hmtl_plugin.corruption.vocabulary import MASK, WORD_BOUNDARY

MEAN_DOCUMENT = 20
_FIRST_WORD = 4  # <s> <pad> </s> <unk> come before; <mask> is a word to the corpus, as rare as any


def write_corpus(folder: Path, dictionary_size: int, sentences: int, rng: np.random.Generator) -> str:
    """Zipf-distributed ids in sentences of 24 tokens on average, in documents of geometric length; returns the prefix."""
    from fairseq.data.indexed_dataset import MMapIndexedDataset

    lengths = np.clip(rng.lognormal(3.0, 0.65, sentences), 1, 400).astype(np.int64)
    sizes = lengths + 1
    sizes[rng.random(sentences) < 1 / (MEAN_DOCUMENT + 1)] = 1  # document separators
    ranks = np.arange(1, dictionary_size - _FIRST_WORD)
    tokens = rng.choice(ranks + _FIRST_WORD, size=int(sizes.sum()), p=(1 / ranks) / (1 / ranks).sum()).astype(np.uint16)
    tokens[np.cumsum(sizes) - 1] = 2
    tokens.tofile(folder / "train.bin")
    with MMapIndexedDataset.Index.writer(str(folder / "train.idx"), np.uint16) as index:
        index.write(sizes.astype(np.int32))
    return str(folder / "train")


def make_dictionary(size: int) -> Any:
    """A fairseq dictionary of sentencepiece-like symbols: two of three begin a word, one of ten is punctuation."""
    from fairseq.data import Dictionary

    dictionary = Dictionary()
    dictionary.add_symbol(MASK)
    for number in range(size - len(dictionary)):
        piece = f"{number:x}".translate(str.maketrans("0123456789", "ghijklmnop"))
        dictionary.add_symbol(("" if number % 3 == 2 else WORD_BOUNDARY) + piece + ("," if number % 10 == 0 else ""))
    return dictionary
