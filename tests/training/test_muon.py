"""Training with ``hmtl_muon``: what holds with ``hmtl_adamw`` holds with it."""

import signal
import sys
from pathlib import Path

import pytest
import torch

from tests.training.runs import arguments, assert_same_weights, error_of, run, train, train_in_two_processes, weights
from tests.training.test_processes import NO_DROPOUT
from tests.training.test_resume import KILLED_WHILE_WRITING

MUON = ("--optimizer", "hmtl_muon", "--clip-norm", "1.0")
WHOLE = (*MUON, "--max-update", "16")


def test_matrices_of_layers_and_heads_have_a_momentum_and_all_else_two_moments(data: Path, whole: Path) -> None:
    state = torch.load(whole / "checkpoint_last.pt", weights_only=True)
    shapes = [
        moments["momentum_buffer"].shape
        for moments in state["last_optimizer_state"]["state"].values()
        if "step" not in moments
    ]
    layers, heads = [(96, 32), (32, 32), (128, 32), (32, 128)] * 2, [(32, 32)] * 3
    assert sorted(shapes) == sorted([*layers, *heads])
    assert state["optimizer_history"][-1]["optimizer_name"] == "HmtlMuon"


def test_a_run_that_is_killed_and_resumed_ends_as_the_whole_one(data: Path, whole: Path, tmp_path: Path) -> None:
    args = arguments(data, tmp_path, *WHOLE, "--save-interval-updates", "5")
    killed = run([sys.executable, "-c", KILLED_WHILE_WRITING, *args], KILL_AT="3")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    train(args)
    assert_same_weights(weights(tmp_path), weights(whole))


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(data: Path, tmp_path: Path) -> None:
    options = (*MUON, *NO_DROPOUT, "--max-update", "5", "--disable-validation")
    train(arguments(data, tmp_path / "one", *options, "--update-freq", "2"))
    train_in_two_processes(arguments(data, tmp_path / "two", *options), port=29547)
    assert_same_weights(weights(tmp_path / "two"), weights(tmp_path / "one"))


def test_the_state_of_the_other_optimizer_is_refused_by_name(data: Path, tmp_path: Path) -> None:
    muon, adamw = arguments(data, tmp_path / "muon", *MUON), arguments(data, tmp_path / "adamw")
    for args in (muon, adamw):
        train([*args, "--max-update", "2"])
    other = ("--optimizer", "hmtl_adamw", "--max-update", "3")
    assert "trained with the optimizer HmtlMuon, this is HmtlAdamW" in error_of([*muon, *other])
    assert "trained with the optimizer HmtlAdamW, this is HmtlMuon" in error_of([*adamw, *MUON, "--max-update", "3"])


def test_it_learns(data: Path, whole: Path, tmp_path: Path) -> None:
    """With a schedule; the matrices' rate follows it, so that they are what they were when it begins at 0."""
    train(arguments(data, tmp_path, *MUON, "--max-update", "1"))
    first, last = weights(tmp_path), weights(whole)
    train(arguments(data, tmp_path / "adamw", "--max-update", "1"))
    assert_same_weights(first, weights(tmp_path / "adamw"))  # neither has moved
    keys = [key for key, value in first.items() if ".layers." in key and value.ndim == 2]
    assert len(keys) == 8
    for key in keys:
        moved = torch.linalg.svdvals(last[key] - first[key])
        assert moved.median() > 0.2 * moved.max(), key  # every direction: AdamW's few first ones dwarf the others


def test_rates_of_zero_are_refused_and_are_none_of_the_other_optimizers_business(data: Path, tmp_path: Path) -> None:
    args = arguments(data, tmp_path, *MUON, "--max-update", "2")
    assert "--matrix-lr 0: use a learning rate above 0" in error_of([*args, "--matrix-lr", "0"])
    zero = ("--lr", "0")
    assert "--lr 0: use a learning rate above 0" in error_of([*args, *zero])
    train([*args, *zero, "--optimizer", "hmtl_adamw"])
