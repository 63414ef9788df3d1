"""Speed of the loader: from the memory-mapped corpus to the trainer's batch, against fairseq's MaskTokensDataset.

    python benchmarks/loader.py [--seconds 6] [--repeats 3] [--json FILE]

Rows "in one process" call the collater. Ours: pairs gathered, bigram shift, masks, labels, collation. Peer: masks only,
over blocks of the same corpus, collated with fairseq's own functions.

The row "one worker feeds the trainer end to end" is what training does: fairseq's epoch iterator over torch's
DataLoader, one worker process, and the tokens a second that arrive in this process, on the GPU if there is one. Peer:
the data set of fairseq's masked_lm task through the same iterator.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from record import Recorder, Row, command_line
from synthetic import open_data, write_data
from turns import interleaved

from hmtl_plugin.commands.run import run_cli
from hmtl_plugin.corruption.vocabulary import MASK, Vocabulary

VOCABULARY = 16000
SENTENCES = 200_000
LENGTH, BATCH = 128, 128
FULL = "three objectives"
OBJECTIVES: dict[str, Sequence[str]] = {
    "pairs only": (),
    "masks": ("mlm",),
    "masks and next sentence": ("mlm", "nsp"),
    FULL: ("bigram_shift", "nsp", "mlm"),
}
WARM_UP = 24  # batches: more than wait in the queues between worker and trainer (2 of torch, 10 of fairseq)
PEER = "fairseq MaskTokensDataset (masks only)"


@dataclass
class Source:
    """A data set and the full-length samples that its batches are made of, in random order."""

    dataset: Any
    samples: npt.NDArray[np.int64]
    batch: int

    def batches(self) -> Iterator[list[int]]:
        """Without end: after the last sample comes the first."""
        if len(self.samples) < self.batch:
            raise ValueError(f"the corpus gives {len(self.samples)} samples, and a batch wants {self.batch}")
        while True:
            for first in range(0, len(self.samples) - self.batch + 1, self.batch):
                yield self.samples[first : first + self.batch].tolist()


def ours(prefix: Path, vocabulary: Vocabulary, objectives: Sequence[str], batch: int) -> Source:
    """Our data set with these objectives."""
    dataset = open_data(prefix, vocabulary, objectives, LENGTH)
    dataset.set_epoch(1)
    order = dataset.ordered_indices()
    order = order[dataset.sizes[order] == LENGTH]  # as for the peer: full samples
    return Source(dataset, np.random.default_rng(0).permutation(order), batch)


def peer(prefix: Path, dictionary: Any, batch: int) -> Source:
    """What fairseq's masked_lm task trains on: source and target, right-padded."""
    from fairseq.data import MaskTokensDataset, NestedDictionaryDataset, RightPadDataset, TokenBlockDataset
    from fairseq.data.indexed_dataset import MMapIndexedDataset

    items, pad = MMapIndexedDataset(str(prefix)), dictionary.pad()
    stream = TokenBlockDataset(items, items.sizes, LENGTH, pad=pad, eos=dictionary.eos(), break_mode="none")
    masked = MaskTokensDataset.apply_mask(stream, dictionary, pad, mask_idx=dictionary.index(MASK), seed=1)
    source, target = (RightPadDataset(data, pad_idx=pad) for data in masked)
    parts = {"net_input": {"src_tokens": source}, "target": target}
    dataset = NestedDictionaryDataset(parts, sizes=[stream.sizes])
    dataset.set_epoch(1)
    return Source(dataset, np.random.default_rng(0).permutation(len(stream)), batch)


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

    count = WARM_UP + max(5, round(seconds * expected / (LENGTH * source.batch)))
    epoch = EpochBatchIterator(
        source.dataset,
        source.dataset.collater,
        list(islice(source.batches(), count)),
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


def measure(recorder: Recorder, args: argparse.Namespace, folder: Path, batch: int = BATCH) -> None:
    """All rows: each system in turns, ``--repeats`` times."""
    dictionary = write_data(folder, VOCABULARY, args.sentences)
    vocabulary, prefix, seconds = Vocabulary.from_dictionary(dictionary), folder / "train", args.seconds / args.repeats
    sources = {name: ours(prefix, vocabulary, names, batch) for name, names in OBJECTIVES.items()}
    sources[PEER] = peer(prefix, dictionary, batch)
    details = {"sequences in a batch": batch}
    runs = {name: partial(in_process, source, seconds) for name, source in sources.items()}
    rates = interleaved(runs, args.repeats)
    for name in OBJECTIVES:
        what = f"corruption and collation, length {LENGTH}, {name}, one process"
        recorder.add(Row(what, "tokens/s", rates[name], peer=rates[PEER], peer_name=PEER, details=details))
    fed = interleaved(
        {name: partial(end_to_end, sources[name], seconds, float(np.median(rates[name]))) for name in (FULL, PEER)},
        args.repeats,
    )
    what = f"one worker feeds the trainer end to end, length {LENGTH}, {FULL}"
    device = "gpu" if torch.cuda.is_available() else "cpu"
    recorder.add(Row(what, "tokens/s", fed[FULL], "higher", fed[PEER], PEER, device, details))


def main() -> None:
    """Measure and print one line a row."""
    parser = command_line(__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="time for each row")
    parser.add_argument("--repeats", type=int, default=3, help="parts of that time, the systems taking turns")
    parser.add_argument("--sentences", type=int, default=SENTENCES, help="of the corpus")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Recorder("loader", args.json) as recorder:
        measure(recorder, args, Path(folder))


if __name__ == "__main__":
    run_cli(main)
