"""The learning rate's schedule ends with the training, however many processes share a batch."""

from types import SimpleNamespace
from typing import Any

import pytest
from fairseq.data.iterators import EpochBatchIterator, GroupedIterator
from torch.utils.data import Dataset

from hmtl_plugin.finetuning import experiment
from hmtl_plugin.finetuning.experiment import Run

ROWS, BATCH, EPOCHS = 1003, 32, 3


class Rows(Dataset[int]):
    """As a fairseq data set of so many rows."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, number: int) -> int:
        return number

    def set_epoch(self, epoch: int) -> None:
        """Nothing changes."""


def updates_made(processes: int, together: int) -> int:
    """By fairseq: batches of each process's size, dealt to the processes."""
    size = BATCH // processes
    batches = [list(range(begin, min(begin + size, ROWS))) for begin in range(0, ROWS, size)]
    epoch = EpochBatchIterator(Rows(), list, batches, num_shards=processes, shard_id=0).next_epoch_itr(shuffle=False)
    return EPOCHS * sum(1 for _ in GroupedIterator(epoch, together))


@pytest.mark.parametrize("together", [1, 4])
@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_updates_are_those_that_fairseq_makes(processes: int, together: int, tmp_path: Any) -> None:
    cell = {"batch-size": str(BATCH), "epochs": str(EPOCHS)}
    run = Run(tmp_path, cell, 1, {})
    task: Any = SimpleNamespace(batches=lambda size: -(-ROWS // size))
    settings: Any = SimpleNamespace(processes=processes, options=("--dropout", "0", "--update-freq", str(together)))
    assert experiment._updates(task, [run], settings) == updates_made(processes, together)


def test_without_an_option_every_batch_is_an_update() -> None:
    assert experiment.update_frequency(()) == 1
    assert experiment.update_frequency(("--update-freq=2", "--cpu")) == 2
