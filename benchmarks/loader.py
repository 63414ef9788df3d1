"""Speed of the loader: from the memory-mapped corpus to the trainer's batch, one process.

Ours: pairs gathered, bigram shift, masks, labels, collation (all three objectives). Peer: fairseq's
MaskTokensDataset (masks only) over blocks of the same corpus, collated with its own functions. Both read the
same synthetic corpus, in this run.

    python benchmarks/loader.py [--length 128] [--batch 128] [--seconds 3]
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hmtl_plugin.corruption.vocabulary import MASK, WORD_BOUNDARY, Vocabulary
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.dataset import PretrainingDataset, View
from hmtl_plugin.data.pair_index import PairingConfig
from hmtl_plugin.objectives.base import ObjectiveOptions, build_objectives

VOCABULARY = 16000
SENTENCES = 200_000
MEAN_DOCUMENT = 20


def write_corpus(folder: Path, dictionary_size: int, rng: np.random.Generator) -> str:
    """A corpus of Zipf-distributed ids in fairseq's mmap format; returns its prefix."""
    from fairseq.data.indexed_dataset import MMapIndexedDataset

    lengths = np.clip(rng.lognormal(3.0, 0.65, SENTENCES), 1, 400).astype(np.int64)
    sizes = lengths + 1
    sizes[rng.random(SENTENCES) < 1 / (MEAN_DOCUMENT + 1)] = 1  # document separators
    ranks = np.arange(1, dictionary_size - 4)
    tokens = rng.choice(ranks + 4, size=int(sizes.sum()), p=(1 / ranks) / (1 / ranks).sum()).astype(np.uint16)
    tokens[np.cumsum(sizes) - 1] = 2
    tokens.tofile(folder / "train.bin")
    with MMapIndexedDataset.Index.writer(str(folder / "train.idx"), np.uint16) as index:
        index.write(sizes.astype(np.int32))
    return str(folder / "train")


def make_dictionary(size: int):  # type: ignore[no-untyped-def]
    """Sentencepiece-like symbols: two of three begin a word, one of ten is punctuation."""
    from fairseq.data import Dictionary

    dictionary = Dictionary()
    dictionary.add_symbol(MASK)
    for number in range(size - len(dictionary)):
        piece = f"{number:x}".translate(str.maketrans("0123456789", "ghijklmnop"))
        dictionary.add_symbol(("" if number % 3 == 2 else WORD_BOUNDARY) + piece + ("," if number % 10 == 0 else ""))
    return dictionary


def rate(batches: Callable[[int], int], seconds: float) -> float:
    """Tokens a second, the median over batches; ``batches(i)`` makes the i-th one and returns its tokens."""
    batches(0)
    rates: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rates) < 5:
        begin = time.perf_counter()
        tokens = batches(len(rates) + 1)
        rates.append(tokens / (time.perf_counter() - begin))
    return float(np.median(rates))


def ours(prefix: str, vocabulary: Vocabulary, names: tuple[str, ...], args: argparse.Namespace) -> float:
    """Tokens a second of `PretrainingDataset` with these objectives."""
    objectives = tuple(build_objectives(names, ObjectiveOptions()).values())
    targets = tuple(target for objective in objectives for target in objective.target_names)
    view = View("train", "nsp", objectives, targets)
    dataset = PretrainingDataset(Corpus(prefix), vocabulary, [view], PairingConfig(tokens_per_sample=args.length))
    dataset.set_epoch(1)
    order = dataset.ordered_indices()
    order = order[dataset.sizes[order] == args.length]  # as for the peer: full samples
    chosen: npt.NDArray[np.int64] = np.random.default_rng(0).permutation(order)

    def batch(number: int) -> int:
        first = number * args.batch % (len(chosen) - args.batch)
        return int(dataset.collater(chosen[first : first + args.batch].tolist())["ntokens"])

    return rate(batch, args.seconds)


def peer(prefix: str, dictionary, args: argparse.Namespace) -> float:  # type: ignore[no-untyped-def]
    """Tokens a second of fairseq's MaskTokensDataset: source and target, right-padded."""
    from fairseq.data import MaskTokensDataset, RightPadDataset, TokenBlockDataset
    from fairseq.data.indexed_dataset import MMapIndexedDataset

    items = MMapIndexedDataset(prefix)
    stream = TokenBlockDataset(
        items, items.sizes, args.length, pad=dictionary.pad(), eos=dictionary.eos(), break_mode="none"
    )
    source, target = MaskTokensDataset.apply_mask(
        stream, dictionary, pad_idx=dictionary.pad(), mask_idx=dictionary.index(MASK), seed=1
    )
    pads = [RightPadDataset(data, pad_idx=dictionary.pad()) for data in (source, target)]
    chosen = np.random.default_rng(0).permutation(len(stream))

    def batch(number: int) -> int:
        first = number * args.batch % (len(chosen) - args.batch)
        rows = chosen[first : first + args.batch].tolist()
        tokens, _ = (
            pad.collater([data[row] for row in rows]) for pad, data in zip(pads, (source, target), strict=True)
        )
        return int(tokens.numel())

    return rate(batch, args.seconds)


def main() -> None:
    """Measure and print one line a row, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each row")
    args = parser.parse_args()
    dictionary = make_dictionary(VOCABULARY)
    with tempfile.TemporaryDirectory() as folder:
        prefix = write_corpus(Path(folder), len(dictionary), np.random.default_rng(0))
        vocabulary = Vocabulary.from_dictionary(dictionary)
        rows = {
            "+".join(names) or "pairs only": ours(prefix, vocabulary, names, args)
            for names in ((), ("mlm",), ("mlm", "nsp"), ("bigram_shift", "nsp", "mlm"))
        }
        theirs = peer(prefix, dictionary, args)
    for name, value in rows.items():
        print(f"{name:24s} {value / 1e6:8.2f} M tokens/s   {value / theirs:6.1f} x fairseq")
    print(f"{'fairseq MaskTokens':24s} {theirs / 1e6:8.2f} M tokens/s")
    result = {"benchmark": "loader", "length": args.length, "batch": args.batch, "load": os.getloadavg()[0]}
    print(json.dumps(result | {"ours": rows, "fairseq": theirs}))


if __name__ == "__main__":
    main()
