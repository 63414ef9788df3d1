"""Small corpora for the tests of this folder."""

from pathlib import Path

import numpy as np
import torch
from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder

EOS = 2
Documents = tuple[np.ndarray, np.ndarray]


def write(folder: Path, items: list[list[int]], dtype: type = np.uint16) -> str:
    """Write items, each given without its ``</s>``, with fairseq's own builder; returns the prefix."""
    prefix = str(folder / "train")
    builder = MMapIndexedDatasetBuilder(prefix + ".bin", dtype=dtype)
    for item in items:
        builder.add_item(torch.tensor([*item, EOS]))
    builder.finalize(prefix + ".idx")
    return prefix


def corpus_of(documents: list[list[int]]) -> tuple[np.ndarray, Documents]:
    """Sizes and documents of sentences with these numbers of tokens, separators between documents."""
    sizes: list[int] = []
    start, end = [], []
    for document in documents:
        start.append(len(sizes))
        sizes += [tokens + 1 for tokens in document]
        end.append(len(sizes))
        sizes.append(1)
    return np.array(sizes, dtype=np.int32), (np.array(start), np.array(end))


def random_documents(rng: np.random.Generator, count: int, sentences: int, tokens: float) -> list[list[int]]:
    """Token counts of up to ``sentences`` sentences in each of ``count`` documents, log-normal around
    ``tokens``.
    """
    return [
        np.maximum(rng.lognormal(np.log(tokens), 0.7, 1 + rng.integers(sentences)).astype(int), 1).tolist()
        for _ in range(count)
    ]
