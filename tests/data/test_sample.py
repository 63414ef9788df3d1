"""Batches go from worker to trainer by value, whole and writable."""

import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from hmtl_plugin.data.dataset import Sample


def sample(number: int = 3) -> Sample:
    targets = {"mlm": {"positions": torch.arange(number), "labels": torch.zeros(0, dtype=torch.long)}}
    net_input = {"src_tokens": torch.full((2, number), 7), "starts": torch.tensor([0, 3], dtype=torch.int32)}
    return Sample({"nsentences": 2, "mean_tokens": 1.5, "net_input": net_input | {"padded": True}, "targets": targets})


def assert_equal(found: Any, expected: Any) -> None:
    assert type(found) is (dict if isinstance(expected, dict) else type(expected))
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_equal(found[key], expected[key])
    elif isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and torch.equal(found, expected)
        found += 1  # writable
    else:
        assert found == expected


def test_round_trip_as_torch_sends_it_to_another_process() -> None:
    assert_equal(pickle.loads(ForkingPickler.dumps(sample())), sample())


def test_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.UntypedStorage, "share_memory_", lambda self: pytest.fail("shared memory"))
    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", lambda self: pytest.fail("shared memory"))
    with pytest.raises(pytest.fail.Exception):
        ForkingPickler.dumps(dict(sample()))  # as torch would
    ForkingPickler.dumps(sample())


@pytest.mark.parametrize("workers", [0, 1])
def test_through_a_loader(workers: int) -> None:
    loader: DataLoader[Any] = DataLoader(
        range(6), batch_size=3, collate_fn=lambda rows: sample(len(rows)), num_workers=workers
    )  # type: ignore[arg-type]
    for found in loader:
        assert_equal(dict(found), dict(sample()))
