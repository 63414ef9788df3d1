"""The held-out text: just the documents of the validation split, whatever the way it is written."""

import errno
from pathlib import Path
from typing import Any

import pytest

from hmtl_plugin.data.manifest import read_manifest
from hmtl_plugin.errors import UserError
from hmtl_plugin.preparation import gather, prepare
from hmtl_plugin.preparation.held_out import FILE_NAME
from hmtl_plugin.preparation.readers import text as text_reader
from hmtl_plugin.probing.generation.make import make_probing
from hmtl_plugin.probing.generation.options import ProbingOptions
from tests.commands.running import run_script
from tests.preparation.texts import documents, read_documents, write_sentences
from tests.preparation.texts import prepare as run

DOCS = documents(60)


def held_out(folder: Path) -> list[list[str]]:
    """The documents of the written text, in order."""
    return [document.split("\n") for document in (folder / FILE_NAME).read_text().removesuffix("\n").split("\n\n")]


def contents(folder: Path) -> dict[str, Any]:
    """All files by name: their bytes, and what corpus.json says (the order of its entries does not matter)."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} | {"corpus.json": read_manifest(folder)}


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("size", [{"valid_fraction": 0.2}, {"valid_documents": 1}, {"valid_documents": 59}])
def test_what_is_written_is_the_validation_split(
    seed: int, size: dict[str, Any], tmp_path: Path, tokenizer: str
) -> None:
    source = write_sentences(tmp_path / "t", [*DOCS, DOCS[3]])
    summary = run([source], tmp_path / "d", tokenizer=tokenizer, write_valid=True, seed=seed, **size)
    train, valid = read_documents(summary.folder), read_documents(summary.folder, "valid")
    assert held_out(summary.folder) == valid
    assert sorted(train + valid) == sorted(DOCS)
    assert not any(document in train for document in held_out(summary.folder))
    recorded = summary.manifest["held_out"]
    assert (recorded["documents"], recorded["sentences"]) == (len(valid), sum(map(len, valid)))
    assert str(summary).endswith(f"held-out text: {summary.folder / FILE_NAME}")


@pytest.mark.parametrize("span_bytes", [50, 700])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_text_depends_on_neither_workers_nor_spans_nor_time(
    workers: int, span_bytes: int, tmp_path: Path, tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_sentences(tmp_path / "t", [*DOCS[:30], DOCS[3], *DOCS[30:], DOCS[0]])
    options = {"tokenizer": tokenizer, "valid_fraction": 0.2}
    without = run([source], tmp_path / "without", **options)
    plain = run([source], tmp_path / "plain", write_valid=True, **options)
    for module in (text_reader, gather):
        monkeypatch.setattr(module, "SPAN_BYTES", span_bytes)
    other = run([source], tmp_path / "other", write_valid=True, workers=workers, **options)
    assert contents(plain.folder) == contents(other.folder)
    for name in ("train.bin", "train.idx", "valid.bin", "valid.idx", "dict.txt"):
        assert contents(plain.folder)[name] == contents(without.folder)[name]
    before = {path.name: path.stat().st_mtime_ns for path in plain.folder.iterdir()}
    again = run([source], plain.folder, write_valid=True, workers=workers, **options)
    assert again.skipped and again.held_out is None
    assert {path.name: path.stat().st_mtime_ns for path in plain.folder.iterdir()} == before


def test_the_text_stands_as_it_was_read(tmp_path: Path, tokenizer: str) -> None:
    """The tokenizer makes other characters of these, or none; the text keeps them, and reads as the same again."""
    docs = [[f"\uff21\uff22 {i} of \u2460 \ufb01ne cats\u2026", f'He said: "{i}." \u00bd'] for i in range(20)]
    source = write_sentences(tmp_path / "t", docs)
    folder = run([source], tmp_path / "d", tokenizer=tokenizer, valid_documents=19, write_valid=True).folder
    assert len(held_out(folder)) == 19 and all(document in docs for document in held_out(folder))
    assert not any(document in docs for document in read_documents(folder, "valid"))
    options: dict[str, Any] = {"tokenizer": tokenizer, "valid_documents": 18, "write_valid": True}
    again = run([folder / FILE_NAME], tmp_path / "again", **options).folder
    assert len(held_out(again)) == 18 and all(document in held_out(folder) for document in held_out(again))


def test_rows_of_pairs_are_two_lines(tmp_path: Path, tokenizer: str) -> None:
    source = tmp_path / "t.tsv"
    source.write_text("premise\thypothesis\n" + "".join(f"P {i // 2}.\th {i}.\n" for i in range(40)))
    options: dict[str, Any] = {"format": "pairs", "tokenizer": tokenizer, "valid_documents": 5}
    folder = run([source], tmp_path / "d", write_valid=True, **options).folder
    assert held_out(folder) == read_documents(folder, "valid")


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_corpus_of_an_earlier_version_gets_the_text_added(
    given: bool, workers: int, tmp_path: Path, tokenizer: str
) -> None:
    source, out = write_sentences(tmp_path / "t", DOCS), tmp_path / "d"
    options: dict[str, Any] = {"valid_fraction": 0.2} | ({"tokenizer": tokenizer} if given else {})
    at_once = run([source], tmp_path / "at_once", write_valid=True, **options).folder
    run([source], out, **options)
    (out / "notes.md").write_text("mine")
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.name != "corpus.json"}
    added = run([source], out, write_valid=True, workers=workers, **options)
    assert (
        added.skipped and "already prepared" in str(added) and str(added).endswith(f"held-out text: {out / FILE_NAME}")
    )
    assert contents(out) == contents(at_once) | {"notes.md": b"mine"}
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("d")] == ["d"]
    (out / FILE_NAME).unlink()  # as after a kill between the manifest and the text
    assert run([source], out, write_valid=True, **options).held_out == out / FILE_NAME
    assert contents(out) == contents(at_once) | {"notes.md": b"mine"}


def test_a_full_disk_leaves_the_corpus_as_it_was_and_says_so(
    tmp_path: Path, tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write_sentences(tmp_path / "t", DOCS), tmp_path / "d"
    options: dict[str, Any] = {"tokenizer": tokenizer, "valid_fraction": 0.2}
    run([source], out, **options)
    before = contents(out)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(prepare, "write_held_out", full)
    with pytest.raises(UserError, match=f"{out}: cannot be written .*; nothing new was kept: make room"):
        run([source], out, write_valid=True, **options)
    assert contents(out) == before
    with pytest.raises(UserError, match="nothing new was kept: make room"):
        run([source], tmp_path / "new", write_valid=True, **options)
    assert not (tmp_path / "new").exists()


def test_nothing_is_added_to_a_corpus_that_was_split_otherwise(
    tmp_path: Path, tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier version that drew other documents: what this one would hold out is what a model was trained on."""
    source, out = write_sentences(tmp_path / "t", DOCS), tmp_path / "d"
    options: dict[str, Any] = {"tokenizer": tokenizer, "valid_fraction": 0.2}
    split_keys = prepare.split_keys
    monkeypatch.setattr(prepare, "split_keys", lambda keys, seed: ~split_keys(keys, seed))
    run([source], out, **options)
    monkeypatch.setattr(prepare, "split_keys", split_keys)
    before = contents(out)
    with pytest.raises(UserError, match=r"d: holds a corpus that this version .*; --overwrite") as error:
        run([source], out, write_valid=True, **options)
    assert "\n" not in str(error.value)
    assert contents(out) == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("d")] == ["d"]
    run([source], out, write_valid=True, overwrite=True, **options)
    assert held_out(out) == read_documents(out, "valid")


