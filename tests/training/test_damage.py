"""Damaged files under ``fairseq-train``: one line that names the file, and nothing is trained on them."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from hmtl_plugin.data.corpus import Corpus
from tests.training.runs import arguments, error_of, train


@pytest.fixture
def copied(data: Path, tmp_path: Path) -> Path:
    return shutil.copytree(data, tmp_path / "data")


def flip(path: Path, place: int, bit: int = 0) -> None:
    """Change one bit of a file; places before its end are negative."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_one_bit_of_an_offset(copied: Path, tmp_path: Path) -> None:
    flip(copied / "train.idx", -8 * 20, 3)  # the twentieth offset from the end
    message = error_of(arguments(copied, tmp_path / "run", "--max-update", "3"))
    assert f"{copied}/train.idx: sizes and offsets disagree at item" in message
    assert not list((tmp_path / "run").glob("*.pt"))


def test_a_token_that_no_dictionary_has(copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Corpus, "check_vocabulary", lambda *_: None)  # with a corpus.json the whole file is not read
    tokens = np.fromfile(copied / "train.bin", dtype=np.uint16)
    tokens[: len(tokens) // 2][tokens[: len(tokens) // 2] != 2] |= 1 << 15
    tokens.tofile(copied / "train.bin")
    message = error_of(arguments(copied, tmp_path / "run", "--max-update", "30"))
    assert f"{copied}/train.bin: token id " in message
    assert "is outside the dictionary of" in message


def test_resuming_in_mid_epoch_with_larger_batches(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The place in the epoch is counted in batches, and there are fewer of them now."""
    begun = arguments(data, tmp_path, "--max-update", "8")
    train(begun)
    larger = [*arguments(data, tmp_path, "--max-update", "10"), "--max-tokens", "2000"]
    with caplog.at_level(logging.INFO):
        message = error_of(larger)
    assert "goes on after batch 8 of the epoch with --max-tokens 2000 (so far 400)" in caplog.text
    assert "the checkpoint stands in the middle of an epoch" in message
    assert "add --reset-dataloader" in message
    lines = train([*larger, "--reset-dataloader"])
    assert lines[-1]["train_num_updates"] == 10
