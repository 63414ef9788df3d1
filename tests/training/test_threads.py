"""A run that is resumed has as many threads as before: sums over two round otherwise than sums over one."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hmtl_plugin.commands.openmp_waiting import settings
from hmtl_plugin.fairseq_hooks import resuming
from hmtl_plugin.fairseq_hooks.resuming import CHOSEN, keep_threads
from tests.training.runs import arguments, assert_same_weights, fairseq_command, run, train, weights

OPTIONS = ("--lr", "1e-3", "--dropout", "0", "--attention-dropout", "0")
PROCESSORS = 4
OTHER = 2 if torch.get_num_threads() == 1 else 1


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_mark_is_that_of_openmp_waiting() -> None:
    chosen, _ = settings({}, 4, lambda seconds: 1.0)
    assert chosen.items() >= CHOSEN.items() and chosen["OMP_NUM_THREADS"] == "3"
    other, _ = settings({"OMP_NUM_THREADS": "4"}, 4, lambda seconds: 1.0)
    assert not other.items() >= CHOSEN.items()


@pytest.mark.parametrize(
    ("stored", "environ", "kept"),
    [
        ({"threads": OTHER}, {}, True),
        ({"threads": OTHER}, {"OMP_NUM_THREADS": "7", **CHOSEN}, True),
        ({"threads": OTHER}, {"OMP_NUM_THREADS": "7"}, False),
        ({"threads": OTHER}, {"OMP_NUM_THREADS": "7", "HMTL_WAITING": "busy"}, False),
        ({"threads": PROCESSORS + 1}, {}, False),
        ({}, {}, False),
    ],
)
def test_the_number_is_kept_unless_the_user_has_one(
    stored: dict[str, int],
    environ: dict[str, str],
    kept: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resuming, "cpu_count", lambda: PROCESSORS)
    now = torch.get_num_threads()
    with caplog.at_level(logging.INFO, "hmtl_plugin.fairseq_hooks.resuming"):
        keep_threads(stored, environ)
    assert torch.get_num_threads() == (OTHER if kept else now)
    assert len(caplog.messages) == bool(stored)
    if stored:
        assert ("as before" if kept else "may differ") in caplog.text


@pytest.mark.slow
def test_a_run_begun_on_one_thread_ends_to_the_bit_where_two_were_chosen(data: Path, tmp_path: Path) -> None:
    """As when the machine was busy at first and less so now. Wide enough that threads share the work."""
    shape = ("--encoder-embed-dim", "256", "--encoder-attention-heads", "4", "--max-tokens", "1600", *OPTIONS)
    whole, parts, lost = (tmp_path / name for name in ("whole", "parts", "lost"))
    one = {"OMP_NUM_THREADS": "1", **CHOSEN}
    two, users_two = {"OMP_NUM_THREADS": "2", **CHOSEN}, {"OMP_NUM_THREADS": "2", "HMTL_WAITING": "busy"}
    legs = [(whole, "6", one), (parts, "3", one), (parts, "6", two), (lost, "3", one), (lost, "6", users_two)]
    for folder, updates, environ in legs:
        done = run(fairseq_command(arguments(data, folder, *shape, "--max-update", updates)), **environ)
        assert done.returncode == 0, done.stderr
    assert_same_weights(weights(parts), weights(whole))
    one_thread, two_threads = weights(whole), weights(lost)
    assert any(not torch.equal(one_thread[key], two_threads[key]) for key in one_thread)  # else nothing is tested


def test_the_number_is_stored(data: Path, tmp_path: Path) -> None:
    train(arguments(data, tmp_path, "--max-update", "1"))
    state = torch.load(tmp_path / "checkpoint_last.pt", weights_only=True)
    assert state["task_state"]["threads"] == torch.get_num_threads()