def test_no_other_text_is_taken_for_the_held_out_one(tmp_path: Path, tokenizer: str) -> None:
    source, out = write_sentences(tmp_path / "t", DOCS), tmp_path / "d"
    options: dict[str, Any] = {"tokenizer": tokenizer, "valid_fraction": 0.2}
    run([source], out, **options)
    (out / FILE_NAME).write_text("Mine.\n")
    with pytest.raises(UserError, match=f"{FILE_NAME}: is not the held-out text of this corpus; move it away"):
        run([source], out, write_valid=True, **options)
    assert (out / FILE_NAME).read_text() == "Mine.\n"
    (out / FILE_NAME).unlink()
    run([source], out, write_valid=True, **options)
    with (out / FILE_NAME).open("a") as file:
        file.write("\nOne more.\n")
    with pytest.raises(UserError, match="move it away"):
        run([source], out, write_valid=True, **options)
    run([source], out, seed=2, overwrite=True, **options)  # the text of another split may not stay
    assert not (out / FILE_NAME).exists() and "held_out" not in (read_manifest(out) or {})


@pytest.mark.parametrize("none", [{"valid_fraction": 0.0}, {"valid_fraction": 0.5, "valid_documents": 0}])
def test_without_a_validation_split_there_is_nothing_to_write(none: dict[str, Any], tmp_path: Path) -> None:
    source = write_sentences(tmp_path / "t", DOCS)
    with pytest.raises(UserError, match="--write-valid: no document is held out; give a --valid-fraction above 0"):
        run([source], tmp_path / "d", write_valid=True, **none)


def test_no_probing_sentence_comes_from_a_training_document(tmp_path: Path, tokenizer: str) -> None:
    """From the command line to probing sets: unchanged rows stand in validation documents, none in a training one."""
    source, out = write_sentences(tmp_path / "t", documents(400, seed=3)), tmp_path / "d"
    run_script(
        "prepare_corpus",
        *(source, "--format", "sentences", "--tokenizer", tokenizer, "--out", out),
        *("--valid-fraction", "0.5", "--write-valid", "--workers", "1"),
    )
    sets = tmp_path / "sets"
    make_probing([str(out / FILE_NAME)], sets, ProbingOptions("sentences", 200, 60, 60, workers=1))
    train = {sentence for document in read_documents(out) for sentence in document}
    valid = {sentence for document in read_documents(out, "valid") for sentence in document}
    rows = [line.split("\t") for task in sets.glob("*.txt") for line in task.read_text().splitlines()]
    originals = [sentence for _, label, sentence in rows if label not in ("I", "C")]
    assert len(originals) >= 100
    assert set(originals) <= valid
    assert not set(originals) & (train - valid)
    assert len(train & valid) < 5  # sentences seldom repeat in this text
