"""Measurements of `index.py`, for processes of their own: what one allocates or warms, another would be spared."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from fairseq.data.data_utils import numpy_seed
from fairseq.data.legacy.block_pair_dataset import BlockPairDataset
from machine import memory
from synthetic import make_dictionary, open_data
from turns import interleaved, seconds_of

from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.dataset import PretrainingDataset
from hmtl_plugin.data.pairing import PairingConfig, build_pairs

PEER_SENTENCES = 100_000
VOCABULARY, LENGTH = 16_000, 128
MAX_TOKENS = 8192
_SECONDS = 3.0  # of collating, twice as long as of epochs
Rates = dict[str, float]


def pairs(prefix: Path, kind: str, length: int, repeats: int) -> dict[str, Any]:
    """Build the index so many times, an epoch each: speeds and peak memory."""
    corpus = Corpus(str(prefix))
    corpus.sizes.sum()  # touches the map
    sentences = int((corpus.document_end - corpus.document_start).sum())
    config = PairingConfig(kind, length)
    before, speeds, samples = memory("VmHWM"), [], 0
    for epoch in range(1, repeats + 1):
        begin = time.perf_counter()
        samples = len(build_pairs(corpus.sizes, corpus.documents, config, 1, epoch))
        speeds.append(sentences / (time.perf_counter() - begin))
    return {"samples": samples, "speeds": speeds, "bytes_per_sentence": (memory("VmHWM") - before) / sentences}


def peer(length: int) -> float:
    """Sentences a second of fairseq's BlockPairDataset."""
    rng = np.random.default_rng(0)
    counts = rng.geometric(1 / 20, PEER_SENTENCES // 20)
    ends = np.cumsum(counts + 1) - 1
    sizes = np.clip(rng.lognormal(3.0, 0.65, int(ends[-1]) + 1), 1, 2000).astype(np.int32) + 1
    sizes[ends] = 1

    class Items:
        """What BlockPairDataset asks of a data set."""

        def __init__(self) -> None:
            self.sizes = sizes

        def __len__(self) -> int:
            return len(sizes)

    dictionary = SimpleNamespace(pad=lambda: 1, eos=lambda: 2, cls=lambda: 0, mask=lambda: 4, sep=lambda: 2)
    make = partial(BlockPairDataset, Items(), dictionary, sizes, block_size=length, break_mode="doc")
    return int(counts.sum()) / seconds_of(make)


def growth(repeats: int, prefixes: Sequence[Path]) -> list[list[Rates]]:
    """Of each corpus, in turns: tokens a second of all that an epoch needs before its first batch, and of the collater on
    random batches; a repeat each.
    """
    vocabulary = Vocabulary.from_dictionary(make_dictionary(VOCABULARY, whole_words=True))
    runs = {}
    for prefix in prefixes:
        data = open_data(prefix, vocabulary, ("bigram_shift", "nsp", "mlm"), LENGTH)
        _prepare(data, 1)  # reads the files and starts threads
        runs[str(prefix)] = partial(_rates, data, count(2))
    return [*interleaved(runs, repeats).values()]


def _prepare(data: PretrainingDataset, epoch: int) -> list[np.ndarray]:
    """Batches of an epoch."""
    data.set_epoch(epoch)
    order = data.ordered_indices()
    batches: list[np.ndarray] = data.batch_by_size(order, max_tokens=MAX_TOKENS, required_batch_size_multiple=8)
    return batches


def _rates(data: PretrainingDataset, epochs: Iterator[int]) -> Rates:
    """Tokens a second, one number a kind of work."""
    rates: list[float] = []
    end = time.perf_counter() + _SECONDS / 2
    while time.perf_counter() < end or not rates:
        begin = time.perf_counter()
        batches = _prepare(data, next(epochs))
        seconds = time.perf_counter() - begin
        rates.append(float(data.sizes.sum(dtype=np.int64)) / seconds)
    rate = float(np.median(rates))
    with numpy_seed(1):
        np.random.shuffle(batches)  # noqa: NPY002  as fairseq does
    _touch(data)
    collating = _collating(data, batches)
    return {
        "samples, order and batches of an epoch": rate,
        "corruption and collation": collating,
        "both, as a whole epoch takes": 1 / (1 / rate + 1 / collating),
        "words read at random and nothing else": _reading(data.corpus.tokens),
    }


def _touch(data: PretrainingDataset) -> None:
    """Map every page once: a training does so in its first minutes."""
    corpus, index = data.corpus, data._indices[0]
    for array in (corpus.tokens, corpus.sizes, *index.arrays.values()):
        array.view(np.uint8)[::4096].max()
    corpus.token_start(np.arange(0, len(corpus), 512))


def _collating(data: PretrainingDataset, batches: list[np.ndarray]) -> float:
    """Tokens a second, the median over batches."""
    rates: list[float] = []
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end or len(rates) < 5:
        chosen = batches[len(rates) % len(batches)].tolist()
        begin = time.perf_counter()
        rates.append(data.collater(chosen)["ntokens"] / (time.perf_counter() - begin))
    return float(np.median(rates))


def _reading(tokens: np.ndarray) -> float:
    """Tokens a second, the median over batches: what the machine's memory allows."""
    rng = np.random.default_rng(1)
    drawn = (rng.integers(0, len(tokens), 1 << 14) for _ in range(50))
    return float(np.median([len(places) / seconds_of(partial(tokens.take, places)) for places in drawn]))
