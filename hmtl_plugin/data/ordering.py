"""Samples by length, so that batches need little padding; equal lengths in random order."""

import numpy as np
import numpy.typing as npt

from hmtl_plugin.data.corpus import Int64Array, blocks

_BLOCK = 1 << 20
_LENGTHS = 1 << 16  # a sample is shorter than this: see `hmtl_plugin.data.pairing`


def order_by_length(sizes: npt.NDArray[np.int32], random: np.random.Generator) -> Int64Array:
    """All samples, shuffled and then stably sorted by length.

    What a stable argsort of the shuffled sizes gives, by counting: where the samples of each length begin is known, so
    blocks of the shuffled samples, each sorted while it is in the cache, go to their places one after the other. Beside
    the result this holds 4 bytes a sample; sorting all at once held 28 more and waited for memory.

    Args:
        sizes: (samples,) tokens of each, below 65536.
        random: drawn from once for each sample.
    """
    shuffled: npt.NDArray[np.integer] = np.arange(len(sizes), dtype=np.uint32 if len(sizes) < 1 << 32 else np.int64)
    random.shuffle(shuffled)
    count = np.zeros(_LENGTHS, dtype=np.int64)
    for begin, end in blocks(0, len(sizes), _BLOCK):
        count += np.bincount(sizes[begin:end], minlength=_LENGTHS)
    place = np.cumsum(count) - count  # of the next sample of each length
    order = np.empty(len(sizes), dtype=np.int64)
    for begin, end in blocks(0, len(sizes), _BLOCK):
        block = shuffled[begin:end]
        length = sizes.take(block).astype(np.uint16)  # 16 bits: numpy sorts by radix
        count = np.bincount(length, minlength=_LENGTHS)
        first = np.cumsum(count) - count  # of each length among the sorted block
        at = np.repeat(place - first, count) + np.arange(len(block))
        order[at] = block.take(np.argsort(length, kind="stable"))
        place += count
    return order
