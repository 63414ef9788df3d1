#!/usr/bin/env python
"""Speed of corpus preparation, each row against its peer, interleaved, on the same text.

    python benchmarks/prepare.py [--text FILES...] [--megabytes 12] [--repeats 3] [--json FILE]

Row 1, "sentences to binarised data", sentencepiece model given: `scripts/prepare_corpus.py` against `spm_encode` and then
`fairseq-preprocess` with a worker a core, all as commands. Both are given with their start (imports) and without it, the start being
what the command takes on four lines of text. Where there is no `spm_encode` program, its Python equivalent runs in its place.

Row 2, "paragraphs to sentences": the reading stage (read, clean, split, hash, deduplicate, write) over all processes
against the splitting library alone in one process (read, split, write).

Text: files of running prose, a paragraph a line; by default the embedded corpus, gathered first. It is repeated up to
the size asked for, each copy made different so that nothing is dropped as a duplicate.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from machine import REPOSITORY
from record import Recorder, Row
from turns import interleaved, timed, without_start

from hmtl_plugin.commands.run import run_cli
from hmtl_plugin.parallel import cpu_count
from hmtl_plugin.preparation.prepare import PrepareOptions
from hmtl_plugin.preparation.python_prose import gather_python_prose
from hmtl_plugin.preparation.sources import gather_sources
from hmtl_plugin.preparation.splitting import SentenceSplitter
from hmtl_plugin.tokenizers.training import train_tokenizer

_SPM_ENCODE = """
import sys, sentencepiece
model = sentencepiece.SentencePieceProcessor(model_file=sys.argv[1])
with open(sys.argv[2], encoding="utf-8", newline="\\n") as text, open(sys.argv[3], "w", encoding="utf-8") as out:
    for line in text:
        out.write(" ".join(model.encode(line.rstrip("\\n"), out_type=str)) + "\\n")
"""
_LIBRARY = """
import sys, sentencex
with open(sys.argv[1], encoding="utf-8", newline="\\n") as text, open(sys.argv[2], "w", encoding="utf-8") as out:
    for line in text:
        out.write("\\n".join(sentencex.segment("en", line.rstrip("\\n"))) + "\\n")
