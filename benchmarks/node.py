"""Start-up of all ranks of a node on one corpus: seconds to everybody's first batch, and memory of all together.

The ranks are processes that hold the data side of a training and no model. They begin together, when all have imported
what they need; what they do is what fairseq's trainer does.
"""

import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from index_parts import LENGTH, VOCABULARY
from own_process import OwnProcess
from synthetic import make_dictionary, open_data

from hmtl_plugin.tasks.pretraining import HmtlPretrainingConfig, HmtlPretrainingTask

_INTERVAL = 0.5  # seconds between looks at the memory
_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+(?: \S+){4} *(.*)\n(?:.+\n)*?Pss: +(\d+) kB$", re.MULTILINE)


class Memory(NamedTuple):
    """Bytes of all ranks and their workers together: sums of proportional sets, which count a shared page once.

    Attributes:
        own: all but the corpus.
        corpus: pages of its files that are mapped. They are the page cache's, which gives them back when memory is short;
            while a training goes on they become the whole corpus.
    """

    own: int
    corpus: int


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
    before: Memory
    peak: Memory
    steps: dict[str, float]
    samples: int
    batches: int


def start_node(prefix: Path, kind: str, ranks: int, max_tokens: int, folder: Path) -> Start:
    """Start so many ranks, wait for their first batches, end them; ``folder``: for their meeting and their shared files.

    Raises:
        UserError: if a rank fails.
    """
    prefix = prefix.resolve()  # as the kernel names its files
    environ = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"} | os.environ | {"TMPDIR": str(folder)}
    environ.pop("LOCAL_WORLD_SIZE", None)
    with patch.dict(os.environ, environ, clear=True), ExitStack() as stack:
        processes = [stack.enter_context(OwnProcess()) for _ in range(ranks)]
        for rank, process in enumerate(processes):
            process.ask(meet, rank, ranks, folder)
        for process in processes:
            process.answer()
        memories = [_memory(processes, prefix)]
        begin = time.perf_counter()
        for rank, process in enumerate(processes):
            process.ask(first_batch, prefix, kind, max_tokens, rank, ranks)
        reports: dict[int, Any] = {}
        while len(reports) < ranks:
            time.sleep(_INTERVAL)
            memories.append(_memory(processes, prefix))
            waiting = [(rank, process) for rank, process in enumerate(processes) if rank not in reports]
            reports |= {rank: process.answer() for rank, process in waiting if process.answered()}
        memories.append(_memory(processes, prefix))
    longest = {name: max(report["steps"][name] for report in reports.values()) for name in reports[0]["steps"]}
    return Start(
        max(report["done"] for report in reports.values()) - begin,
        memories[0],
        Memory(*map(max, zip(*memories, strict=True))),
        longest,
        reports[0]["samples"],
        reports[0]["batches"],
    )


def _memory(processes: Sequence[OwnProcess], prefix: Path) -> Memory:
    """Of the processes and their children."""
    own = corpus = 0
    for number in [number for process in processes for number in _family(process.pid)]:
        with suppress(OSError):  # it has ended
            for file, size in _MAPPING.findall(Path(f"/proc/{number}/smaps").read_text(encoding="utf-8")):
                if file in (f"{prefix}.idx", f"{prefix}.bin"):
                    corpus += 1024 * int(size)
                else:
                    own += 1024 * int(size)
    return Memory(own, corpus)


def _family(process: int) -> list[int]:
    """The process and its children."""
    found = [process]
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text(encoding="ascii").split())
    return found


# ---- a rank ----

_held: dict[str, Any] = {}


def meet(rank: int, ranks: int, folder: Path) -> None:
    """Import what is needed, and meet the others."""
    if ranks > 1:
        meeting = f"file://{folder}/meeting"
        torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks)
    dictionary = make_dictionary(VOCABULARY, whole_words=True)
    _held["task"] = HmtlPretrainingTask(HmtlPretrainingConfig(data="", tokens_per_sample=LENGTH), dictionary)


def first_batch(prefix: Path, kind: str, max_tokens: int, rank: int, ranks: int) -> dict[str, Any]:
    """Make the first batch of an epoch: when it was there, seconds by step, samples and batches. All of it is kept."""
    steps: dict[str, float] = {}

    def step(name: str, run: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = _held[name] = run()
        steps[name] = time.perf_counter() - begin
        return result

    task, names = _held["task"], ("mlm",) if kind == "single" else ("mlm", kind)
    data = step("open the corpus", lambda: open_data(prefix, task.vocabulary, names, LENGTH, kind))
    step("samples", lambda: data.set_epoch(1))
    limits = {"max_tokens": max_tokens, "max_positions": LENGTH, "required_batch_size_multiple": 8}
    shard = {"num_shards": ranks, "shard_id": rank, "num_workers": 1, "data_buffer_size": 10}
    iterator = step(
        "order and batches", lambda: task.get_batch_iterator(data, ignore_invalid_inputs=True, **limits, **shard)
    )
    step("the dummy batch", lambda: iterator.first_batch)
    batches = step("shuffle the batches", lambda: iterator.next_epoch_itr(shuffle=True))
    step("the worker's first batch", lambda: next(batches))
    counts = {"samples": len(data), "batches": len(iterator.frozen_batches)}
    return {"done": time.perf_counter(), "steps": steps, **counts}
