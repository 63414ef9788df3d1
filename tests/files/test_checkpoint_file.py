"""Checkpoint files that are damaged, or hold other things than a checkpoint: one line, whoever opens them."""

import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from hmtl_plugin.checkpoints import load_checkpoint
from hmtl_plugin.errors import UserError
from hmtl_plugin.files.checkpoint_file import check_whole, read_checkpoint
from hmtl_plugin.hub import HierarchicalBert
from tests.commands.running import run_script
from tests.conftest import REPOSITORY
from tests.refusals import refusal

PRETRAINED, FINETUNED = (REPOSITORY / "tests" / "checkpoints" / name for name in ("2dc1455-post.pt", "cf41205-rte.pt"))


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    path.write_bytes(PRETRAINED.read_bytes())
    return path


def flip_a_weight(path: Path, name: str = "/data/5") -> None:
    """One bit of the exponent of a number in a tensor."""
    with zipfile.ZipFile(path) as archive:
        part = next(each for each in archive.infolist() if each.filename.endswith(name))
        content = bytearray(path.read_bytes())
        place = content.index(archive.read(part), part.header_offset)
    content[place + 3] ^= 1 << 5
    path.write_bytes(content)


def test_one_bit_of_a_weight(copied: Path) -> None:
    load_checkpoint(copied)
    flip_a_weight(copied)
    message = refusal(copied, HierarchicalBert.from_pretrained)
    assert message.startswith("damaged, '") and "in it has another checksum than was written" in message
    assert "use an earlier checkpoint" in message
    with pytest.raises(UserError, match="another checksum"):
        run_script("evaluate", copied, "--data", copied.parent)
    with pytest.raises(UserError, match="another checksum"):
        run_script("export_hf", copied, "--out", copied.parent / "out")


def test_a_file_is_checked_once_and_again_when_it_changes(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    testzip = zipfile.ZipFile.testzip

    def counted(archive: zipfile.ZipFile) -> str | None:
        read.append(str(archive.filename))
        return testzip(archive)

    monkeypatch.setattr(zipfile.ZipFile, "testzip", counted)
    for _ in range(3):
        check_whole(str(copied))
    assert len(read) == 1
    flip_a_weight(copied)
    with pytest.raises(UserError, match="another checksum"):
        check_whole(str(copied))
    monkeypatch.setenv("RANK", "1")  # the first process of a training does it for all
    check_whole(str(copied))
    assert len(read) == 2


def test_an_archive_without_checksums_is_taken(tmp_path: Path) -> None:
    state = torch.load(PRETRAINED, weights_only=True)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, tmp_path / "model.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_checkpoint(tmp_path).updates == 12


class _Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("harm",)


def test_what_could_run_code_is_refused_without_advice_to_run_it(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model": {}, "cfg": {"model": _Harmful()}}, path)
    message = refusal(path, load_checkpoint)
    assert message.startswith(
        "asks for Python objects beyond plain weights and is not loaded, since they could run code"
    )
    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    link: BaseException | None = caught.value
    while link is not None:  # a traceback shows what it came from too, unless that is suppressed
        assert "weights_only" not in str(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x05\x06" + bytes(18), b"\x80\x02}q\x00."])
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    assert refusal(path, load_checkpoint).startswith(("truncated or damaged (", "not a checkpoint, or damaged"))


def _without(*keys: str) -> Any:
    def change(state: dict[str, Any]) -> None:
        place = state
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]

    return change


def _with(value: Any, *keys: str) -> Any:
    def change(state: dict[str, Any]) -> None:
        place = state
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_with([], "model"), "'model' is a list, not a mapping"),
        (_with(3, "model", "encoder.embeddings.token.weight"), "'model.encoder.embeddings.token.weight' is an int"),
        (_with("x", "optimizer_history"), "'optimizer_history' is a str, not a list"),
        (
            _with([{"num_updates": -1}], "optimizer_history"),
            "'optimizer_history[0].num_updates' is not a number from 0",
        ),
        (_with({"epoch": "2"}, "extra_state", "train_iterator"), "'extra_state.train_iterator.epoch' is not a number"),
        (_with("abc", "task_state", "dictionary"), "'task_state.dictionary' is not a vector of bytes"),
        (_with(torch.full((9,), 255, dtype=torch.uint8), "task_state", "dictionary"), "dictionary inside is damaged"),
        (_with(None, "cfg", "task"), "was trained by the task 'None'"),
        (_without("cfg", "model", "encoder_layers"), "'model' lacks 'encoder_layers'"),
        (_with("2", "cfg", "model", "encoder_layers"), "'model.encoder_layers' is a str, not an int"),
        (_with(float("nan"), "cfg", "model", "layer_norm_eps"), "'model.layer_norm_eps' is not a finite number"),
        (
            _with(10**9, "cfg", "model", "encoder_layers"),
            "its configuration and its weights disagree on encoder_layers",
        ),
        (_with(10**9, "cfg", "model", "encoder_ffn_embed_dim"), "disagree on encoder_ffn_embed_dim"),
        (_with(32, "cfg", "model", "encoder_embed_dim"), "disagree on encoder_embed_dim"),
        (_with(10**9, "cfg", "model", "max_positions"), "disagree on max_positions"),
        (
            _without("model", "encoder.layers.1.fc1.bias"),
            "its weights are not those of the model that its configuration describes",
        ),
        (_with("mlm@2²", "cfg", "model", "hierarchy"), "hierarchy: cannot read 'mlm@2²'"),
        (_with("mlm@" + "9" * 5000, "cfg", "model", "hierarchy"), "hierarchy: "),
    ],
)
def test_odd_content(tmp_path: Path, change: Any, message: str) -> None:
    state = torch.load(PRETRAINED, weights_only=True)
    change(state)
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(UserError) as caught:
        load_checkpoint(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_old_checkpoints_are_as_they_must_be() -> None:
    for path in (REPOSITORY / "tests" / "checkpoints").glob("*.pt"):
        read_checkpoint(str(path))


@pytest.mark.parametrize("path", [PRETRAINED, FINETUNED])
def test_damaged_pickles(tmp_path: Path, path: Path) -> None:
    """With checksums that are right: a writer's fault, or somebody's purpose."""
    rng = random.Random(1)
    refused = 0
    for trial in range(60):
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "model.pt", "w", zipfile.ZIP_STORED) as new:
            for part in old.infolist():
                content = bytearray(old.read(part))
                if part.filename.endswith("data.pkl"):
                    content[rng.randrange(len(content))] ^= 1 << trial % 8
                new.writestr(part.filename, bytes(content))
        try:
            load_checkpoint(tmp_path)
        except UserError:
            refused += 1
    assert refused > 20
