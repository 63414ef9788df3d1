#!/usr/bin/env python
"""Speed of corpus preparation, each row against its peer, interleaved, on the same text.

    python benchmarks/prepare.py [--text FILES...] [--megabytes 12] [--repeats 3] [--json FILE]

Row 1, "sentences to binarised data", sentencepiece model given: `scripts/prepare_corpus.py` against `spm_encode` and
then `fairseq-preprocess` with a worker a core, all as commands. Both are given with their start (imports) and without
it, the start being what the command takes on four lines of text. Where there is no `spm_encode` program, its Python
equivalent runs in its place.

Row 2, "paragraphs to sentences": the reading stage (read, clean, split, hash, deduplicate, write) over all processes
against the splitting library alone in one process (read, split, write).

Text: files of running prose, a paragraph a line; by default the embedded corpus, gathered first. It is repeated up to
the size asked for, each copy made different so that nothing is dropped as a duplicate.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import cycle, groupby
from pathlib import Path

from machine import REPOSITORY
from record import Recorder, Row, command_line
from turns import Command, interleaved, row_without_start, seconds_of, timed

from hmtl_plugin.commands.run import run_cli
from hmtl_plugin.parallel import cpu_count
from hmtl_plugin.preparation.prepare import PrepareOptions
from hmtl_plugin.preparation.python_prose import gather_python_prose
from hmtl_plugin.preparation.sources import gather_sources
from hmtl_plugin.preparation.splitting import SentenceSplitter
from hmtl_plugin.tokenizers.training import train_tokenizer

SIDES = ("ours", "theirs")
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
    written = 0
    with target.open("w", encoding="utf-8", newline="\n") as out:
        for number, document in enumerate(documents(sources), 1):
            written += out.write(f"{number} {document}\n\n")
            if written >= size:
                return


def documents(sources: list[Path]) -> Iterator[str]:
    """Paragraphs without a blank line between them, again and again."""
    for source in cycle(sources):
        with source.open(encoding="utf-8", newline="\n") as file:
            for filled, paragraphs in groupby(map(str.split, file), bool):
                if filled:
                    yield "\n".join(map(" ".join, paragraphs))


def prepare(text: Path, model: Path, folder: Path) -> float:
    """Our command from sentences to binarised data."""
    options = "--format sentences --valid-fraction 0 --overwrite".split()
    places: Command = [text, "--tokenizer", model, "--out", folder / "ours"]
    return timed([sys.executable, REPOSITORY / "scripts" / "prepare_corpus.py", *places, *options])


def peer(text: Path, model: Path, dictionary: Path, folder: Path) -> float:
    """`spm_encode`, then `fairseq-preprocess` with as many processes as ours."""
    pieces = folder / "pieces.txt"
    if program := shutil.which("spm_encode"):
        encode: Command = [program, f"--model={model}", f"--output={pieces}", text]
    else:
        encode = [sys.executable, "-c", _SPM_ENCODE, model, text, pieces]
    shutil.rmtree(folder / "theirs", ignore_errors=True)
    places: Command = ["--srcdict", dictionary, "--trainpref", pieces, "--destdir", folder / "theirs"]
    options = f"-m fairseq_cli.preprocess --only-source --workers {cpu_count()}".split()
    return timed(encode) + timed([sys.executable, *options, *places])


def split_ours(text: Path, folder: Path) -> float:
    """Our reading stage, in this process and its workers."""
    spool = folder / "spool"
    shutil.rmtree(spool, ignore_errors=True)
    spool.mkdir()
    return seconds_of(lambda: gather_sources([str(text)], spool, PrepareOptions("paragraphs"), cpu_count()))


def split_library(text: Path, folder: Path) -> float:
    """The library alone: read, split, write, in a process of its own; its start not counted."""
    command: Command = [sys.executable, "-c", _LIBRARY, text, folder / "split.txt"]
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
    runs: dict[str, Callable[[], float]] = {
        "ours start": lambda: prepare(few, model, folder),
        "peer start": lambda: peer(few, model, dictionary, folder),
        "ours": lambda: prepare(sentences, model, folder),
        "peer": lambda: peer(sentences, model, dictionary, folder),
        "split ours": lambda: split_ours(text, folder),
        "split library": lambda: split_library(text, folder),
    }
    seconds = interleaved(runs, repeats)
    written = [[(folder / side / f"train.{suffix}").read_bytes() for suffix in ("bin", "idx")] for side in SIDES]
    encoder = "spm_encode" if shutil.which("spm_encode") else "sentencepiece encoding line by line"
    what, peer_name = "sentences to binarised data", f"{encoder}, then fairseq-preprocess --workers {cpu_count()}"
    identical = {"files identical": written[0] == written[1]}
    recorder.add(row_without_start(what, seconds, sentences.stat().st_size, peer_name, identical))
    size = text.stat().st_size
    speeds = {name: [size / run for run in seconds[name]] for name in ("split ours", "split library")}
    recorder.add(
        Row(
            "paragraphs to sentences",
            "bytes/s",
            speeds["split ours"],
            peer=speeds["split library"],
            peer_name="sentencex alone in one process, without cleaning and deduplication",
            details={"MB": size / 1e6, "processes": cpu_count()},
        )
    )


def main() -> None:
    """Measure and print one line a row."""
    parser = command_line(__doc__)
    parser.add_argument("--text", nargs="+", type=Path, metavar="FILE", help="paragraphs, one a line")
    parser.add_argument("--megabytes", type=float, default=12.0)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Recorder("prepare", args.json) as recorder:
        folder = Path(name)
        sources = args.text or [gather_python_prose(folder / "embedded.txt", max_megabytes=3).path]
        measure(recorder, sources, folder, args.megabytes, args.repeats)


if __name__ == "__main__":
    run_cli(main)
