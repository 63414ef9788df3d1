"""Processors and GPUs are given to runs, none to two; what cannot be is refused."""

import pytest
import torch

from hmtl_plugin.errors import UserError
from hmtl_plugin.study import slots
from hmtl_plugin.study.slots import Slot, find_slots


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight processors and four GPUs."""
    monkeypatch.setattr(slots, "cpu_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("jobs", "default", "count", "threads"), [(0, 0, 8, 1), (0, 2, 2, 4), (3, 2, 3, 2), (1, 0, 1, 8), (20, 0, 20, 1)]
)
def test_processors(jobs: int, default: int, count: int, threads: int) -> None:
    assert find_slots("cpu", jobs, default, 20) == [Slot((), threads)] * count


def test_gpus() -> None:
    assert find_slots("auto", 0, 3, 20) == [Slot((str(gpu),), 2) for gpu in range(4)]
    assert find_slots("0,2", 0, 0, 20) == [Slot(("0",), 4), Slot(("2",), 4)]
    pairs = find_slots("0+1,2+3", 0, 0, 20)
    assert pairs == [Slot(("0", "1"), 4), Slot(("2", "3"), 4)]
    assert [slot.processes for slot in pairs] == [2, 2] and pairs[0].device == "cuda"


@pytest.mark.parametrize(("runs", "threads"), [(1, 8), (2, 4), (3, 2), (8, 1)])
def test_few_runs_share_the_whole_machine(runs: int, threads: int) -> None:
    """As a task of a cluster's array, which has one."""
    assert find_slots("cpu", 0, 0, runs) == [Slot((), threads)] * runs
    assert find_slots("auto", 0, 0, 1) == [Slot(("0",), 8)]


def test_auto_without_gpus_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    (slot,) = find_slots("auto", 1, 0, 20)
    assert (slot.device, slot.processes, slot.threads) == ("cpu", 1, 8)


@pytest.mark.parametrize("devices", ["4", "0,0", "0+1,1", "x", "", "0,", "-1", "gpu"])
def test_gpus_that_cannot_be(devices: str) -> None:
    with pytest.raises(UserError, match="this machine has 4 GPUs; write cpu, auto"):
        find_slots(devices, 0, 0, 20)


def test_jobs_that_cannot_be() -> None:
    with pytest.raises(UserError, match="--jobs 2 is for the CPU"):
        find_slots("0,1", 2, 0, 20)
    with pytest.raises(UserError, match="--jobs -1: give 1 or more"):
        find_slots("cpu", -1, 0, 20)


def test_a_command_sees_its_gpus_and_threads_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMETHING", "else")
    environment = Slot(("2", "3"), 5).environment()
    assert environment["CUDA_VISIBLE_DEVICES"] == "2,3" and environment["OMP_NUM_THREADS"] == "5"
    assert environment["SOMETHING"] == "else"
    assert Slot((), 1).environment()["CUDA_VISIBLE_DEVICES"] == ""


def test_numbers_count_the_gpus_that_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster gives a job some of a machine's GPUs by this variable; a command must get these, not the machine's
    first.
    """
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-abc,7")
    assert Slot(("0", "1"), 1).environment()["CUDA_VISIBLE_DEVICES"] == "5,GPU-abc"
    assert Slot(("2",), 1).environment()["CUDA_VISIBLE_DEVICES"] == "7"
    assert Slot((), 1).environment()["CUDA_VISIBLE_DEVICES"] == ""
