#!/usr/bin/env python
"""Speed of preparing GLUE's SST-2 and QQP for fine-tuning, against fairseq's own way, interleaved, on the same files.

    python benchmarks/glue_prepare.py --glue-dir DIR [--copies 1] [--repeats 3] [--json FILE]

"SST-2 and QQP files to binarised data": `scripts/prepare_glue.py CHECKPOINT SST-2 QQP` against the steps of fairseq's
examples/roberta/preprocess_GLUE_tasks.sh: cut the columns out, encode each line by line in several processes (as its
multiprocessing_bpe_encoder does, with its sentencepiece encoder and our model in place of GPT-2's), then
`fairseq-preprocess --only-source --workers N` for each sentence column and the label, N the cores, as ours has. All as
commands; both are given with their start (imports, one for ours, twelve or more for theirs) and without it, the start
being what the same commands take on four rows of each file.

Files: DIR/SST-2 and DIR/QQP as published; a missing test.tsv is left out of both; --copies N repeats the rows of each N
times. Byte order marks within the text are taken out before: ours drops them, sentencepiece makes spaces of them. The
checkpoint holds a tokenizer trained on them and no weights: prepare_glue.py reads no others. What both sides wrote is
compared: the sentences byte for byte, the labels by name, as fairseq-preprocess numbers these by frequency.
"""

import shlex
import shutil
import sys
import tempfile
from codecs import BOM_UTF8
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from fairseq.data import Dictionary
from machine import REPOSITORY
from record import Recorder, Row, command_line
from turns import Seconds, interleaved, row_without_start, timed

import hmtl_plugin  # noqa: F401
from hmtl_plugin.commands.run import run_cli
from hmtl_plugin.errors import UserError
from hmtl_plugin.glue.files import GlueFile, find_files, read_rows
from hmtl_plugin.glue.tasks import TASKS, GlueTask
from hmtl_plugin.parallel import cpu_count
from hmtl_plugin.tokenizers.sentencepiece import SentencePieceTokenizer
from hmtl_plugin.tokenizers.training import train_tokenizer
from hmtl_plugin.tokenizers.vocabulary_state import vocabulary_state

BENCHMARKED = (TASKS["SST-2"], TASKS["QQP"])
PIECES = 8000
_ENCODE = """
import argparse, multiprocessing, sys
from fairseq.data.encoders.sentencepiece_bpe import SentencepieceBPE

def start():
    global bpe
    options = dict(sentencepiece_model=sys.argv[1], sentencepiece_enable_sampling=False, sentencepiece_alpha=None)
    bpe = SentencepieceBPE(argparse.Namespace(**options))

def encode(line):
    return bpe.encode(line.strip())

with open(sys.argv[2], encoding="utf-8") as lines, open(sys.argv[3], "w", encoding="utf-8") as out:
    with multiprocessing.Pool(int(sys.argv[4]), start) as pool:
        for pieces in pool.imap(encode, lines, 100):
            print(pieces, file=out)
"""


class Sample:
    """Files of both tasks in a folder of their own, cut to ``rows`` rows each or repeated ``copies`` times."""

    def __init__(self, glue_dir: Path, folder: Path, rows: int | None = None, copies: int = 1) -> None:
        self.glue_dir, self.bytes = folder / "glue", 0
        for task in BENCHMARKED:
            (self.glue_dir / task.name).mkdir(parents=True)
            for file in find_files(task, glue_dir):
                with open(file.path, "rb") as source:
                    header, body = source.read(file.header_bytes), source.read().replace(BOM_UTF8, b"")
                if rows is not None:
                    body = b"".join(body.splitlines(keepends=True)[:rows])
                content = header + (body if body.endswith(b"\n") else body + b"\n") * copies
                self.bytes += (self.glue_dir / task.name / Path(file.path).name).write_bytes(content)
        self.files = [(task, find_files(task, self.glue_dir)) for task in BENCHMARKED]
        self.ours, self.theirs = folder / "ours", folder / "theirs"


def prepare(sample: Sample, checkpoint: Path) -> float:
    """Our command."""
    shutil.rmtree(sample.ours, ignore_errors=True)
    names = [task.name for task in BENCHMARKED]
    script = REPOSITORY / "scripts" / "prepare_glue.py"
    return timed([sys.executable, script, checkpoint, *names, "--glue-dir", sample.glue_dir, "--out", sample.ours])


def peer(sample: Sample, model: Path, dictionary: Path) -> float:
    """The steps of fairseq's script."""
    shutil.rmtree(sample.theirs, ignore_errors=True)
    return sum(_peer_task(task, files, sample.theirs / task.name, model, dictionary) for task, files in sample.files)


