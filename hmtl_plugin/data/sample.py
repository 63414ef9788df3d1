"""A batch that a loader's worker hands to the trainer by value.

torch hands tensors over by shared memory: a file, a page fault a page and an exchange over a socket for each of the eight tensors of
a batch, which takes longer than making them. A batch of text is small: its bytes go through the pipe that tells of it anyway.
"""

from typing import Any

import numpy as np
import torch


class Sample(dict[str, Any]):
    """A dictionary of tensors, numbers and such dictionaries; pickled without shared memory, and a plain one when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _tensors, (_arrays(self),)


def _arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _arrays(item) for key, item in value.items()}
    return value.numpy() if isinstance(value, torch.Tensor) else value


def _tensors(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tensors(item) for key, item in value.items()}
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value
