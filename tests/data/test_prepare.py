"""The whole of corpus preparation: formats, what is dropped, what is refused, what is left behind."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hmtl_plugin.data import binarise, gather, prepare
from hmtl_plugin.data.prepare_options import PrepareOptions
from hmtl_plugin.data.readers import text as text_reader
from hmtl_plugin.data.sources import gather_sources
from hmtl_plugin.errors import UserError
from tests.data.texts import documents, read_documents, read_items, write_sentences
from tests.data.texts import prepare as run

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = documents(60)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tokenizer that knows all characters of these tests."""
    folder = tmp_path_factory.mktemp("tokenizer")
    extra = ["ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz 0123456789 .,?!'\"-:;()\u00e9"] * 3
    source = write_sentences(folder / "t.txt", [*DOCS, extra])
    out = run([source], folder / "d", vocab_size=150, character_coverage=1.0).folder
    return str(out / "sentencepiece.bpe.model")


def left_behind(out: Path) -> list[str]:
    """What stands beside or in `out` of a run that failed."""
    return [path.name for path in out.parent.iterdir() if path.name.startswith(out.name)]


def test_every_document_arrives_in_order(tmp_path: Path, tokenizer: str) -> None:
    summary = run([write_sentences(tmp_path / "t", DOCS)], tmp_path / "d", tokenizer=tokenizer)
    assert read_documents(summary.folder) == DOCS
    assert summary.manifest["splits"]["train"]["documents"] == len(DOCS)
    assert sorted(p.name for p in summary.folder.iterdir()) == [
        "corpus.json",
        "dict.txt",
        "sentencepiece.bpe.model",
        "train.bin",
        "train.idx",
    ]
    assert f"train {len(DOCS)} documents" in str(summary)