def _peer_task(task: GlueTask, files: list[GlueFile], out: Path, model: Path, dictionary: Path) -> float:
    out.mkdir(parents=True)
    columns = [f"input{i}" for i in range(len(task.text))]
    seconds = 0.0
    for file in files:
        rows = f"tail -n +2 {shlex.quote(file.path)}"
        if task.skip_broken:
            rows += f" | awk -F '\\t' 'NF=={file.width}'"
        cut = zip((*columns, "label"), (*file.text, file.label))
        commands = [
            f"{rows} | cut -f{int(number) + 1} > {shlex.quote(str(out / file.split))}.{name}"
            for name, number in cut
            if number is not None
        ]
        seconds += timed(["bash", "-c", "; ".join(commands)])
        for column in columns:
            raw = out / f"{file.split}.{column}"
            seconds += timed([sys.executable, "-c", _ENCODE, model, raw, f"{raw}.pieces", str(cpu_count())])
    for column in columns:
        seconds += _preprocess(files, out, column, ".pieces", ["--srcdict", dictionary])
    return seconds + _preprocess([file for file in files if file.label is not None], out, "label", "", [])


def _preprocess(files: list[GlueFile], out: Path, column: str, suffix: str, options: list[str | Path]) -> float:
    for file in files:
        options = [*options, f"--{file.split}pref", out / f"{file.split}.{column}{suffix}"]
    command = f"-m fairseq_cli.preprocess --only-source --workers {cpu_count()}".split()
    return timed([sys.executable, *command, *options, "--destdir", out / column])


def differences(sample: Sample) -> list[str]:
    """Files in which what both sides wrote is not the same."""
    found = []
    for task, files in sample.files:
        ours, theirs = sample.ours / task.name, sample.theirs / task.name
        for file in files:
            for name in (f"input{i}/{file.split}.{suffix}" for i in range(len(task.text)) for suffix in ("bin", "idx")):
                if (ours / name).read_bytes() != (theirs / name).read_bytes():
                    found.append(f"{task.name}/{name}")
            if file.label is not None and _labels(ours, file.split) != _labels(theirs, file.split):
                found.append(f"{task.name}/label/{file.split}")
    return found


def _labels(folder: Path, split: str) -> list[str]:
    dictionary = Dictionary.load(str(folder / "label" / "dict.txt"))
    return [dictionary[i] for i in np.fromfile(folder / "label" / f"{split}.bin", dtype=np.uint16)]


def make_checkpoint(sample: Sample, folder: Path) -> tuple[Path, Path, Path]:
    """A checkpoint with a tokenizer for these files inside, the tokenizer's model, and its dictionary."""
    texts: list[str] = []
    for task, files in sample.files:
        for span in files[0].spans():
            for column in read_rows(task, files[0], span).texts:
                texts += column
    tokenizer = SentencePieceTokenizer(train_tokenizer(texts[:: max(1, len(texts) // 50_000)], PIECES))
    dictionary = tokenizer.dictionary()
    checkpoint, model, dict_txt = folder / "checkpoint.pt", folder / "model", folder / "dict.txt"
    state = {"cfg": {"model": {}}, "model": {}, "task_state": vocabulary_state(dictionary, tokenizer)}
    torch.save(state, checkpoint)
    model.write_bytes(tokenizer.to_bytes())
    dictionary.save(str(dict_txt))
    return checkpoint, model, dict_txt


def measure(recorder: Recorder, glue_dir: Path, folder: Path, copies: int, repeats: int) -> None:
    """The row.

    Raises:
        UserError: if both sides do not write the same.
    """
    few, whole = Sample(glue_dir, folder / "few", rows=4), Sample(glue_dir, folder / "whole", copies=copies)
    (folder / "checkpoint").mkdir()
    checkpoint, model, dictionary = make_checkpoint(whole, folder / "checkpoint")
    runs: dict[str, Callable[[], float]] = {
        "ours start": lambda: prepare(few, checkpoint),
        "peer start": lambda: peer(few, model, dictionary),
        "ours": lambda: prepare(whole, checkpoint),
        "peer": lambda: peer(whole, model, dictionary),
    }
    seconds = interleaved(runs, repeats)
    if different := differences(whole):
        raise UserError(f"{glue_dir}: both sides do not write the same: {', '.join(different)}")
    recorder.add(row(seconds, whole.bytes))


def row(seconds: Seconds, size: int) -> Row:
    """Of commands and their starts, for ``size`` bytes of files."""
    what = "SST-2 and QQP files to binarised data"
    peer_name = f"fairseq's encoder, then fairseq-preprocess, each --workers {cpu_count()}"
    return row_without_start(what, seconds, size, peer_name, {"what is written is the same": True})


def main() -> None:
    """Measure and print the row."""
    parser = command_line(__doc__)
    parser.add_argument("--glue-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument("--copies", type=int, default=1, metavar="N", help="of each file's rows (default 1)")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Recorder("glue_prepare", args.json) as recorder:
        measure(recorder, args.glue_dir, Path(name), args.copies, args.repeats)


if __name__ == "__main__":
    run_cli(main)
