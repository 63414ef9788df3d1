#!/usr/bin/env python3
"""Probing beside its peers: features of all layers, probes of all layers, memory on a set ten times larger.

    python benchmarks/probing.py senteval/data/probing/bigram_shift.txt [--only features|probes|memory] [--json FILE]

Peers: SentEval's loop over the same model (batches of 128 sentences, padded to the longest, one layer a run), in file
order and sorted by words as SentEval's own tasks are; scikit-learn's LogisticRegression, a layer and a penalty at a time
on the same features.
"""

import tempfile
import threading
import warnings
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from machine import memory
from own_process import alone
from record import Recorder, Row, command_line
from turns import interleaved, seconds_of

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

LOOP, LOGISTIC = "SentEval's loop", "scikit-learn, a layer and a penalty at a time"
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
            return seconds_of(lambda: layer_features(encoder, task, Path(folder)))

    def loop(by_words: bool) -> float:
        return seconds_of(lambda: peer_features(encoder, task, layers - 1, by_words))

    loops = {LOOP: partial(loop, False), f"{LOOP}, sorted by words": partial(loop, True)}
    runs: dict[str, Callable[[], float]] = {"ours": ours, **loops}
    seconds = interleaved(runs, args.repeats)
    details = {"layers": layers, "sentences": len(task), "threads": torch.get_num_threads()}
    for name in loops:
        as_many = f"{name}, {layers} times what one layer takes"
        for other, peer_name, times in (("the loop's one", name, 1), ("as many loops", as_many, layers)):
            what = f"features of all layers, {args.size}, {precision}, against {other}{name.removeprefix(LOOP)}"
            theirs = [times * one for one in seconds[name]]
            recorder.add(Row(what, "s", seconds["ours"], "lower", theirs, peer_name, details=details))


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

    seconds = interleaved({"ours": partial(seconds_of, ours), "peer": partial(seconds_of, peer)}, 3 * args.repeats)
    details = {
        "layers": features.shape[1],
        "penalties": len(PENALTIES),
        "rows": len(splits[0]),
        "largest difference of accuracies (points)": 100 * max(abs(a - b) for a, b in zip(own, others, strict=True)),
    }
    what, peer_name = f"logistic regressions of all layers, {args.size}", LOGISTIC
    recorder.add(Row(what, "s", seconds["ours"], "lower", seconds["peer"], peer_name, details=details))


def measure_memory(recorder: Recorder, args: Namespace) -> None:
    """The row of peak memory on ten times the rows."""
    runs = {copies: partial(alone, peak_of, args.file, args.vocab_size, int(copies)) for copies in ("1", "10")}
    found = interleaved(runs, args.repeats)
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


def peak_of(file: Path, pieces: int, copies: int) -> int:
    """Peak anonymous memory (bytes) of a whole probing, features to summary, of ``file`` repeated; for a process of its
    own.
    """
    torch.set_num_threads(1)
    encoder = build(read_task(file), "tiny", "none", pieces)
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / file.name
        with large.open("wb") as out:
            for copy in range(copies):  # the number keeps sentences apart
                with file.open("rb") as lines:
                    out.writelines(b"%s %d\n" % (line.rstrip(), copy) for line in lines if line.strip())
        given = GivenEncoder("model", encoder)  # a function is probed as a checkpoint is
        return _peak_while(lambda: probe({"model": given}, large, Path(folder) / "out"))


def _peak_while(work: Callable[[], object]) -> int:
    """Highest anonymous resident memory (bytes) of this process during a call, looked at every 10 ms."""
    found, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            found[0] = max(found[0], memory("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return found[0]


def main() -> None:
    """Measure and print one line a row."""
    parser = command_line(__doc__)
    parser.add_argument("file", type=Path, help="a task in SentEval's layout, 10k + 5k + 5k rows")
    parser.add_argument("--size", choices=_SIZES, default="small")
    parser.add_argument("--vocab-size", type=int, default=8000)
    parser.add_argument("--precisions", default="none,bf16")
    parser.add_argument("--repeats", type=int, default=1, help="of the features (probes: three times as many)")
    parser.add_argument("--only", choices=("features", "probes", "memory"))
    args = parser.parse_args()
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
