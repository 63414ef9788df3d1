"""Runs of the recipes: one that was begun before there was a table goes on to the bit; two phases of both positions."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.recipe.configurations import arguments_of
from tests.training.runs import PLUGIN, ROOT, assert_same_weights, train, weights

BATCHES = "--max-tokens 600 --cpu --num-workers 0 --disable-validation --no-epoch-checkpoints".split()
OLD = (
    "--task hmtl_pretraining --tokens-per-sample 128 --autocast auto --arch hmtl_bert_tiny --criterion hmtl "
    "--optimizer hmtl_adamw --weight-decay 0.01 --clip-norm 1.0 --lr 1e-3 --lr-scheduler polynomial_decay "
    "--warmup-updates 1 --total-num-update 12 --update-freq 1"
).split()
"""What recipes/pretrain.sh gave for '--max-update 12' before there was a table."""


def old(data: Path, run: Path, updates: int) -> list[str]:
    return [str(data), "--user-dir", PLUGIN, "--save-dir", str(run), *OLD, *BATCHES, "--max-update", str(updates)]


def new(data: Path, run: Path) -> list[str]:
    options = arguments_of("tiny", run, *BATCHES, "--max-update", "12").arguments
    fixed = ["--task", "hmtl_pretraining", "--criterion", "hmtl"]
    return [str(data), "--user-dir", PLUGIN, "--save-dir", str(run), *fixed, *options]


def test_a_run_that_was_begun_before_the_table_goes_on_to_the_bit(data: Path, tmp_path: Path) -> None:
    begun, explicit, recipe = (tmp_path / name for name in ("begun", "explicit", "recipe"))
    train(old(data, begun, 6))
    for run in (explicit, recipe):
        shutil.copytree(begun, run)
    train(old(data, explicit, 12))
    train(new(data, recipe))
    assert_same_weights(weights(recipe), weights(explicit))
    before = weights(begun)
    assert any(not torch.equal(before[key], value) for key, value in weights(recipe).items())  # it went on
    train(new(data, tmp_path / "fresh"))
    assert weights(tmp_path / "fresh").keys() != before.keys()  # and the table is another one by now


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    """The recipes with this Python for their environment."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "hmtl_plugin").symlink_to(PLUGIN)
    (tmp_path / "scripts" / "setup.sh").write_text(f"echo {sys.executable}\n")
    return tmp_path / "recipes"


def shell(recipe: Path, *arguments: str | Path) -> str:
    """What a recipe says on stderr."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = ["bash", str(recipe), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stderr


@pytest.mark.slow
def test_pretrain_goes_on_with_what_a_run_was_begun_with(recipes: Path, data: Path, tmp_path: Path) -> None:
    run, explicit = tmp_path / "run", tmp_path / "explicit"
    train(old(data, run, 6))
    shutil.copytree(run, explicit)
    train(old(data, explicit, 12))
    said = shell(recipes / "pretrain.sh", data, run, "tiny", *BATCHES, "--max-update", "12")
    assert f"{run} was begun with --optimizer hmtl_adamw, " in said and "--positions learned" in said
    assert_same_weights(weights(run), weights(explicit))


@pytest.mark.slow
@pytest.mark.parametrize("mine", [[], ["--positions", "learned"]], ids=["rotary", "learned"])
def test_two_phases(recipes: Path, data: Path, tmp_path: Path, mine: list[str]) -> None:
    run = tmp_path / "run"
    shell(recipes / "two_phase.sh", data, run, "tiny", "--max-update", "20", *BATCHES, *mine)
    phases = [torch.load(run / name / "checkpoint_last.pt", weights_only=True) for name in ("phase1", "phase2")]
    assert [phase["optimizer_history"][-1]["num_updates"] for phase in phases] == [18, 2]
    model = [phase["cfg"]["model"] for phase in phases]
    assert [each["positions"] for each in model] == [mine[1] if mine else "rotary"] * 2
    assert [each["max_positions"] for each in model] == [128, 512]
    first, second = (weights(run / name) for name in ("phase1", "phase2"))
    key = next(key for key in first if key.endswith("layers.0.attention.out.weight") or ".layers.0." in key)
    assert not torch.equal(first[key], second[key])
    assert (first[key] - second[key]).norm() < first[key].norm() / 2  # it started from the first phase
