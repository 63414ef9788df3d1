"""corpus.json tells when files do not belong together."""

import json
from pathlib import Path
from typing import Any

import pytest

from hmtl_plugin.data.manifest import check_manifest, read_manifest
from hmtl_plugin.errors import UserError
from tests.preparation.texts import documents, prepare, write_sentences
from tests.training.runs import arguments, error_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return prepare([write_sentences(tmp_path / "t.txt", documents(40))], tmp_path / "data", valid_documents=4).folder


def test_a_prepared_folder_passes(folder: Path) -> None:
    for split in ("train", "valid", "unknown"):
        manifest = check_manifest(folder, split)
        assert manifest is not None
        assert manifest["layout"] == "segments"
        assert manifest["splits"]["valid"]["documents"] == 4
        assert manifest["splits"]["train"]["documents"] == 36
    (folder / "sentencepiece.bpe.model").unlink()
    assert check_manifest(folder, "train")


def test_absent_manifest_is_none(tmp_path: Path) -> None:
    assert check_manifest(tmp_path, "train") is None


@pytest.mark.parametrize("name", ["train.bin", "train.idx", "dict.txt", "sentencepiece.bpe.model"])
def test_changed_file_is_named(folder: Path, name: str) -> None:
    with (folder / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match=f"{name}: .*prepare the corpus again"):
        check_manifest(folder, "train")


@pytest.mark.parametrize("name", ["train.bin", "train.idx", "dict.txt"])
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name}: missing"):
        check_manifest(folder, "train")
    assert name == "dict.txt" or check_manifest(folder, "valid")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 2}', '{"schema": 1, "layout": "x", "splits": {}}'])
def test_damaged_manifest(folder: Path, content: str) -> None:
    (folder / "corpus.json").write_text(content)
    with pytest.raises(UserError, match="prepare the corpus again"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("dictionary_sha256",), None, "it lacks 'dictionary_sha256'"),
        (("splits", "train", "bytes_bin"), None, "'splits.train' lacks 'bytes_bin'"),
        (("splits", "train", "bytes_bin"), "12", "'splits.train.bytes_bin' is not a number from 0"),
        (("splits", "train"), 3, "'splits.train' is an int, not a mapping"),
        (("tokenizer_sha256",), [], "'tokenizer_sha256' is a list, not a str"),
        (("inputs",), {}, "'inputs' is a dict, not a list"),
    ],
)
def test_a_manifest_with_odd_content(folder: Path, keys: tuple[str, ...], value: Any, message: str) -> None:
    """Damaged by hand or by another program; training is what reads it."""
    path = folder / "corpus.json"
    manifest = json.loads(path.read_text())
    place = manifest
    for key in keys[:-1]:
        place = place[key]
    if value is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    path.write_text(json.dumps(manifest))
    refused = error_of(arguments(folder, folder / "run", "--max-update", "1"))
    assert f"{path}: damaged or of another version ({message}); prepare the corpus again" in refused


def test_counts_are_those_of_the_files(folder: Path) -> None:
    manifest = json.loads((folder / "corpus.json").read_text())
    for split, counts in manifest["splits"].items():
        assert counts["bytes_bin"] == (folder / f"{split}.bin").stat().st_size
        items = (counts["bytes_idx"] - 26) // 12
        assert items == counts["sentences"] + counts["documents"] - 1
        assert counts["tokens"] + items == counts["bytes_bin"] // 2
