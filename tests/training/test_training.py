"""The trainer's promises: losses fall as recorded, what is refused, shards, precision, validation, another hierarchy."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hmtl_plugin.checkpoints import load_checkpoint
from tests.training.runs import (
    arguments,
    assert_same_weights,
    error_of,
    fairseq_command,
    make_data,
    run,
    train,
    weights,
)

GOLDEN = Path(__file__).parent / "golden_loss.json"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), documents=60)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    save_dir = tmp_path_factory.mktemp("trained")
    train(arguments(data, save_dir, "--max-update", "100"))
    return save_dir


def test_golden_loss_curve(data: Path, tmp_path: Path) -> None:
    """The curve of a fixed seed, dropout included. A change that should not change results must not move it."""
    lines = train(arguments(data, tmp_path, "--max-update", "20", "--log-interval", "5"))
    keys = ("loss", "mlm_loss", "nsp_loss", "bigram_shift_loss")
    curve = [{key: line[key] for key in keys} for line in lines if "loss" in line]
    expected = json.loads(GOLDEN.read_text())
    for got, want in zip(curve, expected, strict=True):
        assert got == pytest.approx(want, abs=2e-3), f"recorded {expected}, now {curve}"


def test_every_objective_is_logged_in_train_and_valid(data: Path, tmp_path: Path) -> None:
    lines = train(arguments(data, tmp_path, "--max-update", "4", "--log-interval", "1"))
    train_lines = [line for line in lines if "loss" in line]
    valid_lines = [line for line in lines if "valid_loss" in line]
    for objective, metric in (
        ("mlm", "ppl"),
        ("mlm", "accuracy"),
        ("nsp", "accuracy"),
        ("nsp", "loss"),
        ("bigram_shift", "auc"),
    ):
        assert f"{objective}_{metric}" in train_lines[0]
        assert f"valid_{objective}_{metric}" in valid_lines[0]
    fixed_sum = sum(float(train_lines[0][f"{name}_loss"]) for name in ("mlm", "nsp", "bigram_shift"))
    assert float(train_lines[0]["loss"]) == pytest.approx(fixed_sum, abs=2e-3)


def test_losses_fall(trained: Path, data: Path) -> None:
    state = torch.load(trained / "checkpoint_best.pt", weights_only=True)
    assert state["extra_state"]["val_loss"] < 5.02, "it is 5.11 after the first epoch"


def test_fairseq_validate_agrees_with_training(trained: Path, data: Path) -> None:
    result = run(
        fairseq_command(
            [str(data), "--user-dir", arguments(data, trained)[2], "--task", "hmtl_pretraining", "--path",
             str(trained / "checkpoint_last.pt"), "--valid-subset", "valid", "--max-tokens", "400", "--cpu", "--log-format", "json"],
            "validate",
        )
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    line = next(
        line for line in (result.stdout + result.stderr).splitlines() if '"valid_loss"' in line or '"loss"' in line
    )
    values = json.loads(line[line.index("{") :])
    value = float(values.get("valid_loss", values.get("loss", "nan")))
    assert value == pytest.approx(
        torch.load(trained / "checkpoint_last.pt", weights_only=True)["extra_state"]["val_loss"], abs=1e-4
    )


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--hierarchy", "mlm@3"], "'mlm@3' names no layer"),
        (["--hierarchy", "electra@1", "--transfer", ""], "unknown objective"),
        (["--hierarchy", "nsp@2,mlm@1"], "runs downwards"),
        (["--tokens-per-sample", "65"], "--tokens-per-sample 65 is more than the model's --max-positions 64"),
        (["--pairing", "single"], "--pairing single gives the objective nsp no pairs"),
        (["--mask-prob", "0"], "--mask-prob"),
        (["--weight-warmup", "sop:5"], "names no placed objective"),
        (["--bf16"], "--autocast bf16"),
        (["--amp"], "--autocast bf16"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(data: Path, tmp_path: Path, extra: list[str], message: str) -> None:
    assert message in error_of(arguments(data, tmp_path, "--max-update", "1", *extra))
    assert not list(tmp_path.glob("*.pt"))


def test_one_document_with_nsp_is_refused(tmp_path: Path) -> None:
    from fairseq.data.indexed_dataset import MMapIndexedDatasetBuilder

    data = make_data(tmp_path / "data", documents=6)
    builder = MMapIndexedDatasetBuilder(str(data / "train.bin"), dtype=np.uint16)
    for _ in range(30):
        builder.add_item(torch.tensor([5, 6, 7, 8, 2]))
    builder.finalize(str(data / "train.idx"))
    assert "holds one document" in error_of(arguments(data, tmp_path / "run", "--max-update", "1"))
    train(
        arguments(
            data, tmp_path / "sop", "--max-update", "2", "--hierarchy", "sop@1,mlm@2", "--transfer", "sop>mlm:gate"
        )
    )
    train(arguments(data, tmp_path / "mlm", "--max-update", "2", "--hierarchy", "mlm@2", "--transfer", ""))


@pytest.mark.parametrize("what", ["truncated", "dictionary"])
def test_data_that_does_not_belong_is_refused(what: str, tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", documents=10)
    if what == "truncated":
        content = (data / "train.bin").read_bytes()
        (data / "train.bin").write_bytes(content[:-100])
        assert "train.bin" in error_of(arguments(data, tmp_path / "run", "--max-update", "1"))
    else:
        lines = (data / "dict.txt").read_text().splitlines()
        (data / "dict.txt").write_text("\n".join(lines[:40]) + "\n")
        assert "dict" in error_of(arguments(data, tmp_path / "run", "--max-update", "1"))


def test_a_loss_that_is_not_finite_stops_the_run(data: Path, tmp_path: Path) -> None:
    message = error_of(
        arguments(data, tmp_path, "--max-update", "20", "--lr", "1e30", "--warmup-updates", "0", "--clip-norm", "0")
    )
    assert "the loss of" in message and "is not finite at update" in message and "samples" in message


def test_bf16_autocast_trains_fp32_weights(data: Path, tmp_path: Path) -> None:
    lines = train(arguments(data, tmp_path, "--max-update", "6", "--autocast", "bf16"))
    assert all(value.dtype in (torch.float32, torch.uint8) for value in weights(tmp_path).values())
    assert lines[-1]["train_loss"] < 7


def test_shards_take_turns(tmp_path: Path) -> None:
    shards = [str(make_data(tmp_path / str(i), documents=12, seed=i)) for i in (0, 1)]
    args = arguments(":".join(shards), tmp_path / "run", "--max-epoch", "3")
    train(args)
    train(arguments(":".join(shards), tmp_path / "part", "--max-epoch", "2"))
    train(arguments(":".join(shards), tmp_path / "part", "--max-epoch", "3"))
    assert_same_weights(weights(tmp_path / "run"), weights(tmp_path / "part"))


def test_uncertainty_weighting_and_warmup_and_gradient_norms(data: Path, tmp_path: Path) -> None:
    lines = train(
        arguments(
            data, tmp_path, "--max-update", "8", "--task-weighting", "uncertainty", "--weight-warmup", "bigram_shift:5",
            "--log-gradient-norms", "2",
        )
    )  # fmt: skip
    learned = weights(tmp_path)["task_weights"]
    assert learned.dtype == torch.float32 and (learned != 0).all()
    values = lines[-1]
    assert values["train_objective"] != pytest.approx(values["train_loss"], abs=1e-3)
    assert values["train_gnorm_mlm@1"] > 0 and values["train_gnorm_nsp@1"] > 0
    assert "train_gnorm_nsp@2" not in values, "nsp at layer 1 sends no gradient to layer 2"


def test_continue_with_another_hierarchy_and_more_positions(data: Path, trained: Path, tmp_path: Path) -> None:
    """Two phases: the second keeps the encoder, drops and adds heads, and reads longer sequences."""
    changed = [
        *("--finetune-from-model", str(trained / "checkpoint_last.pt"), "--max-update", "1", "--lr", "0"),
        *("--hierarchy", "sop@2,mlm@2", "--transfer", "sop>mlm:add"),
    ]
    assert "--resize-positions" in error_of(arguments(data, tmp_path, *changed, "--max-positions", "96"))
    train(
        arguments(data, tmp_path, *changed, "--max-positions", "96", "--resize-positions", "--tokens-per-sample", "80")
    )
    old, new = weights(trained), weights(tmp_path)
    key = next(key for key in old if "position" in key)
    assert torch.equal(new[key][:64], old[key]) and torch.equal(new[key][64:], old[key][:32])
    encoder = [key for key in old if key.startswith("encoder.") and key != key.replace("layers", "")]
    assert encoder and all(torch.equal(old[key], new[key]) for key in encoder)
    assert torch.equal(old["heads.mlm.dense.weight"], new["heads.mlm.dense.weight"])
    assert any(key.startswith("heads.sop") for key in new) and not any(key.startswith("heads.nsp") for key in new)


def test_another_architecture_is_refused_by_name(data: Path, trained: Path, tmp_path: Path) -> None:
    source = ["--finetune-from-model", str(trained / "checkpoint_last.pt"), "--max-update", "1"]
    assert "--encoder-attention-heads" in error_of(arguments(data, tmp_path, *source, "--encoder-attention-heads", "4"))
    assert "--encoder-normalize-before" in error_of(arguments(data, tmp_path, *source, "--encoder-normalize-before"))


def test_a_checkpoint_needs_nothing_beside_it(trained: Path, tmp_path: Path) -> None:
    alone = tmp_path / "model.pt"
    alone.write_bytes((trained / "checkpoint_best.pt").read_bytes())
    checkpoint = load_checkpoint(tmp_path)
    assert len(checkpoint.dictionary) == 53 and 0 < checkpoint.updates <= 100
    tokens = torch.tensor([[0, 10, 11, 12, 2]])
    features, _ = checkpoint.model(tokens, features_only=True)
    assert features.shape == (1, 5, 32)


def test_tensorboard(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    train(
        arguments(
            data,
            tmp_path / "run",
            "--max-update",
            "2",
            "--log-format",
            "simple",
            "--tensorboard-logdir",
            str(tmp_path / "tb"),
        )
    )
    assert list((tmp_path / "tb" / "valid").glob("events*"))


def test_ema_is_stored(data: Path, tmp_path: Path) -> None:
    train(arguments(data, tmp_path, "--max-update", "3", "--store-ema", "--ema-fp32", "--ema-decay", "0.5"))
    train(arguments(data, tmp_path, "--max-update", "5", "--store-ema", "--ema-fp32", "--ema-decay", "0.5"))
    assert "ema" in torch.load(tmp_path / "checkpoint_last.pt", weights_only=True)["extra_state"]
