"""Text as real dumps have it: records without text, lines that end in CR alone, JSON that no UTF-8 can hold."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hmtl_plugin.data.manifest import read_manifest
from hmtl_plugin.errors import UserError
from hmtl_plugin.preparation.readers.text import SPAN_BYTES, spans
from hmtl_plugin.tokenizers.base import UNK
from tests.commands.running import run_script
from tests.conftest import REPOSITORY
from tests.preparation.texts import documents, read_items

DOCS = documents(12)


def prepare(file: Path, out: Path, format: str, tokenizer: str, *more: str | Path) -> None:
    options = ["--format", format, "--tokenizer", tokenizer, "--workers", "1", "--valid-fraction", "0", *more]
    run_script("prepare_corpus", file, "--out", out, *options)


def content(format: str) -> str:
    """`DOCS` in a format."""
    if format == "jsonl":
        return "".join(json.dumps({"text": "\n".join(doc)}) + "\n" for doc in DOCS)
    if format == "pairs":
        return "sentence1\tsentence2\n" + "".join(f"{doc[0]}\t{doc[-1]}\n" for doc in DOCS)
    if format == "nli-jsonl":
        return "".join(json.dumps({"sentence1": doc[0], "sentence2": doc[-1]}) + "\n" for doc in DOCS)
    return "\n\n".join("\n".join(doc) for doc in DOCS) + "\n"


@pytest.mark.parametrize("format", ["sentences", "paragraphs", "documents", "jsonl", "pairs", "nli-jsonl"])
@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_lines_may_end_as_they_like(format: str, end: str, tmp_path: Path, tokenizer: str) -> None:
    """Of CR alone, all sentences of a file became one document, or its lines one JSON that was none."""
    for name, text in (("lf", content(format)), ("other", content(format).replace("\n", end))):
        (tmp_path / name).write_bytes(text.encode())
        prepare(tmp_path / name, tmp_path / f"{name}.out", format, tokenizer)
    assert read_items(tmp_path / "other.out" / "train") == read_items(tmp_path / "lf.out" / "train")
    manifest = read_manifest(tmp_path / "other.out")
    assert manifest is not None and manifest["splits"]["train"]["sentences"] > 20


def test_excluded_sentences_of_such_a_file(tmp_path: Path, tokenizer: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text(content("sentences"))
    for name, text in (("t.txt", content("sentences")), ("t.jsonl", content("jsonl")), ("t.tsv", content("pairs"))):
        (tmp_path / name).write_bytes(text.replace("\n", "\r").encode())
        with pytest.raises(UserError, match="no documents left: all 12 share a sentence"):
            prepare(tmp_path / "text", tmp_path / "out", "sentences", tokenizer, "--exclude", tmp_path / name)


def test_a_long_file_of_such_lines_is_read_in_pieces(tmp_path: Path) -> None:
    line = b"a sentence of some words\r"
    (tmp_path / "t").write_bytes(line * (5 * SPAN_BYTES // 2 // len(line)))
    found = list(spans(str(tmp_path / "t")))
    assert len(found) == 3 and all(span.bytes().endswith(b"\n") for span in found)
    assert b"".join(span.bytes() for span in found) == (tmp_path / "t").read_bytes().replace(b"\r", b"\n")


def test_a_carriage_return_within_a_line_is_a_blank(tmp_path: Path, tokenizer: str) -> None:
    for name, text in (("one", "a\rb c.\nanother.\n"), ("two", "a b c.\nanother.\n")):
        (tmp_path / name).write_bytes(text.encode())
        prepare(tmp_path / name, tmp_path / f"{name}.out", "sentences", tokenizer)
    assert read_items(tmp_path / "one.out" / "train") == read_items(tmp_path / "two.out" / "train")


@pytest.mark.parametrize("field", ["text", "page.text"])
def test_records_without_text_are_left_out_and_counted(
    field: str, tmp_path: Path, tokenizer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["One cat.", None, "Two cats.", "", " \n", None]
    records = [{"text": text} if field == "text" else {"page": {"text": text}} for text in texts]
    records[-1] = records[-1] if field == "text" else {"page": None}
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    prepare(tmp_path / "t.jsonl", tmp_path / "out", "jsonl", tokenizer, "--text-field", field)
    assert "train 2 documents" in (said := capsys.readouterr().out) and "4 documents without text" in said
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None and manifest["empty_documents"] == 4


@pytest.mark.parametrize(
    ("format", "text", "message"),
    [
        ("jsonl", '{"text": "a"}\n{"text": "b \\ud83d c"}\n', r"line 2: half of a surrogate pair \(\\ud83d\)"),
        ("nli-jsonl", '{"sentence1": "a", "sentence2": "\\uDE00"}\n', r"line 1: half of a surrogate pair"),
        ("squad", '{"data": [{"paragraphs": [{"context": "\\ud83d"}]}]}', "t: half of a surrogate pair"),
        ("jsonl", '{"text": "a"}\n{"text": ' + "[" * 5000 + "]" * 5000 + "}\n", "line 2 is not JSON"),
        ("squad", '{"data": [' + "[" * 5000 + "]" * 5000 + "]}", "not JSON or truncated"),
        ("squad", '{"data": [{"paragraphs": [{"context": "a", "qas": 3}]}]}', '"qas" of a paragraph is no list'),
        ("jsonl", '{"title": "a", "text": 3}\n', "line 1 has no text in field 'text'; its text fields: title"),
        ("jsonl", '{"title": "a"}\n', "line 1 has no text in field 'text'; its text fields: title"),
    ],
)
def test_odd_json_is_one_line(format: str, text: str, message: str, tmp_path: Path, tokenizer: str) -> None:
    (tmp_path / "t").write_text(text)
    with pytest.raises(UserError, match=message):
        prepare(tmp_path / "t", tmp_path / "out", format, tokenizer)


def test_whole_surrogate_pairs_are_characters(tmp_path: Path, tokenizer: str) -> None:
    (tmp_path / "t").write_text('{"text": "a cat \\ud83d\\ude00."}\n')
    prepare(tmp_path / "t", tmp_path / "out", "jsonl", tokenizer)


@pytest.mark.parametrize(("model_type", "vocabulary"), [("unigram", 320), ("bpe", 320), ("wordpiece", 305)])
def test_training_reads_long_runs_without_a_blank(model_type: str, vocabulary: int, tmp_path: Path) -> None:
    """sentencepiece drops a sentence of more than 4,192 bytes, here nearly all of the text, whose characters became
    unknown.
    """
    random = np.random.default_rng(0)

    def run(length: int) -> str:
        return "".join(map(chr, 0x4E00 + random.integers(0, 300, length)))

    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"{run(12)}\n{run(1400)}" for _ in range(20)) + "\n", encoding="utf-8")
    out = tmp_path / "data"
    options = ("--format", "sentences", "--vocab-size", str(vocabulary), "--valid-fraction", "0", "--workers", "1")
    run_script("prepare_corpus", text, "--out", out, "--model-type", model_type, *options)
    ids = np.frombuffer((out / "train.bin").read_bytes(), dtype="<u2")
    assert len(ids) > 20 * 1000
    assert np.mean(ids == UNK) < 0.01


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_training_reads_sentences_with_a_character_of_sentencepieces_own(model_type: str, tmp_path: Path) -> None:
    """It drops every sentence that holds U+2585, as bars made of block characters do."""
    lines = [f"the cat sees a dog {n}" if n % 2 else f"\u732b\u72d7\u5403\u7c73\u996d \u2585 {n}" for n in range(200)]
    (tmp_path / "t").write_text("\n\n".join(lines), encoding="utf-8")
    options = ("--format", "sentences", "--vocab-size", "40", "--valid-fraction", "0", "--workers", "1")
    run_script("prepare_corpus", tmp_path / "t", "--out", tmp_path / "d", "--model-type", model_type, *options)
    ids = np.frombuffer((tmp_path / "d" / "train.bin").read_bytes(), dtype="<u2")
    assert np.count_nonzero(ids == UNK) <= 100  # the character itself, once a line


def test_words_that_are_too_long_for_wordpiece_are_named(tmp_path: Path) -> None:
    """BERT's rule; the message held whole sentences, and advised to train the tokenizer that had just been trained."""
    random = np.random.default_rng(0)
    lines = ["".join(random.choice(list("\u0e01\u0e02\u0e04\u0e07\u0e08"), 150)) for _ in range(40)]
    (tmp_path / "t").write_text("\n".join(lines), encoding="utf-8")
    options = ("--format", "sentences", "--vocab-size", "30", "--valid-fraction", "0", "--workers", "1")
    with pytest.raises(UserError, match="give --model-type unigram") as error:
        run_script("prepare_corpus", tmp_path / "t", "--out", tmp_path / "d", "--model-type", "wordpiece", *options)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("before", ["train_tokenizer(lines, 60)", "import torch; torch.rand(1_000_000).exp().sum()"])
