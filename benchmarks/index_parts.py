"""Measurements of `index.py` that need a process of their own: what one allocates or warms, another would be spared.

python benchmarks/index_parts.py NAME ARGUMENT...
"""

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

PEER_SENTENCES = 100_000
LENGTH = 128
MAX_TOKENS = 8192
_SECONDS = 3.0  # of collating, twice as long as of epochs


def measured(name: str, *arguments: object) -> Any:
    """What the function of that name gives, in a fresh process."""
    command = [sys.executable, __file__, name, *map(str, arguments)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def pairs(prefix: str, kind: str, length: str, repeats: str, threads: str) -> dict[str, Any]:
    """Build the index so many times, an epoch each: speeds and peak memory."""
    from hmtl_plugin.data.corpus import Corpus
    from hmtl_plugin.data.pairing import PairingConfig, build_pairs

    corpus = Corpus(prefix)
    sentences = int((corpus.document_end - corpus.document_start).sum()) + 0 * int(
        corpus.sizes.sum()
    )  # touches the map
    config = PairingConfig(kind, int(length))
    before, speeds, samples = peak_bytes(), [], 0
    for epoch in range(1, int(repeats) + 1):
        begin = time.perf_counter()
        samples = len(build_pairs(corpus.sizes, corpus.documents, config, 1, epoch, threads=int(threads) or None))
        speeds.append(sentences / (time.perf_counter() - begin))
    return {"samples": samples, "speeds": speeds, "bytes_per_sentence": (peak_bytes() - before) / sentences}


def growth(threads: str, repeats: str, *prefixes: str) -> list[dict[str, list[float]]]:
    """Of each corpus, in turns: tokens a second of all that an epoch needs before its first batch, and of the collater on random batches."""
    corpora = [_dataset(prefix, int(threads)) for prefix in prefixes]
    found = [defaultdict[str, list[float]](list) for _ in corpora]
    for repeat in range(1, int(repeats) + 1):
        for data, rates in zip(corpora, found, strict=True):
            for what, rate in _epoch_rates(data, repeat).items():
                rates[what].append(rate)
    return list(map(dict, found))


def _dataset(prefix: str, threads: int) -> Any:
    """Three objectives on the corpus."""
    from fairseq.data import Dictionary

    from hmtl_plugin.corruption.vocabulary import MASK, Vocabulary
    from hmtl_plugin.data.corpus import Corpus
    from hmtl_plugin.data.dataset import PretrainingDataset, SampleSpec
    from hmtl_plugin.data.pairing import PairingConfig
    from hmtl_plugin.objectives.base import build_objectives

    dictionary = Dictionary()
    for symbol in (MASK, *(f"\u2581w{number}" for number in range(16000))):
        dictionary.add_symbol(symbol)
    objectives = tuple(build_objectives(("bigram_shift", "nsp", "mlm")).values())
    view = SampleSpec("train", "nsp", objectives, tuple(name for each in objectives for name in each.target_names))
    corpus, vocabulary = Corpus(prefix), Vocabulary.from_dictionary(dictionary)
    pairing = PairingConfig(tokens_per_sample=LENGTH)
    data = PretrainingDataset(corpus, vocabulary, [view], pairing, threads=threads or None)
    _prepare(data, 1)  # reads the files and starts threads
    return data


def _prepare(data: Any, epoch: int) -> list[np.ndarray]:
    """Batches of an epoch."""
    data.set_epoch(epoch)
    batches: list[np.ndarray] = data.batch_by_size(
        data.ordered_indices(), max_tokens=MAX_TOKENS, required_batch_size_multiple=8
    )
    return batches


def _epoch_rates(data: Any, repeat: int) -> dict[str, float]:
    """Tokens a second, one number a kind of work."""
    from fairseq.data.data_utils import numpy_seed

    rates: list[float] = []
    end = time.perf_counter() + _SECONDS / 2
    while time.perf_counter() < end or not rates:
        begin = time.perf_counter()
        batches = _prepare(data, 1000 * repeat + len(rates))
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


def _touch(data: Any) -> None:
    """Map every page once: a training does so in its first minutes."""
    corpus, index = data.corpus, data._indices[0]
    for array in (corpus.tokens, corpus.sizes, *index.arrays.values()):
        array.view(np.uint8)[::4096].max()
    corpus.token_start(np.arange(0, len(corpus), 512))


def _collating(data: Any, batches: list[np.ndarray]) -> float:
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
    rng, rates = np.random.default_rng(1), list[float]()
    for _ in range(50):
        places = rng.integers(0, len(tokens), 1 << 14)
        begin = time.perf_counter()
        tokens.take(places)
        rates.append(len(places) / (time.perf_counter() - begin))
    return float(np.median(rates))


def peer(length: str) -> dict[str, float]:
    """Sentences a second of fairseq's BlockPairDataset."""
    from fairseq.data.legacy.block_pair_dataset import BlockPairDataset

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
    begin = time.perf_counter()
    BlockPairDataset(Items(), dictionary, sizes, block_size=int(length), break_mode="doc")
    return {"sentences_per_second": int(counts.sum()) / (time.perf_counter() - begin)}


def peak_bytes() -> int:
    """Highest resident size of this process so far (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


if __name__ == "__main__":
    functions: dict[str, Callable[..., Any]] = {"pairs": pairs, "growth": growth, "peer": peer}
    print(json.dumps(functions[sys.argv[1]](*sys.argv[2:])))
