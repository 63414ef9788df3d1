"""Flat batches of random words over a small sentencepiece-like vocabulary."""

from types import SimpleNamespace

import numpy as np
from fairseq.data import Dictionary

from hmtl_plugin.corruption.batch import FlatBatch
from hmtl_plugin.corruption.corrupt import corrupt_batch
from hmtl_plugin.corruption.random import BatchRandom
from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.objectives.base import build_objectives


def make_dictionary(words: int = 60, endings: int = 20, marked: bool = True) -> Dictionary:
    """``<mask>``, word starts, word continuations (some with punctuation), a lone comma."""
    dictionary = Dictionary()
    dictionary.add_symbol("<mask>")
    for i in range(words):
        dictionary.add_symbol(("▁" if marked else "") + "w" + chr(97 + i % 26) + chr(97 + i // 26))
    for i in range(endings):
        dictionary.add_symbol("e" + chr(97 + i))
    dictionary.add_symbol(",")
    return dictionary


def make_batch(
    rng: np.random.Generator, vocabulary: Vocabulary, samples: int, length: int = 40, pairs: bool = True
) -> FlatBatch:
    """Samples ``<s> A </s> [B </s>]`` of random pieces cut into sentences of 3 to 12 tokens."""
    rows, starts = [], []
    for _ in range(samples):
        tokens, flags = [vocabulary.bos], [False]
        for _ in range(1 + pairs):
            body = int(rng.integers(4, length // 2))
            pieces = rng.choice(vocabulary.replacements, body)
            pieces[rng.random(body) < 0.02] = vocabulary.unk
            begins = np.zeros(body, dtype=bool)
            begins[np.cumsum(rng.integers(3, 12, body))[: body // 3] % body] = True
            begins[0] = True
            tokens += [*pieces.tolist(), vocabulary.eos]
            flags += [*begins.tolist(), False]
        rows.append(tokens)
        starts.append(flags)
    return FlatBatch(
        tokens_N=np.array([t for row in rows for t in row]),
        offsets=np.cumsum([0, *map(len, rows)]),
        index_B=rng.permutation(10**6)[:samples],
        sentence_start_N=np.array([f for row in starts for f in row]),
        vocabulary=vocabulary,
    )


def corrupt(batch: FlatBatch, names: tuple[str, ...], seed: int = 1, epoch: int = 1, **options: object) -> FlatBatch:
    """Apply the named objectives in their order."""
    random = BatchRandom(seed, epoch, batch.index_B, batch.sample_N, batch.position_N)
    corrupt_batch(build_objectives(names, SimpleNamespace(**options)).values(), batch, random)
    return batch
