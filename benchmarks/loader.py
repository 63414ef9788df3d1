"""Speed of the loader: from the memory-mapped corpus to the trainer's batch, against fairseq's MaskTokensDataset.

    python benchmarks/loader.py [--length 128] [--batch 128] [--seconds 6] [--repeats 3] [--json FILE]

Rows "in one process" call the collater. Ours: pairs gathered, bigram shift, masks, labels, collation. Peer: masks only, over
blocks of the same corpus, collated with fairseq's own functions.

The row "one worker feeds the trainer end to end" is what training does: fairseq's epoch iterator over torch's DataLoader, one
worker process, and the tokens a second that arrive in this process, on the GPU if there is one. Peer: the data set of
fairseq's masked_lm task through the same iterator.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from record import Recorder, Row
from row import Detail
from synthetic import make_dictionary, write_corpus

from hmtl_plugin.commands.run import run_cli
from hmtl_plugin.corruption.vocabulary import MASK, Vocabulary
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.dataset import PretrainingDataset, SampleSpec
from hmtl_plugin.data.pairing import PairingConfig
from hmtl_plugin.objectives.base import build_objectives

VOCABULARY = 16000
SENTENCES = 200_000
OBJECTIVES = {
    "pairs only": (),
    "masks": ("mlm",),
    "masks and next sentence": ("mlm", "nsp"),
    "three objectives": ("bigram_shift", "nsp", "mlm"),
}
WARM_UP = 24  # batches: more than wait in the queues between worker and trainer (2 of torch, 10 of fairseq)
PEER = "fairseq MaskTokensDataset (masks only)"


@dataclass
class Source:
    """A data set and the full-length samples that its batches are made of, in random order."""

    dataset: Any
    samples: npt.NDArray[np.int64]
    length: int
    batch: int

    def batches(self) -> Iterator[list[int]]:
        """Without end: after the last sample comes the first."""
        if len(self.samples) < self.batch:
            raise ValueError(f"the corpus gives {len(self.samples)} samples, and a batch wants {self.batch}")
        while True:
            for first in range(0, len(self.samples) - self.batch + 1, self.batch):
                yield self.samples[first : first + self.batch].tolist()


def ours(prefix: str, vocabulary: Vocabulary, names: tuple[str, ...], length: int, batch: int) -> Source:
    """`PretrainingDataset` with these objectives."""
    objectives = tuple(build_objectives(names).values())
    targets = tuple(target for objective in objectives for target in objective.target_names)
    view = SampleSpec("train", "nsp", objectives, targets)
    dataset = PretrainingDataset(Corpus(prefix), vocabulary, [view], PairingConfig(tokens_per_sample=length))
    dataset.set_epoch(1)
    order = dataset.ordered_indices()
    order = order[dataset.sizes[order] == length]  # as for the peer: full samples
    return Source(dataset, np.random.default_rng(0).permutation(order), length, batch)


def peer(prefix: str, dictionary: Any, length: int, batch: int) -> Source:
    """What fairseq's masked_lm task trains on: source and target, right-padded."""
    from fairseq.data import MaskTokensDataset, NestedDictionaryDataset, RightPadDataset, TokenBlockDataset
    from fairseq.data.indexed_dataset import MMapIndexedDataset

    items = MMapIndexedDataset(prefix)
    stream = TokenBlockDataset(
        items, items.sizes, length, pad=dictionary.pad(), eos=dictionary.eos(), break_mode="none"
    )
    source, target = MaskTokensDataset.apply_mask(
        stream, dictionary, pad_idx=dictionary.pad(), mask_idx=dictionary.index(MASK), seed=1
    )
    padded = {
        name: RightPadDataset(data, pad_idx=dictionary.pad()) for name, data in (("src", source), ("target", target))
    }
    parts = {"net_input": {"src_tokens": padded["src"]}, "target": padded["target"]}
    dataset = NestedDictionaryDataset(parts, sizes=[stream.sizes])
    dataset.set_epoch(1)
    return Source(dataset, np.random.default_rng(0).permutation(len(stream)), length, batch)