def test_preparation_in_a_process_that_has_computed_in_parallel(before: str, tmp_path: Path) -> None:
    """A fork of it that trains waited for OpenMP's threads, which a fork does not have."""
    script = (
        "import sys; from hmtl_plugin.tokenizers.training import train_tokenizer\n"
        "from hmtl_plugin.preparation.prepare import PrepareOptions, prepare_corpus\n"
        f"lines = open(sys.argv[1]).read().split('\\n'); {before}\n"
        "prepare_corpus([sys.argv[1]], sys.argv[2], PrepareOptions('sentences', vocab_size=60, workers=1))"
    )
    text = "\n\n".join(f"The cat number {n} sees a dog and {7 * n} birds." for n in range(3000))
    (tmp_path / "t").write_text(text)
    command = [sys.executable, "-c", script, tmp_path / "t", tmp_path / "out"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "2"}
    subprocess.run(command, check=True, timeout=60, env=environment)
    assert (tmp_path / "out" / "train.bin").is_file()


@pytest.mark.slow
def test_names_of_files_may_be_no_text(tmp_path: Path, tokenizer: str) -> None:
    """Bytes that are no UTF-8 on the command line, which Python holds as halves of surrogate pairs."""
    source, out = os.fsencode(tmp_path) + b"/t\xff.txt", os.fsencode(tmp_path) + b"/d\xff"
    with open(source, "w", encoding="utf-8") as file:
        file.write(content("sentences"))
    command = [sys.executable, str(REPOSITORY / "scripts" / "prepare_corpus.py"), source, "--out", out]
    command += ["--format", "sentences", "--tokenizer", tokenizer, "--workers", "1"]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
        assert done.returncode == 0, done.stderr
    assert b"already prepared" in done.stdout and b"d\\udcff" in done.stdout
    done = subprocess.run(
        [*command, "--seed", "2"], capture_output=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    assert (
        done.returncode == 1 and b"other options (seed was 1, is 2)" in done.stderr and b"Traceback" not in done.stderr
    )
