"""Speed and memory of an epoch's pair index, against fairseq's BlockPairDataset in the same run.

Every row runs in a process of its own on sizes mapped from a file, as a corpus is. Memory is the growth of
the process's peak resident size while it builds the index, the index itself included, what is mapped not (it
is shared between processes).

    python benchmarks/pairing.py [--repeats 5] [--threads 2]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from hmtl_plugin.data.pairing import PairingConfig, build_pairs

PEER_SENTENCES = 100_000
# name -> sentences, documents (about), kind, tokens a sample
ROWS = {
    "20 M sentences, 1 M documents": (20_000_000, 1_000_000, "nsp", 128),
    "the same, 512 tokens a sample": (20_000_000, 1_000_000, "nsp", 512),
    "the same, sop": (20_000_000, 1_000_000, "sop", 128),
    "the same, single": (20_000_000, 1_000_000, "single", 128),
    "a document of 1 M sentences": (1_000_000, 1, "nsp", 128),
}


def make_sizes(sentences: int, documents: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes, starts and ends: log-normal sentences of 24 tokens on average, geometric documents; at least two
    of these.
    """
    rng = np.random.default_rng(0)
    counts = rng.geometric(documents / sentences, documents) if documents > 1 else np.array([sentences, 20])
    end = np.cumsum(counts + 1) - 1
    sizes = np.clip(rng.lognormal(3.0, 0.65, int(end[-1]) + 1), 1, 2000).astype(np.int32) + 1
    sizes[end] = 1
    return sizes, end - counts, end


def peak_bytes() -> int:
    """Highest resident size of this process so far (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def measure(folder: Path, kind: str, length: int, repeats: int, threads: int | None) -> dict[str, float]:
    """Build the index ``repeats`` times, an epoch each; median speed and peak memory."""
    sizes, start, end = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("sizes", "start", "end"))
    sentences = int((np.asarray(end) - start).sum()) + 0 * int(sizes.sum())  # touches all that is mapped
    config = PairingConfig(kind, length)
    before, seconds, samples = peak_bytes(), [], 0
    for epoch in range(1, repeats + 1):
        begin = time.perf_counter()
        samples = len(build_pairs(sizes, (start, end), config, 1, epoch, threads=threads))
        seconds.append(time.perf_counter() - begin)
    return {
        "sentences": sentences,
        "samples": samples,
        "sentences_per_second": sentences / float(np.median(seconds)),
        "bytes_per_sentence": (peak_bytes() - before) / sentences,
    }


def peer() -> float:
    """Sentences a second of fairseq's BlockPairDataset."""
    from fairseq.data.legacy.block_pair_dataset import BlockPairDataset

    sizes, start, end = make_sizes(PEER_SENTENCES, PEER_SENTENCES // 20)

    class Items:
        """What BlockPairDataset asks of a data set."""

        def __init__(self) -> None:
            self.sizes = sizes

        def __len__(self) -> int:
            return len(sizes)

    dictionary = SimpleNamespace(pad=lambda: 1, eos=lambda: 2, cls=lambda: 0, mask=lambda: 4, sep=lambda: 2)
    begin = time.perf_counter()
    BlockPairDataset(Items(), dictionary, sizes, block_size=128, break_mode="doc")
    return int((end - start).sum()) / (time.perf_counter() - begin)


def run_row(name: str, args: argparse.Namespace) -> dict[str, float]:
    """Measure one row in a fresh process."""
    sentences, documents, kind, length = ROWS[name]
    with tempfile.TemporaryDirectory() as folder:
        for part, values in zip(("sizes", "start", "end"), make_sizes(sentences, documents), strict=True):
            np.save(Path(folder) / f"{part}.npy", values)
        command = [
            sys.executable,
            __file__,
            "--child",
            folder,
            kind,
            str(length),
            "--repeats",
            str(args.repeats),
        ]
        command += ["--threads", str(args.threads)] if args.threads else []
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def main() -> None:
    """Measure and print one line a row, then one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None, help="by default one a core, four at most")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        folder, kind, length = args.child
        print(json.dumps(measure(Path(folder), kind, int(length), args.repeats, args.threads)))
        return
    theirs = peer()
    rows = {}
    for name in ROWS:
        row = rows[name] = run_row(name, args)
        speed = row["sentences_per_second"]
        print(
            f"{name:30s} {speed / 1e6:7.2f} M sentences/s  {speed / theirs:6.0f} x fairseq",
            end="  ",
            flush=True,
        )
        print(f"{row['bytes_per_sentence']:6.1f} bytes a sentence  {row['samples'] / 1e6:6.2f} M samples")
    print(f"{'fairseq BlockPairDataset':30s} {theirs / 1e6:7.2f} M sentences/s")
    print(json.dumps({"benchmark": "pairing", "load": os.getloadavg()[0], "ours": rows, "fairseq": theirs}))


if __name__ == "__main__":
    main()
