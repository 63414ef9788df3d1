#!/usr/bin/env python3
"""Probing beside its peers: features of all layers, probes of all layers, memory on a set ten times larger.

python benchmarks/probing.py senteval/data/probing/bigram_shift.txt

Peers: SentEval's loop over the same model (batches of 128 sentences, padded to the longest, one layer a run), in file order and sorted by
words as SentEval's own tasks are; scikit-learn's LogisticRegression, a layer and a penalty at a time on the same features.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from record import Recorder, Row
from turns import interleaved

from hmtl_plugin.commands.run import run_cli
from hmtl_plugin.models.config import EncoderConfig
from hmtl_plugin.models.encoder import Encoder
from hmtl_plugin.models.pooling import pool
from hmtl_plugin.precision import autocast
from hmtl_plugin.probing.api import probe
from hmtl_plugin.probing.encoders import About, GivenEncoder, TransformerEncoder
from hmtl_plugin.probing.features import layer_features
from hmtl_plugin.probing.probes import PENALTIES, ProbeOptions, probe_layers
from hmtl_plugin.probing.tasks import SPLITS, ProbingTask, read_task
from hmtl_plugin.tokenizers.base import SENTENCEPIECE
from hmtl_plugin.tokenizers.loading import tokenizer_from_bytes
from hmtl_plugin.tokenizers.training import train_tokenizer

LOOP = "SentEval's loop"
_PEER_BATCH = 128
_SIZES = {"small": (4, 512, 8), "mini": (4, 256, 4), "tiny": (2, 64, 2)}


def build(task: ProbingTask, size: str, precision: str, pieces: int) -> TransformerEncoder:
    """A model with random weights, and a tokenizer trained on the task's own text."""
    texts = task.sentences(range(min(20_000, len(task))))
    tokenizer = tokenizer_from_bytes(SENTENCEPIECE, train_tokenizer(texts, pieces))
    layers, hidden, heads = _SIZES[size]
    config = EncoderConfig(len(tokenizer), hidden, layers, heads, 4 * hidden, max_positions=512)
    about = About(f"{size} {precision}", "untrained", f"{size}-{precision}")
    return TransformerEncoder(about, Encoder(config, 1), tokenizer, ("mean",), precision, "cpu")


@torch.inference_mode()
def peer_features(encoder: TransformerEncoder, task: ProbingTask, layer: int, by_words: bool) -> np.ndarray:
    """SentEval's loop: one layer of one task, held in memory."""
    rows = np.arange(len(task))
    sentences = task.sentences(rows)
    if by_words:
        rows = np.argsort([len(sentence.split()) for sentence in sentences], kind="stable")
    found = np.empty((len(task), encoder.encoder.config.hidden), dtype=np.float32)
    every = range(encoder.encoder.config.layers + 1)  # what a model with output_hidden_states gives its batcher
    for start in range(0, len(rows), _PEER_BATCH):
        chosen = rows[start : start + _PEER_BATCH]
        ids = [torch.tensor([0, *encoder.tokenizer.encode(sentences[row])[:510], 2]) for row in chosen]
        tokens_BT = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=1)
        with autocast(encoder.precision, "cpu"):
            states = encoder.encoder(tokens_BT, every)
        found[chosen] = pool(states[layer].float(), tokens_BT, "mean").numpy()
    return found


def measure_features(recorder: Recorder, encoder: TransformerEncoder, task: ProbingTask, args: Namespace) -> None:
    """Rows of our pass over all layers, written to disk, beside the peer's over one."""
    layers, precision = encoder.encoder.config.layers + 1, encoder.precision.replace("none", "fp32")

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return _timed(lambda: layer_features(encoder, task, Path(folder)))

    loops = {
        LOOP: partial(peer_features, encoder, task, layers - 1, False),
        f"{LOOP}, sorted by words": partial(peer_features, encoder, task, layers - 1, True),
    }
    runs = {name: partial(_timed, loop) for name, loop in loops.items()}
    seconds = interleaved({"ours": ours, **runs}, args.repeats)
    details = {"layers": layers, "sentences": len(task), "threads": torch.get_num_threads()}
    for loop in loops:
        against = {
            "the loop's one": (loop, 1),
            "as many loops": (f"{loop}, {layers} times what one layer takes", layers),
        }
        for other, (name, times) in against.items():
            what = f"features of all layers, {args.size}, {precision}, against {other}{loop.removeprefix(LOOP)}"
            theirs = [times * one for one in seconds[loop]]
            recorder.add(Row(what, "s", seconds["ours"], "lower", theirs, name, details=details))


