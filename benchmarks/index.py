"""What an epoch costs before its first batch: the pair index, start-up, memory, and whether cost grows with the corpus
alone.

    python benchmarks/index.py [--only pairs,growth,start] [--repeats 5] [--quick] [--json FILE]

pairs   the pair index against fairseq's BlockPairDataset, once before it and once after, on fewer sentences as it is
        slow. Memory is the growth of the process's peak resident size while it builds the index, the index itself
        included, what is mapped not (it is shared between processes).
growth  tokens a second of a whole epoch's samples, order and batches, and of the collater in random order, on 1 M, 10 M
        and 100 M sentences, taking turns; and of reading words at random from them, which the machine's memory bounds.
start   all ranks of a node on 100 M sentences, in documents of about 20 and as one document: `node`.

Every measurement but growth runs in processes of its own, on the files of a simulated corpus (6.3 GB for 100 M
sentences, in the temporary folder), read once before. Growth is one process that takes turns of seconds.
"""

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from index_parts import PEER_SENTENCES, VOCABULARY, growth, pairs, peer
from node import start_node
from own_process import alone
from record import Recorder, Row, command_line
from synthetic import MEAN_DOCUMENT, write_corpus

from hmtl_plugin.commands.run import run_cli

# what -> sentences, documents (about), kind, tokens a sample
PAIRS = {
    "20 M sentences in 1 M documents": (20_000_000, 1_000_000, "nsp", 128),
    "20 M sentences in 1 M documents, 512 tokens a sample": (20_000_000, 1_000_000, "nsp", 512),
    "20 M sentences in 1 M documents, sop": (20_000_000, 1_000_000, "sop", 128),
    "20 M sentences in 1 M documents, single": (20_000_000, 1_000_000, "single", 128),
    "a document of 1 M sentences and a small one": (1_000_000, 2, "nsp", 128),
}
GROWTH = {"1 M sentences": 1_000_000, "10 M sentences": 10_000_000, "100 M sentences": 100_000_000}
# what -> documents, kind, tokens a batch
START = {
    "documents of about 20": (5_000_000, "nsp", 8192),
    "documents of about 20, 65,536 tokens a batch": (5_000_000, "nsp", 65536),
    "one document": (1, "single", 8192),
    "one document, sop": (1, "sop", 8192),
}
RANKS = 8
PEER = f"fairseq BlockPairDataset, {PEER_SENTENCES:,} sentences in documents of about 20, nsp"
QUICK = 100  # so many times smaller


class Corpora:
    """Simulated corpora, each written when it is first asked for."""

    def __init__(self, folder: Path, smaller: int) -> None:
        self._folder, self._smaller = folder, smaller

    def get(self, sentences: int, documents: int) -> Path:
        """Prefix of one, its files read into the page cache."""
        prefix = self._folder / f"{sentences}-{documents}" / "train"
        if not prefix.parent.exists():
            prefix.parent.mkdir()
            smaller = max(2, documents // self._smaller) if documents > 1 else 1
            write_corpus(prefix, VOCABULARY, sentences // self._smaller, smaller)
        for suffix in (".bin", ".idx"):
            with open(f"{prefix}{suffix}", "rb") as file:
                while file.read(1 << 24):
                    pass
        return prefix


def measure_pairs(recorder: Recorder, corpora: Corpora, args: argparse.Namespace) -> None:
    """Rows of the pair index."""
    for name, (sentences, documents, kind, length) in PAIRS.items():
        prefix = corpora.get(sentences, documents)
        before = alone(peer, length)
        found = alone(pairs, prefix, kind, length, args.repeats)
        theirs = [before, alone(peer, length)]
        what = f"{args.note}pair index of an epoch, {name}"
        details = {"samples": found["samples"], "threads": "one a core, four at most"}
        recorder.add(Row(what, "sentences/s", found["speeds"], peer=theirs, peer_name=PEER, details=details))
        what = f"{args.note}memory of the pair index a sentence, {name}"
        recorder.add(Row(what, "bytes", [found["bytes_per_sentence"]], better="lower"))


def measure_growth(recorder: Recorder, corpora: Corpora, args: argparse.Namespace) -> None:
    """Rows of growing corpora, each beside the smallest."""
    prefixes = [corpora.get(sentences, sentences // MEAN_DOCUMENT) for sentences in GROWTH.values()]
    found = dict(zip(GROWTH, alone(growth, args.repeats, prefixes), strict=True))
    smallest = next(iter(GROWTH))
    for what in found[smallest][0]:
        speeds = {name: [rates[what] for rates in repeats] for name, repeats in found.items()}
        for name in GROWTH:
            peer, peer_name = ([], "") if name == smallest else (speeds[smallest], smallest)
            recorder.add(Row(f"{args.note}{what}, {name}", "tokens/s", speeds[name], peer=peer, peer_name=peer_name))


def measure_start(recorder: Recorder, corpora: Corpora, args: argparse.Namespace) -> None:
    """Rows of nodes that start."""
    for name, (documents, kind, max_tokens) in START.items():
        prefix = corpora.get(GROWTH["100 M sentences"], documents)
        with tempfile.TemporaryDirectory() as folder:
            start = start_node(prefix, kind, RANKS, max_tokens, Path(folder))
        what = f"{RANKS} ranks of a node, 100 M sentences, {name}"
        details: dict[str, float] = {"samples": start.samples, "batches": start.batches}
        steps = {f"{step}, longest (s)": round(seconds, 2) for step, seconds in start.steps.items()}
        memory: dict[str, float] = {
            "after imports (bytes)": start.before.own,
            "mapped pages of the corpus beside (bytes)": start.peak.corpus,
        }
        for measure, unit, value, more in (
            ("start-up", "s", start.seconds, steps),
            ("memory", "bytes", start.peak.own, memory),
        ):
            recorder.add(Row(f"{args.note}{measure} of {what}", unit, [value], "lower", details=details | more))


MEASURES = {"pairs": measure_pairs, "growth": measure_growth, "start": measure_start}


def chosen(text: str) -> Sequence[str]:
    """Names of parts, by commas."""
    names = text.split(",")
    if not set(names) <= set(MEASURES):
        raise argparse.ArgumentTypeError(f"use some of {','.join(MEASURES)}")
    return names


def main(arguments: Iterable[str] | None = None) -> None:
    """Measure and print one line a row."""
    parser = command_line(__doc__)
    parser.add_argument("--only", type=chosen, default=MEASURES, metavar="PART,...", help=", ".join(MEASURES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help=f"corpora {QUICK} times smaller: does it run?")
    args = parser.parse_args(arguments)
    args.note = f"on a corpus {QUICK} times smaller: " if args.quick else ""
    with tempfile.TemporaryDirectory() as folder, Recorder("index", args.json) as recorder:
        corpora = Corpora(Path(folder), QUICK if args.quick else 1)
        for part in args.only:
            MEASURES[part](recorder, corpora, args)


if __name__ == "__main__":
    run_cli(main)
