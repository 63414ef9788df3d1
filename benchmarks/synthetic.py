"""Corpora in fairseq's format, made up: what costs time in a loader is lengths and counts, not what words mean."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hmtl_plugin.corruption.vocabulary import MASK, WORD_BOUNDARY, Vocabulary
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.dataset import PretrainingDataset
from hmtl_plugin.data.pairing import PairingConfig
from hmtl_plugin.data.splits import training_view
from hmtl_plugin.objectives.base import build_objectives
from hmtl_plugin.preparation.binarise import IndexedWriter
from hmtl_plugin.special_tokens import EOS

MEAN_DOCUMENT = 20  # sentences
_FIRST_WORD = 4  # <s> <pad> </s> <unk> come before; <mask> is a word to the corpus, as rare as any
_BLOCK, _DRAWN = 1 << 20, 1 << 24


def make_dictionary(size: int, whole_words: bool = False) -> Any:
    """A fairseq dictionary of sentencepiece-like symbols: two of three begin a word, one of ten is punctuation; or all
    are words.
    """
    from fairseq.data import Dictionary

    dictionary = Dictionary()
    dictionary.add_symbol(MASK)
    for number in range(size - len(dictionary)):
        piece = f"{number:x}".translate(str.maketrans("0123456789", "ghijklmnop"))
        begins, punctuated = whole_words or number % 3 != 2, number % 10 == 0 and not whole_words
        dictionary.add_symbol(f"{WORD_BOUNDARY * begins}{piece}{',' * punctuated}")
    return dictionary


def write_data(folder: Path, vocabulary: int, sentences: int, splits: Sequence[str] = ("train",)) -> Any:
    """Binarised data for ``fairseq-train``; returns their dictionary."""
    dictionary = make_dictionary(vocabulary)
    dictionary.save(str(folder / "dict.txt"))
    for seed, split in enumerate(splits, 1):
        write_corpus(folder / split, len(dictionary), sentences, sentences // MEAN_DOCUMENT, seed=seed)
    return dictionary


def write_corpus(prefix: Path, vocabulary: int, sentences: int, documents: int, seed: int = 1) -> None:
    """``prefix.bin`` and ``.idx`` of about so many sentences of 24 tokens on average, log-normal.

    Written in blocks, so that 100 million sentences (6.3 GB of files) need no memory to speak of. Words are as frequent
    as Zipf's law has it, and come again after the first 17 million.

    Args:
        vocabulary: ids in the dictionary.
        documents: of geometric length; of two, one has 20 sentences and the other the rest.
    """
    rng = np.random.default_rng(seed)
    few = np.array([sentences, MEAN_DOCUMENT][:documents])
    counts = few if documents <= 2 else rng.geometric(documents / sentences, documents)
    separators = np.cumsum(counts + 1) - 1
    items = int(separators[-1])  # none after the last document
    weights = 1 / np.arange(1, vocabulary - _FIRST_WORD)
    drawn = rng.choice(len(weights), min(_DRAWN, 32 * items), p=weights / weights.sum())
    words = (_FIRST_WORD + 1 + drawn).astype(np.uint16)
    writer = IndexedWriter(prefix, vocabulary)
    for begin in range(0, items, _BLOCK):
        sizes = _sizes(rng, begin, min(begin + _BLOCK, items), separators)
        tokens = np.resize(words, int(sizes.sum()))
        tokens[np.cumsum(sizes) - 1] = EOS
        writer.append(tokens.tobytes(), sizes)
    writer.finish()


def _sizes(rng: np.random.Generator, begin: int, end: int, separators: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Tokens of the items ``begin:end``, each with its ``</s>``."""
    draws = rng.standard_normal(end - begin, dtype=np.float32)
    sizes = np.clip(np.exp(3.0 + 0.65 * draws), 1, 2000).astype(np.int32) + 1
    low, high = np.searchsorted(separators, [begin, end])
    sizes[separators[low:high] - begin] = 1
    return sizes


def open_data(
    prefix: Path, vocabulary: Vocabulary, objectives: Sequence[str], length: int, kind: str = "nsp"
) -> PretrainingDataset:
    """Samples of these objectives, as training has them."""
    view = training_view(build_objectives(objectives), kind)
    pairing = PairingConfig(kind, tokens_per_sample=length)
    return PretrainingDataset(Corpus(str(prefix)), vocabulary, [view], pairing)