def measure_probes(recorder: Recorder, encoder: TransformerEncoder, task: ProbingTask, args: Namespace) -> None:
    """The row of all layers' logistic regressions, ours and scikit-learn's, with their accuracies on te."""
    with tempfile.TemporaryDirectory() as folder:
        features = layer_features(encoder, task, Path(folder))["mean"]
        splits = [np.array(features[task.rows(split)]) for split in SPLITS]
    labels = [task.label_N[task.rows(split)] for split in SPLITS]
    own: list[float] = []
    others: list[float] = []

    def ours() -> None:
        own[:] = [float(r.right_N.mean()) for r in probe_layers(splits, labels, len(task.labels), ProbeOptions())]

    def peer() -> None:
        others[:] = [_scikit_learn(splits, labels, layer) for layer in range(features.shape[1])]

    seconds = interleaved({"ours": partial(_timed, ours), "peer": partial(_timed, peer)}, 3 * args.repeats)
    details = {
        "layers": features.shape[1],
        "penalties": len(PENALTIES),
        "rows": len(splits[0]),
        "largest difference of accuracies (points)": 100 * max(abs(a - b) for a, b in zip(own, others, strict=True)),
    }
    what, peer_name = (
        f"logistic regressions of all layers, {args.size}",
        "scikit-learn, a layer and a penalty at a time",
    )
    recorder.add(Row(what, "s", seconds["ours"], "lower", seconds["peer"], peer_name, details=details))


def measure_memory(recorder: Recorder, args: Namespace) -> None:
    """The row of peak memory on ten times the rows."""
    runs = {copies: partial(peak_of, args.file, args.vocab_size, copies) for copies in (1, 10)}
    found = interleaved({str(copies): run for copies, run in runs.items()}, args.repeats)
    what = "peak anonymous memory of a whole probing, ten times the rows"
    recorder.add(Row(what, "bytes", found["10"], "lower", found["1"], "the rows once"))


def _scikit_learn(splits: list[np.ndarray], labels: list[np.ndarray], layer: int) -> float:
    """Accuracy on te of the penalty that is best on va."""
    from sklearn.linear_model import LogisticRegression

    x = np.ascontiguousarray(splits[0][:, layer])
    mean, deviation = x.mean(0), x.std(0) + 1e-12
    tr, va, te = ((part[:, layer] - mean) / deviation for part in splits)
    best, accuracy = -1.0, 0.0
    for l2 in PENALTIES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = LogisticRegression(C=1 / (l2 * len(tr)), max_iter=1000).fit(tr, labels[0])
        if (valid := model.score(va, labels[1])) > best:
            best, accuracy = valid, model.score(te, labels[2])
    return float(accuracy)


def peak_of(file: Path, pieces: int, copies: int) -> float:
    """Peak anonymous memory (bytes) of a whole probing, features to summary, of ``file`` repeated; in a process of its own."""
    command = [sys.executable, __file__, str(file), "--child", str(copies), "--vocab-size", str(pieces)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def child(file: Path, pieces: int, copies: int) -> None:
    """Probe the set and print the peak."""
    torch.set_num_threads(1)
    task = read_task(file)
    encoder = build(task, "tiny", "none", pieces)
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / file.name
        with large.open("w", encoding="utf-8") as out:
            for copy in range(copies):  # the number keeps sentences apart
                for start in range(0, len(task), 4096):
                    rows = np.arange(start, min(len(task), start + 4096))
                    splits = [next(s for s in SPLITS if task.rows(s).start <= row < task.rows(s).stop) for row in rows]
                    for split, row, text in zip(splits, rows, task.sentences(rows), strict=True):
                        out.write(f"{split}\t{task.labels[task.label_N[row]]}\t{text} {copy}\n")
        given = GivenEncoder("model", encoder)  # a function is probed as a checkpoint is
        with _Peak() as peak:
            probe({"model": given}, large, Path(folder) / "out")
    print(peak.bytes)


class _Peak:
    """Highest anonymous resident memory while open, looked at every 10 ms."""

    def __enter__(self) -> "_Peak":
        self.bytes, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    self.bytes = max(self.bytes, 1024 * int(line.split()[1]))

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()


def _timed(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=Path, help="a task in SentEval's layout, 10k + 5k + 5k rows")
    p.add_argument("--size", choices=_SIZES, default="small")
    p.add_argument("--vocab-size", type=int, default=8000)
    p.add_argument("--precisions", default="none,bf16")
    p.add_argument("--repeats", type=int, default=1, help="of the features (probes: three times as many)")
    p.add_argument("--only", choices=("features", "probes", "memory"))
    p.add_argument("--json", type=Path, metavar="FILE")
    p.add_argument("--child", type=int, default=0, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.child:
        child(args.file, args.vocab_size, args.child)
        return
    task = read_task(args.file)
    with Recorder("probing", args.json) as recorder:
        if args.only in (None, "features"):
            for precision in args.precisions.split(","):
                measure_features(recorder, build(task, args.size, precision, args.vocab_size), task, args)
        if args.only in (None, "probes"):
            measure_probes(recorder, build(task, args.size, "bf16", args.vocab_size), task, args)
        if args.only in (None, "memory"):
            measure_memory(recorder, args)


if __name__ == "__main__":
    run_cli(main)