"""


def make_text(sources: list[Path], target: Path, size: int) -> None:
    """Repeat the sources up to `size` bytes; every document begins with a number of its own: none is a duplicate."""
    written = number = 0
    starts = True
    with target.open("w", encoding="utf-8", newline="\n") as out:
        while written < size:
            for source in sources:
                with source.open(encoding="utf-8", newline="\n") as file:
                    for line in file:
                        if not (paragraph := " ".join(line.split())):
                            starts = True
                            continue
                        if starts and written >= size:
                            return
                        number += starts
                        text = f"{paragraph}\n" if not starts else f"\n{number} {paragraph}\n"
                        written += out.write(text.lstrip("\n") if number == 1 else text)
                        starts = False
            starts = True


def prepare(text: Path, model: Path, folder: Path) -> float:
    """Our command from sentences to binarised data."""
    script = REPOSITORY / "scripts" / "prepare_corpus.py"
    out = folder / "ours"
    options: list[str | Path] = [
        "--format",
        "sentences",
        "--tokenizer",
        model,
        "--valid-fraction",
        "0",
        "--out",
        out,
        "--overwrite",
    ]
    return timed([sys.executable, script, text, *options])


def peer(text: Path, model: Path, dictionary: Path, folder: Path) -> float:
    """`spm_encode`, then `fairseq-preprocess` with as many processes as ours."""
    pieces = folder / "pieces.txt"
    if program := shutil.which("spm_encode"):
        encode: list[str | Path] = [program, f"--model={model}", f"--output={pieces}", text]
    else:
        encode = [sys.executable, "-c", _SPM_ENCODE, model, text, pieces]
    seconds = timed(encode)
    options: list[str | Path] = [
        "--only-source",
        "--workers",
        str(cpu_count()),
        "--srcdict",
        dictionary,
        "--trainpref",
        pieces,
    ]
    shutil.rmtree(folder / "theirs", ignore_errors=True)
    command = [sys.executable, "-m", "fairseq_cli.preprocess", *options, "--destdir", folder / "theirs"]
    return seconds + timed(command)


def split_ours(text: Path, folder: Path) -> float:
    """Our reading stage, in this process and its workers."""
    part = folder / "spool"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    started = time.perf_counter()
    gather_sources([str(text)], part, PrepareOptions("paragraphs"), cpu_count())
    return time.perf_counter() - started


def split_library(text: Path, folder: Path) -> float:
    """The library alone: read, split, write, in a process of its own; its start not counted."""
    command: list[str | Path] = [sys.executable, "-c", _LIBRARY, text, folder / "split.txt"]
    return timed(command) - timed([sys.executable, "-c", "import sentencex"])


def to_sentences(text: Path, target: Path) -> None:
    """The text as ``--format sentences``."""
    splitter = SentenceSplitter()
    with text.open(encoding="utf-8", newline="\n") as file, target.open("w", encoding="utf-8", newline="\n") as out:
        for line in file:
            out.write(splitter.split_lines([line.strip()]) + "\n")


def measure(recorder: Recorder, sources: list[Path], folder: Path, megabytes: float, repeats: int) -> None:
    """Both rows, into the record and onto the terminal."""
    text, sentences, few = folder / "paragraphs.txt", folder / "sentences.txt", folder / "few.txt"
    make_text(sources, text, int(megabytes * 1e6))
    to_sentences(text, sentences)
    with sentences.open(encoding="utf-8") as file:
        lines = [line.strip() for line in file if line.strip()]
    few.write_text("\n".join(lines[:4]) + "\n", encoding="utf-8")
    model = folder / "model"
    model.write_bytes(train_tokenizer(lines[:: max(1, len(lines) // 50_000)], 8000))
    prepare(few, model, folder)
    dictionary = folder / "dict.txt"
    shutil.copy(folder / "ours" / "dict.txt", dictionary)
    seconds = interleaved(
        {
            "ours start": lambda: prepare(few, model, folder),
            "peer start": lambda: peer(few, model, dictionary, folder),
            "ours": lambda: prepare(sentences, model, folder),
            "peer": lambda: peer(sentences, model, dictionary, folder),
            "split ours": lambda: split_ours(text, folder),
            "split library": lambda: split_library(text, folder),
        },
        repeats,
    )
    same = all(
        (folder / "ours" / f"train.{suffix}").read_bytes() == (folder / "theirs" / f"train.{suffix}").read_bytes()
        for suffix in ("bin", "idx")
    )
    bytes_of = {"sentences": sentences.stat().st_size, "paragraphs": text.stat().st_size}
    spm_encode = "spm_encode" if shutil.which("spm_encode") else "sentencepiece encoding line by line"
    binarised = Row(
        "sentences to binarised data, start-up left out",
        "bytes/s",
        [bytes_of["sentences"] / net for net in without_start(seconds, "ours")],
        peer=[bytes_of["sentences"] / net for net in without_start(seconds, "peer")],
        peer_name=f"{spm_encode}, then fairseq-preprocess --workers {cpu_count()}",
        details={
            "MB": bytes_of["sentences"] / 1e6,
            "processes": cpu_count(),
            "files identical": same,
            "times better with start-up": statistics.median(seconds["peer"]) / statistics.median(seconds["ours"]),
        },
    )
    split = Row(
        "paragraphs to sentences",
        "bytes/s",
        [bytes_of["paragraphs"] / run for run in seconds["split ours"]],
        peer=[bytes_of["paragraphs"] / run for run in seconds["split library"]],
        peer_name="sentencex alone in one process, without cleaning and deduplication",
        details={"MB": bytes_of["paragraphs"] / 1e6, "processes": cpu_count()},
    )
    recorder.add(binarised)
    recorder.add(split)


def main() -> None:
    """Measure and print."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--text", nargs="+", type=Path, metavar="FILE", help="paragraphs, one a line")
    p.add_argument("--megabytes", type=float, default=12.0)
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--json", type=Path, metavar="FILE")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as name, Recorder("prepare", args.json) as recorder:
        folder = Path(name)
        sources = args.text or [gather_python_prose(folder / "embedded.txt", max_megabytes=3).path]
        measure(recorder, sources, folder, args.megabytes, args.repeats)


if __name__ == "__main__":
    run_cli(main)