@pytest.mark.parametrize("span_bytes", [50, 700])
@pytest.mark.parametrize("workers", [1, 2])
def test_result_depends_on_neither_workers_nor_spans(
    workers: int, span_bytes: int, tmp_path: Path, tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = [*DOCS[:30], DOCS[3], *DOCS[30:], DOCS[0], DOCS[59]]  # repeated ones also span pieces of the file
    source = write_sentences(tmp_path / "t", docs)
    plain = run([source], tmp_path / "plain", tokenizer=tokenizer, valid_fraction=0.2)
    for module in (text_reader, gather):
        monkeypatch.setattr(module, "SPAN_BYTES", span_bytes)
    other = run([source], tmp_path / "other", tokenizer=tokenizer, valid_fraction=0.2, workers=workers)
    for name in ("train.bin", "train.idx", "valid.bin", "valid.idx", "dict.txt", "corpus.json"):
        assert (plain.folder / name).read_bytes() == (other.folder / name).read_bytes()
    assert other.manifest["duplicate_documents"] == 3
    assert read_documents(other.folder) + read_documents(other.folder, "valid") != DOCS
    both = read_documents(other.folder) + read_documents(other.folder, "valid")
    assert sorted(both) == sorted(DOCS)


def test_a_dropped_document_leaves_no_trace_in_the_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than a span, it was written before its end showed it to be a duplicate."""
    for module in (text_reader, gather):
        monkeypatch.setattr(module, "SPAN_BYTES", 40)
    docs = [*DOCS[:5], *documents(1, seed=4, length=1), DOCS[1] * 3, DOCS[1] * 3]
    source = write_sentences(tmp_path / "t", docs)
    spool = gather_sources([str(source)], tmp_path, PrepareOptions("sentences"), workers=1)
    assert spool.text.read_bytes() == write_sentences(tmp_path / "kept", docs[:-1]).read_bytes()
    assert spool.size == spool.text.stat().st_size
    assert spool.keys.stat().st_size == 8 * spool.documents == 8 * len(docs[:-1])
    assert max(place for place, _ in spool.starts) <= spool.size


def test_duplicates_are_found_through_case_and_breaks(tmp_path: Path, tokenizer: str) -> None:
    text = "One line here.\nTwo lines here.\n\nONE LINE HERE.  Two lines -- here\n\nOther.\n"
    (tmp_path / "t").write_text(text)
    summary = run([tmp_path / "t"], tmp_path / "d", tokenizer=tokenizer)
    assert read_documents(summary.folder) == [["One line here.", "Two lines here."], ["Other."]]
    assert summary.manifest["duplicate_documents"] == 1


def test_split_is_by_document_and_stable(tmp_path: Path, tokenizer: str) -> None:
    def valid(docs: list[list[str]], out: str, seed: int = 1) -> list[list[str]]:
        source = write_sentences(tmp_path / f"{out}.txt", docs)
        folder = run([source], tmp_path / out, tokenizer=tokenizer, valid_fraction=0.2, seed=seed).folder
        held_out, train = read_documents(folder, "valid"), read_documents(folder)
        assert sorted(held_out + train) == sorted(docs)
        return held_out

    first = valid(DOCS, "a")
    assert 3 <= len(first) <= 25
    assert [doc for doc in valid(DOCS[20:] + DOCS[:20], "b") if doc in first] != []
    assert sorted(valid(DOCS[20:] + DOCS[:20], "c")) == sorted(first)
    more = valid(DOCS + documents(30, seed=9), "e")
    assert all(doc in more for doc in first)
    assert sorted(valid(DOCS, "f", seed=2)) != sorted(first)


def test_exclude_drops_documents_that_share_a_sentence(tmp_path: Path, tokenizer: str) -> None:
    source = write_sentences(tmp_path / "t", DOCS)
    evaluation = tmp_path / "dev.tsv"
    shared = [DOCS[4][0], DOCS[9][-1]]
    rows = [f"{shared[0].upper()}\tunseen thing", f"a b\t Before it. {shared[1]} After it."]
    evaluation.write_text("index\tsentence1\tsentence2\n" + "".join(f"{i}\t{row}\n" for i, row in enumerate(rows)))
    summary = run([source], tmp_path / "d", tokenizer=tokenizer, exclude=(str(evaluation),))
    expected = [doc for doc in DOCS if not set(doc) & set(shared)]
    assert len(expected) < len(DOCS)
    assert read_documents(summary.folder) == expected
    assert summary.manifest["excluded_documents"] == len(DOCS) - len(expected)
    assert "2 excluded documents" in str(summary)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dev.tsv", "sentence\tlabel\n{}\t1\n"),  # SST-2
        ("cola.tsv", "gj04\t1\t\t{}\n"),
        ("dev.jsonl", '{{"sentence1": "x", "sentence2": "{}"}}\n'),
        ("docs.jsonl", '{{"id": 3, "body": "First. {} Last."}}\n'),
        ("dev.json", '{{"data": [{{"paragraphs": [{{"context": "Yes. {}", "qas": []}}]}}]}}'),
        ("question.json", '{{"data": [{{"paragraphs": [{{"context": "Yes.", "qas": [{{"question": "{}"}}]}}]}}]}}'),
        ("dev.txt", "Some paragraph. {} And more.\n"),
    ],
)
def test_formats_of_excluded_files(name: str, content: str, tmp_path: Path, tokenizer: str) -> None:
    evaluation = tmp_path / name
    evaluation.write_text(content.format(DOCS[7][0]))
    source = write_sentences(tmp_path / "t", DOCS[5:12])
    summary = run([source], tmp_path / "d", tokenizer=tokenizer, exclude=(str(evaluation),))
    assert read_documents(summary.folder) == [doc for doc in DOCS[5:12] if DOCS[7][0] not in doc]


def test_short_sentences_may_pass(tmp_path: Path, tokenizer: str) -> None:
    source = write_sentences(tmp_path / "t", [["Yes.", "A one."], ["Yes.", "B two."]])
    (tmp_path / "dev.txt").write_text("Yes.\n")
    exclude = (str(tmp_path / "dev.txt"),)
    with pytest.raises(UserError, match=r"no documents left: all 2 share .*--exclude-min-words"):
        run([source], tmp_path / "d", tokenizer=tokenizer, exclude=exclude)
    summary = run([source], tmp_path / "d", tokenizer=tokenizer, exclude=exclude, exclude_minimum_words=2)
    assert len(read_documents(summary.folder)) == 2


def test_pairs_are_groups_of_rows(tmp_path: Path, tokenizer: str) -> None:
    rows = [("P one.", "h a."), ("P two.", "h b."), ("p one", "h c."), ("x.", "H B."), ("P one.", "h a."), ("y.", "")]
    source = tmp_path / "t.tsv"
    source.write_text("premise\thypothesis\n" + "".join(f"{a}\t{b}\n" for a, b in rows))
    summary = run([source], tmp_path / "d", format="pairs", tokenizer=tokenizer)
    assert read_documents(summary.folder) == [["P one.", "h a.", "p one", "h c."], ["P two.", "h b.", "x.", "H B."]]
    manifest = summary.manifest
    assert manifest["layout"] == "rows"
    assert (manifest["duplicate_rows"], manifest["incomplete_rows"]) == (1, 1)
    assert manifest["splits"]["train"]["documents"] == 2


def test_rows_split_and_exclude_by_group(tmp_path: Path, tokenizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_reader, "SPAN_BYTES", 300)
    lines = [{"sentence1": f"premise {i // 3} here", "sentence2": f"guess {i} here"} for i in range(90)]
    source = tmp_path / "t.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "dev.txt").write_text("Guess 31 here.")
    summary = run(
        [source],
        tmp_path / "d",
        format="nli-jsonl",
        tokenizer=tokenizer,
        valid_documents=5,
        exclude=(str(tmp_path / "dev.txt"),),
        workers=2,
    )
    train, valid = read_documents(summary.folder), read_documents(summary.folder, "valid")
    assert (len(train), len(valid), summary.manifest["excluded_documents"]) == (24, 5, 1)
    groups = [[s for i in range(3 * g, 3 * g + 3) for s in (f"premise {g} here", f"guess {i} here")] for g in range(30)]
    assert sorted(train + valid) == sorted(group for g, group in enumerate(groups) if g != 10)


def test_squad_paragraph_once(tmp_path: Path, tokenizer: str) -> None:
    def article(*contexts: str) -> dict[str, object]:
        return {"paragraphs": [{"context": c, "qas": [{"question": f"Why {c[:3]}?"}]} for c in contexts]}

    source = tmp_path / "s.json"
    source.write_text(json.dumps({"data": [article("One. Two.", "One. Two.", "Three."), article("Three.", "Four.")]}))
    summary = run([source], tmp_path / "d", format="squad", tokenizer=tokenizer)
    assert read_documents(summary.folder) == [["One.", "Two.", "Three."], ["Four."]]
    summary = run([source], tmp_path / "q", format="squad", tokenizer=tokenizer, with_questions=True)
    assert read_documents(summary.folder)[1] == ["Why Thr?", "Four.", "Why Fou?"]


def test_rerun_does_nothing_and_other_options_are_refused(tmp_path: Path) -> None:
    source, out = write_sentences(tmp_path / "t", DOCS), tmp_path / "d"
    run([source], out)
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    again = run([source], out, workers=2)
    assert again.skipped
    assert "already prepared" in str(again)
    assert {p.name: p.stat().st_mtime_ns for p in out.iterdir()} == before
    with pytest.raises(UserError, match=r"other options \(seed was 1, is 2\); --overwrite"):
        run([source], out, seed=2)
    write_sentences(source, DOCS[1:])
    with pytest.raises(UserError, match="the files have changed; --overwrite"):
        run([source], out)
    (out / "notes.md").write_text("mine")
    assert not run([source], out, overwrite=True).skipped
    assert len(read_documents(out)) == len(DOCS) - 1
    assert (out / "notes.md").read_text() == "mine"
    (out / "train.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"train\.bin"):
        run([source], out)


def test_foreign_data_is_not_overwritten(tmp_path: Path) -> None:
    source, out = write_sentences(tmp_path / "t", DOCS), tmp_path / "d"
    out.mkdir()
    (out / "dict.txt").write_text("a 1\n")
    with pytest.raises(UserError, match="holds data already"):
        run([source], out)
    (out / "dict.txt").unlink()
    run([source], out)
    with pytest.raises(UserError, match="is a file"):
        run([source], source)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the corpus is empty"),
        (b"\n \n\x00\n\xc2\xa0\n", "the corpus is empty"),
        (b"fine\n\xff\xfe", r"t: not UTF-8 at byte 5 \(0xff\)"),
        (b'{"text": "a"}\n', "looks like JSON"),
    ],
)
def test_bad_text_is_one_line_and_leaves_nothing(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(content)
    for workers in (1, 2):
        with pytest.raises(UserError, match=message) as error:
            run([tmp_path / "t"], tmp_path / "d", workers=workers)
        assert "\n" not in str(error.value)
        assert left_behind(tmp_path / "d") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "prose"}, "--format prose"),
        ({"vocab_size": None}, "give --vocab-size N"),
        ({"vocab_size": 3}, "--vocab-size 3"),
        ({"vocab_size": 100_000}, "--vocab-size 100000 is too large for this text; the largest possible is"),
        ({"vocab_size": 10}, "--vocab-size 10 is too small for this text"),
        ({"valid_fraction": 1.0}, "--valid-fraction"),
        ({"valid_documents": -1}, "--valid-documents"),
        ({"valid_documents": 60}, "only 60 documents: none is left to train on"),
        ({"model_type": "word"}, "--model-type word"),
        ({"language": "English"}, "--language English"),
        ({"format": "pairs"}, "no known pair of columns"),
        ({"format": "jsonl"}, "line 1 is not JSON"),
        ({"format": "squad"}, "not a SQuAD file"),
        ({"tokenizer": "absent.model"}, "absent.model: no such file"),
        ({"exclude": ("absent",)}, "absent: no such file"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    source = write_sentences(tmp_path / "t", DOCS)
    with pytest.raises(UserError, match=message) as error:
        run([source], tmp_path / "d", **options)
    assert "\n" not in str(error.value)
    assert left_behind(tmp_path / "d") == []


def test_one_document_needs_no_validation_split(tmp_path: Path, tokenizer: str) -> None:
    source = write_sentences(tmp_path / "t", DOCS[:1])
    with pytest.raises(UserError, match="--valid-fraction 0 for no validation split"):
        run([source], tmp_path / "d", tokenizer=tokenizer, valid_fraction=0.1)
    assert read_documents(run([source], tmp_path / "d", tokenizer=tokenizer).folder) == DOCS[:1]


def test_vocabulary_size_must_be_the_tokenizers(tmp_path: Path, tokenizer: str) -> None:
    source = write_sentences(tmp_path / "t", DOCS)
    with pytest.raises(UserError, match=r"--vocab-size 100: .* has 150 pieces; leave --vocab-size out"):
        run([source], tmp_path / "d", tokenizer=tokenizer, vocab_size=100)


def test_special_names_in_the_text_are_text(tmp_path: Path) -> None:
    doc = ["</s>", "<s> a <mask> b </s>", "<pad><unk>", "k < / >"]  # sentencepiece trains on none of the former
    source = write_sentences(tmp_path / "t", [*DOCS, doc * 2])
    folder = run([source], tmp_path / "d", character_coverage=1.0).folder
    assert read_documents(folder)[-1] == doc * 2
    assert not {0, 1, 4} & {i for item in read_items(folder / "train") for i in item}


def test_a_long_line_passes(tmp_path: Path, tokenizer: str) -> None:
    words = "word " * 100_000 + "end."
    (tmp_path / "t").write_text(f"First one.\n{words}\n")
    for format in ("sentences", "paragraphs"):
        summary = run([tmp_path / "t"], tmp_path / format, format=format, tokenizer=tokenizer)
        assert read_documents(summary.folder)[0] == ["First one.", words]


@pytest.mark.parametrize("module", [gather, binarise])
def test_a_full_disk_leaves_nothing(module: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_sentences(tmp_path / "t", DOCS)
    run([source], tmp_path / "old")
    kept = (tmp_path / "old" / "train.bin").read_bytes()

    def full(self: object, *arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = gather.SpoolWriter if module is gather else binarise.IndexedWriter
    monkeypatch.setattr(writer, "_write" if module is gather else "_append", full)
    for out in (tmp_path / "new", tmp_path / "old"):
        with pytest.raises(UserError, match="no space left"):
            run([source], out, overwrite=True, seed=5)
    assert left_behind(tmp_path / "new") == []
    assert left_behind(tmp_path / "old") == ["old"]
    assert (tmp_path / "old" / "train.bin").read_bytes() == kept


def test_command_line_on_a_disk_that_is_really_full(tmp_path: Path, tokenizer: str) -> None:
    """With a limit on file sizes the operating system itself refuses to write."""
    source = write_sentences(tmp_path / "t", documents(3000, seed=5))

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    done = subprocess.run(
        [
            sys.executable,
            REPOSITORY / "scripts" / "prepare_corpus.py",
            source,
            "--format",
            "sentences",
            "--tokenizer",
            tokenizer,
            "--out",
            tmp_path / "d",
            "--workers",
            "2",
        ],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        preexec_fn=limit_files,
    )
    last = done.stderr.strip().split("\n")[-1]
    assert (done.returncode, last[:24]) == (1, "error: no space left for"), done.stderr
    assert left_behind(tmp_path / "d") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_leaves_nothing_that_looks_whole(number: int, tmp_path: Path, tokenizer: str) -> None:
    source, out = write_sentences(tmp_path / "t", DOCS), tmp_path / "d"
    script = (
        "import sys, time; from hmtl_plugin.data import prepare, binarise\n"
        "from tests.data.texts import prepare as run; from pathlib import Path\n"
        "binarise.IndexedWriter.finish = lambda self: (print('here', flush=True), time.sleep(60))\n"
        "run([Path(sys.argv[1])], Path(sys.argv[2]), tokenizer=sys.argv[3], workers=2)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, source, out, tokenizer],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "here\n"
    time.sleep(0.1)
    child.send_signal(number)
    child.wait(timeout=20)
    child.stdout.close()
    assert not out.exists()
    assert (left_behind(out) == []) == (number == signal.SIGTERM)
    assert len(read_documents(run([source], out, tokenizer=tokenizer).folder)) == len(DOCS)
    assert left_behind(out) == ["d"]


def test_two_runs_into_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_sentences(tmp_path / "t", DOCS)

    def second(*arguments: object) -> None:
        with pytest.raises(UserError, match="is being prepared by another run"):
            run([source], tmp_path / "d")
        raise UserError("seen")

    monkeypatch.setattr(prepare, "gather_sources", second)
    with pytest.raises(UserError, match="seen"):
        run([source], tmp_path / "d")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, tokenizer: str) -> None:
    """Peak memory of ten times the text stays within a few MB, in a child and its workers."""
    script = (
        "import sys, resource; from pathlib import Path; from tests.data.texts import prepare as run\n"
        "run([Path(sys.argv[1])], Path(sys.argv[2]), tokenizer=sys.argv[3])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for copies in (6, 60):
        source = tmp_path / f"{copies}.txt"
        with source.open("w") as file:
            for i in range(copies * 100):
                file.write("\n\n".join("\n".join([*doc, f"Mark {i}."]) for doc in DOCS[:8]) + "\n\n")
        done = subprocess.run(
            [sys.executable, "-c", script, source, tmp_path / f"d{copies}", tokenizer],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout) / 1024)
    growth = (tmp_path / "60.txt").stat().st_size / 1e6
    assert growth > 8
    assert peaks[1] - peaks[0] < 60
