"""Start-up of all ranks of a node on one corpus: seconds to everybody's first batch, and memory of all together.

The ranks are processes that hold the data side of a training and no model. They begin together, when all have imported what
they need; what they do is what fairseq's trainer does. A process can be started as a rank:

    python benchmarks/node.py PREFIX KIND MAX_TOKENS RANK RANKS FOLDER
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

LENGTH = 128
_INTERVAL = 0.5  # seconds between looks at the memory


@dataclass(frozen=True)
class Start:
    """One start of a node.

    Attributes:
        seconds: until the last rank had its first batch, from when all had imported.
        before, peak: memory with nothing but imports, and the most at one time.
        steps: seconds of each step, of the rank that took longest for it.
        samples, batches: of the epoch.
    """

    seconds: float
    before: "Memory"
    peak: "Memory"
    steps: dict[str, float]
    samples: int
    batches: int


@dataclass(frozen=True)
class Memory:
    """Bytes of all ranks and their workers together: sums of proportional sets, which count a shared page once.

    Attributes:
        own: all but the corpus.
        corpus: pages of its files that are mapped. They are the page cache's, which gives them back when memory is short; while a
            training goes on they become the whole corpus.
    """

    own: int
    corpus: int


def start_node(prefix: Path, kind: str, ranks: int, max_tokens: int, folder: Path) -> Start:
    """Start so many ranks, wait for their first batches, end them; ``folder``: for their meeting and their shared files."""
    prefix = prefix.resolve()  # as the kernel names its files
    environ = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"} | os.environ | {"TMPDIR": str(folder)}
    environ.pop("LOCAL_WORLD_SIZE", None)
    command = [sys.executable, __file__, str(prefix), kind, str(max_tokens)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environ}
    processes = [subprocess.Popen([*command, str(rank), str(ranks), str(folder)], **pipes) for rank in range(ranks)]
    try:
        for process in processes:
            _read(process)
        before = peak = _memory(processes, prefix)
        begin = time.perf_counter()
        for process in processes:
            _go_on(process)
        done = [folder / f"rank{rank}.json" for rank in range(ranks)]
        while not all(path.exists() for path in done):
            if any(process.poll() is not None for process in processes):
                raise RuntimeError("a rank ended before its first batch; its error is above")
            time.sleep(_INTERVAL)
            peak = _higher(peak, _memory(processes, prefix))
        reports = [json.loads(path.read_text(encoding="utf-8")) for path in done]
        seconds = max(report["done"] for report in reports) - begin
        peak = _higher(peak, _memory(processes, prefix))
        for process in processes:
            _go_on(process)
        for process in processes:
            process.wait()
    finally:
        for process in processes:
            process.kill()
    steps = {name: max(report["steps"][name] for report in reports) for name in reports[0]["steps"]}
    return Start(seconds, before, peak, steps, reports[0]["samples"], reports[0]["batches"])


def _read(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("a rank ended before it began; its error is above")
    return line


def _go_on(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def _higher(one: Memory, other: Memory) -> Memory:
    return Memory(max(one.own, other.own), max(one.corpus, other.corpus))


def _memory(processes: list["subprocess.Popen[str]"], prefix: Path) -> Memory:
    """Of the processes and their children."""
    own = corpus = 0
    for process in processes:
        for number in _family(process.pid):
            try:
                lines = Path(f"/proc/{number}/smaps").read_text(encoding="utf-8").splitlines()
            except OSError:  # it has ended
                continue
            of_corpus = False
            for line in lines:
                name, _, value = line.partition(":")
                if name == "Pss":
                    size = 1024 * int(value.split()[0])
                    own, corpus = own + size * (not of_corpus), corpus + size * of_corpus
                elif "-" in line.split(" ", 1)[0]:  # a mapping begins: addresses, rights, ..., file
                    of_corpus = line.endswith((f" {prefix}.idx", f" {prefix}.bin"))
    return Memory(own, corpus)


def _family(process: int) -> list[int]:
    """The process and its children."""
    found = [process]
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += map(int, path.read_text(encoding="ascii").split())
        except OSError:
            continue
    return found


# ---- a rank ----


def run_rank(prefix: str, kind: str, max_tokens: int, rank: int, ranks: int, folder: Path, lines: IO[str]) -> None:
    """Meet the others, wait for a line, make the first batch of an epoch, write a report, wait for a line."""
    import torch
    from fairseq.data import Dictionary

    from hmtl_plugin.corruption.vocabulary import MASK
    from hmtl_plugin.data.corpus import Corpus
    from hmtl_plugin.data.dataset import PretrainingDataset, SampleSpec
    from hmtl_plugin.data.pairing import PairingConfig
    from hmtl_plugin.objectives.base import build_objectives
    from hmtl_plugin.tasks.pretraining import HmtlPretrainingConfig, HmtlPretrainingTask

    if ranks > 1:
        meeting = f"file://{folder}/meeting"
        torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks)
    dictionary = Dictionary()
    for symbol in (MASK, *(f"\u2581w{number}" for number in range(16000))):
        dictionary.add_symbol(symbol)
    task = HmtlPretrainingTask(HmtlPretrainingConfig(data="", tokens_per_sample=LENGTH), dictionary)
    names = ("mlm",) if kind == "single" else ("mlm", kind)
    objectives = tuple(build_objectives(names).values())
    view = SampleSpec("train", kind, objectives, tuple(name for each in objectives for name in each.target_names))
    print("ready", flush=True)
    lines.readline()
    steps: dict[str, float] = {}

    def step(name: str, run: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = run()
        steps[name] = time.perf_counter() - begin
        return result

    corpus = step("open the corpus", lambda: Corpus(prefix))
    data = PretrainingDataset(corpus, task.vocabulary, [view], PairingConfig(kind, LENGTH))
    step("samples", lambda: data.set_epoch(1))
    limits = {"max_tokens": max_tokens, "max_positions": LENGTH, "required_batch_size_multiple": 8}
    shard = {"num_shards": ranks, "shard_id": rank, "num_workers": 1, "data_buffer_size": 10}
    iterator = step(
        "order and batches", lambda: task.get_batch_iterator(data, ignore_invalid_inputs=True, **limits, **shard)
    )
    step("the dummy batch", lambda: iterator.first_batch)
    batches = step("shuffle the batches", lambda: iterator.next_epoch_itr(shuffle=True))
    step("the worker's first batch", lambda: next(batches))
    report = {"done": time.perf_counter(), "steps": steps, "samples": len(data)}
    report["batches"] = len(iterator.frozen_batches)
    part = folder / f"rank{rank}.part"
    part.write_text(json.dumps(report), encoding="utf-8")
    part.rename(part.with_suffix(".json"))
    lines.readline()


if __name__ == "__main__":
    prefix, kind, *counts, folder = sys.argv[1:]
    max_tokens, rank, ranks = map(int, counts)
    run_rank(prefix, kind, max_tokens, rank, ranks, Path(folder), sys.stdin)
