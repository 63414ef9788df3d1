"""Samples by length."""

import numpy as np
import pytest

from hmtl_plugin.data import ordering
from hmtl_plugin.data.ordering import order_by_length


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
@pytest.mark.parametrize("count", [0, 1, 50])
def test_order_is_a_stable_sort_of_shuffled_samples(count: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "_BLOCK", block)
    sizes = np.random.default_rng(0).choice([5, 6, 128, 65535], count).astype(np.int32)
    shuffled = np.random.default_rng(3).permutation(count)
    expected = shuffled[np.argsort(sizes[shuffled], kind="stable")]
    order = order_by_length(sizes, np.random.default_rng(3))
    assert order.dtype == np.int64
    assert order.tolist() == expected.tolist()
