"""Features: those of the hub interface, whatever the batches; caches that are whole or absent."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hmtl_plugin.errors import UserError
from hmtl_plugin.models.pooling import pool
from hmtl_plugin.probing import encoders, features
from hmtl_plugin.probing.encoders import GivenEncoder, TransformerEncoder
from hmtl_plugin.probing.features import drop_features, layer_features
from hmtl_plugin.probing.tasks import read_task
from hmtl_plugin.tokenizers.base import Tokenizer
from tests.probing.texts import sentences


def alone(encoder: TransformerEncoder, text: str) -> dict[str, np.ndarray]:
    """Features of one sentence in a batch of its own: pooling -> (L+1, H)."""
    longest = encoder.encoder.config.max_positions
    ids = [0, *encoder.tokenizer.encode(text)[: longest - 2], 2]
    tokens_BT = torch.tensor([ids])
    with torch.inference_mode():
        states = encoder.encoder(tokens_BT, range(4))
    return {
        how: np.stack([pool(states[n], tokens_BT, how)[0].numpy() for n in range(4)]) for how in ("mean", "cls", "max")
    }


@pytest.mark.parametrize("batch_tokens", [1, 200, 8192])
def test_features_do_not_depend_on_batches(
    encoder: TransformerEncoder, batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders, "_BATCH_TOKENS", batch_tokens)
    texts = [*sentences(60, seed=5), "a", "again " * 40]  # the last is longer than the position table
    found = encoder(texts)
    for row, text in enumerate(texts):
        for pooling, expected in alone(encoder, text).items():
            assert found[pooling][row] == pytest.approx(expected, abs=1e-5)
    assert encoder.truncated == sum(len(encoder.tokenizer.encode(text)) > 22 for text in texts) > 0


def test_rows_stand_where_the_task_has_them(encoder: TransformerEncoder, task_file: Path, tmp_path: Path) -> None:
    task = read_task(task_file)
    found = layer_features(encoder, task, tmp_path / "cache")
    assert found.keys() == {"mean", "cls", "max"} and found["mean"].shape == (360, 4, 16)
    for row in (0, 7, 250, 359):
        assert found["mean"][row] == pytest.approx(alone(encoder, task.sentences([row])[0])["mean"], abs=1e-5)
    assert isinstance(found["mean"], np.memmap)


def test_the_cache_knows_content(
    encoder: TransformerEncoder, task_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, computed = tmp_path / "cache", []
    original = features._fill
    monkeypatch.setattr(features, "_fill", lambda *arguments: (computed.append(1), original(*arguments))[1])
    task = read_task(task_file)
    layer_features(encoder, task, cache)
    layer_features(encoder, read_task(task_file), cache)
    assert len(computed) == 1
    moved = Path(shutil.move(task_file, tmp_path / "renamed.txt"))
    layer_features(encoder, read_task(moved), cache)
    assert len(computed) == 1
    moved.write_text(moved.read_text().replace("again", "twice"))
    layer_features(encoder, read_task(moved), cache)
    assert len(computed) == 2
    drop_features(encoder, task, cache)
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


def test_a_kill_leaves_nothing_that_looks_whole(
    encoder: TransformerEncoder, task_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, cache = read_task(task_file), tmp_path / "cache"
    calls = []
    original = TransformerEncoder.__call__

    def dying(self: TransformerEncoder, texts: list[str]) -> encoders.Features:
        calls.append(len(texts))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, texts)

    monkeypatch.setattr(features, "_CHUNK_ROWS", 100)
    monkeypatch.setattr(TransformerEncoder, "__call__", dying)
    with pytest.raises(KeyboardInterrupt):
        layer_features(encoder, task, cache)
    assert not [path for path in cache.iterdir() if path.is_dir()]
    (cache / f"{features.feature_key(encoder, task)}.part").mkdir()  # what a SIGKILL leaves
    found = layer_features(encoder, task, cache)
    assert found["cls"].shape == (360, 4, 16) and calls[2:] == [100, 100, 100, 60]


def test_a_full_disk_is_said_before_the_work(
    encoder: TransformerEncoder, task_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 1000))
    with pytest.raises(UserError, match=r"take 0.0 GB and 0.0 GB are free: name another folder with --cache"):
        layer_features(encoder, read_task(task_file), tmp_path / "cache")


def given(function: Any) -> GivenEncoder:
    encoder = GivenEncoder("mine", function)
    encoder.look(["a", "b"])
    return encoder


def test_functions_give_arrays_tensors_and_mappings() -> None:
    tensor = given(lambda texts: torch.ones(len(texts), 2, 3, dtype=torch.bfloat16))
    assert tensor(["a"])["given"].shape == (1, 2, 3) and tensor.row_bytes() == 4 * 2 * 3
    both = given(lambda texts: {"mean": np.ones((len(texts), 2, 3)), "cls": np.zeros((len(texts), 2, 3))})
    assert both.poolings == ("mean", "cls") and both(["a"])["mean"].dtype == np.float32


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda texts: np.zeros((len(texts), 3)), r"gave 'given' of shape \(2, 3\) for 2 sentences"),
        (lambda texts: np.zeros((7, 2, 3)), r"gave 'given' of shape \(7, 2, 3\) for 2 sentences"),
        (lambda texts: {"mean": np.zeros((2, 2, 3)), "cls": np.zeros((2, 1, 3))}, "give poolings of one shape"),
        (lambda texts: {"a/b": np.zeros((2, 2, 3))}, "named by letters and digits"),
        (lambda texts: {}, "gave nothing"),
    ],
)
def test_functions_of_other_shapes_are_refused(function: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"the encoder 'mine' .*{message}|{message}"):
        given(function)


def test_a_function_must_not_change(task_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_CHUNK_ROWS", 100)
    calls: list[int] = []

    def changing(texts: list[str]) -> dict[str, np.ndarray]:
        calls.append(1)
        found = np.ones((len(texts), 2, 3))
        return {"mean": found} if len(calls) < 3 else {"mean": found, "cls": found}

    with pytest.raises(UserError, match="other poolings or shapes than before"):
        layer_features(given(changing), read_task(task_file), tmp_path / "cache")


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e25])
def test_features_that_are_no_numbers_are_named(task_file: Path, tmp_path: Path, bad: float) -> None:
    def diverged(texts: list[str]) -> np.ndarray:
        found = np.ones((len(texts), 3, 4))
        found[0, 1, 2] = bad
        return found

    with pytest.raises(UserError, match=r"mine: features of cats \(given, layer 1\) are not finite"):
        layer_features(given(diverged), read_task(task_file), tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_sentences_that_were_cut_are_counted_also_from_the_cache(
    encoder: TransformerEncoder, task_file: Path, tmp_path: Path
) -> None:
    task = read_task(task_file)
    layer_features(encoder, task, tmp_path)
    count = sum(len(encoder.tokenizer.encode(text)) > 22 for text in task.sentences(range(len(task))))
    encoder.truncated = 0
    layer_features(encoder, task, tmp_path)
    assert features.sentences_cut(encoder, task, tmp_path) == count > 0


def test_the_tokens_are_the_hub_s(encoder: TransformerEncoder, tokenizer: Tokenizer) -> None:
    ids, length_N = encoder._tokenise(["the old cat", "", "a dog"])
    expected = [[0, *tokenizer.encode(text), 2] for text in ("the old cat", "", "a dog")]
    assert ids.tolist() == [token for row in expected for token in row]
    assert length_N.tolist() == [len(row) for row in expected]