def in_process(source: Source, seconds: float) -> float:
    """Tokens a second of making batches here, the median over batches."""
    batches, rates = source.batches(), list[float]()
    source.dataset.collater([source.dataset[number] for number in next(batches)])
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rates) < 5:
        numbers, begin = next(batches), time.perf_counter()
        sample = source.dataset.collater([source.dataset[number] for number in numbers])
        rates.append(sample["net_input"]["src_tokens"].numel() / (time.perf_counter() - begin))
    return float(np.median(rates))


def end_to_end(source: Source, seconds: float, expected: float) -> float:
    """Tokens a second that one worker brings to this process, after a warm-up.

    Args:
        expected: tokens a second in one process: as many batches are asked for as that would make in ``seconds``. All are
            taken, so that worker and threads end before the next measurement.
    """
    from fairseq import utils
    from fairseq.data.iterators import EpochBatchIterator

    count = WARM_UP + max(5, round(seconds * expected / (source.length * source.batch)))
    numbers = [batch for _, batch in zip(range(count), source.batches(), strict=False)]
    epoch = EpochBatchIterator(
        source.dataset,
        source.dataset.collater,
        numbers,
        num_workers=1,
        buffer_size=10,  # of fairseq: --data-buffer-size
        persistent_workers=False,
    ).next_epoch_itr(shuffle=False)
    cuda = torch.cuda.is_available()
    tokens, begin = 0, 0.0
    for number, sample in enumerate(epoch):
        if number == WARM_UP:
            begin = time.perf_counter()
        batch = utils.move_to_cuda(sample) if cuda else sample
        tokens += batch["net_input"]["src_tokens"].numel() if number >= WARM_UP else 0
    if cuda:
        torch.cuda.synchronize()
    return tokens / (time.perf_counter() - begin)


def measure(recorder: Recorder, args: argparse.Namespace, folder: Path) -> None:
    """All rows: each system in turns, ``--repeats`` times."""
    dictionary = make_dictionary(VOCABULARY)
    prefix = write_corpus(folder, len(dictionary), args.sentences, np.random.default_rng(0))
    vocabulary = Vocabulary.from_dictionary(dictionary)
    sources = {name: ours(prefix, vocabulary, names, args.length, args.batch) for name, names in OBJECTIVES.items()}
    theirs, seconds = peer(prefix, dictionary, args.length, args.batch), args.seconds / args.repeats

    def repeat(runs: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(args.repeats):
            for name, run in runs.items():
                rates[name].append(run())
        return rates

    runs = {name: partial(in_process, source, seconds) for name, source in {**sources, PEER: theirs}.items()}
    rates = repeat(runs)
    details: dict[str, Detail] = {"sequences in a batch": args.batch}
    for name in OBJECTIVES:
        what = f"corruption and collation, length {args.length}, {name}, one process"
        recorder.add(Row(what, "tokens/s", rates[name], peer=rates[PEER], peer_name=PEER, details=details))
    full = "three objectives"
    feeding = {
        name: partial(end_to_end, source, seconds) for name, source in {full: sources[full], PEER: theirs}.items()
    }
    fed = repeat({name: partial(run, float(np.median(rates[name]))) for name, run in feeding.items()})
    what = f"one worker feeds the trainer end to end, length {args.length}, {full}"
    device: Literal["cpu", "gpu"] = "gpu" if torch.cuda.is_available() else "cpu"
    recorder.add(Row(what, "tokens/s", fed[full], "higher", fed[PEER], PEER, device, details))


def main() -> None:
    """Measure and print one line a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=128, help="sequences in a batch")
    parser.add_argument("--seconds", type=float, default=6.0, help="time for each row")
    parser.add_argument("--repeats", type=int, default=3, help="parts of that time, the systems taking turns")
    parser.add_argument("--sentences", type=int, default=SENTENCES, help="of the corpus")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Recorder("loader", args.json) as recorder:
        measure(recorder, args, Path(folder))


if __name__ == "__main__":
    run_cli(main)
