"""What corpus preparation refuses, and what it leaves behind when it fails, is killed or runs twice."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.preparation import binarise, gather, prepare
from tests.preparation.texts import documents, read_documents, read_items, write_sentences
from tests.preparation.texts import prepare as run

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = documents(60)


def left_behind(out: Path) -> list[str]:
    """What stands beside or in `out` of a run that failed."""
    return [path.name for path in out.parent.iterdir() if path.name.startswith(out.name)]


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


@pytest.mark.parametrize(
    "options",
    [{"character_coverage": 0.5}, {"model_type": "wordpiece"}, {"model_type": "wordpiece", "lowercase": True}],
)
def test_a_given_tokenizer_is_not_trained(tmp_path: Path, tokenizer: str, options: dict[str, Any]) -> None:
    source = write_sentences(tmp_path / "t", DOCS)
    with pytest.raises(UserError, match=r"--tokenizer .* is used as it is: leave out one of the two"):
        run([source], tmp_path / "d", tokenizer=tokenizer, **options)


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
    monkeypatch.setattr(writer, "_write" if module is gather else "append", full)
    for out in (tmp_path / "new", tmp_path / "old"):
        with pytest.raises(UserError, match=r"cannot be written \(No space left on device\); nothing new was kept"):
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
    assert done.returncode == 1 and last.startswith("error: ") and "/d: cannot be written (File too large)" in last
    assert left_behind(tmp_path / "d") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_leaves_nothing_that_looks_whole(number: int, tmp_path: Path, tokenizer: str) -> None:
    source, out = write_sentences(tmp_path / "t", DOCS), tmp_path / "d"
    script = (
        "import sys, time; from hmtl_plugin.preparation import prepare, binarise\n"
        "from tests.preparation.texts import prepare as run; from pathlib import Path\n"
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
        "import sys, resource; from pathlib import Path; from tests.preparation.texts import prepare as run\n"
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


KILLED_AT_A_RENAME = """
import os, pathlib, sys
from tests.preparation.texts import prepare
calls, rename = 0, pathlib.Path.rename
def counted(self, target):
    global calls
    calls += 1
    if calls == int(sys.argv[3]):
        os._exit(9)
    return rename(self, target)
pathlib.Path.rename = counted
prepare([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[2]), overwrite=True, seed=2)
"""


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_files_of_ones_own_outlive_a_kill_at_any_rename(tmp_path: Path, at: int) -> None:
    """Before the old folder gives way, between the two renames, and with one or none of two files carried over."""
    source, out = write_sentences(tmp_path / "t", DOCS), tmp_path / "d"
    run([source], out)
    (out / "notes.md").write_text("mine")
    (out / "plots").mkdir()
    (out / "plots" / "one.svg").write_text("mine too")
    command = [sys.executable, "-c", KILLED_AT_A_RENAME, str(source), str(out), str(at)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    for overwrite in (False, True):
        seed = 2 if at > 2 or overwrite else 1  # what the killed run had published
        assert run([source], out, overwrite=overwrite, seed=seed).skipped == (not overwrite)
        assert (out / "notes.md").read_text() == "mine"
        assert (out / "plots" / "one.svg").read_text() == "mine too"
        assert left_behind(out) == ["d"]


def test_a_file_of_ones_own_that_has_no_place_stops_what_would_delete_it(tmp_path: Path) -> None:
    source, out = write_sentences(tmp_path / "t", DOCS), tmp_path / "d"
    run([source], out)
    old = tmp_path / "d.old"
    old.mkdir()
    for folder, text in ((old, "first"), (out, "second")):
        (folder / "notes.md").write_text(text)
    for overwrite in (False, True):
        with pytest.raises(UserError, match=r"d.old/notes.md: is yours, .*: move one of them"):
            run([source], out, overwrite=overwrite)
    assert (old / "notes.md").read_text() == "first" and (out / "notes.md").read_text() == "second"
    (old / "notes.md").rename(tmp_path / "kept.md")
    assert run([source], out).skipped and not old.exists()
