"""The large arrays of a data set's epoch: samples, their order, where batches end. The ranks of a node share them."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hmtl_plugin.corruption import random
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.pair_index import PairIndex, PairingConfig
from hmtl_plugin.data.pairing import build_pairs
from hmtl_plugin.data.shared_arrays import Arrays, SharedArrays, node_has_several_ranks


class EpochArrays:
    """Arrays that follow from a corpus, a seed and an epoch: computed, or where this node has several ranks, shared.

    Args:
        corpus, seed: of the data set.
        threads: for the pair index, see `build_pairs`.
    """

    def __init__(self, corpus: Corpus, seed: int, threads: int | None = None) -> None:
        self._corpus, self._seed, self._threads = corpus, seed, threads
        self._shared = SharedArrays()

    def get(self, epoch: int, what: tuple[object, ...], build: Callable[[], Arrays]) -> Arrays:
        """``build()``, or the same built by another rank.

        Args:
            what: name and options of the arrays, each with a ``repr`` that tells it from all others.

        Raises:
            UserError: if they cannot be shared.
        """
        if not node_has_several_ranks():
            return build()
        key = repr((_code(), np.__version__, self._corpus.fingerprint, self._seed, epoch, what))
        return self._shared.get(key, build)

    def pairs(self, epoch: int, config: PairingConfig) -> PairIndex:
        """The pair index of the epoch; the parameters and errors are those of `build_pairs`."""

        def build() -> Arrays:
            corpus = self._corpus
            return build_pairs(corpus.sizes, corpus.documents, config, self._seed, epoch, self._threads).arrays

        return PairIndex.of(self.get(epoch, ("pairs", config), build), config, self._seed, epoch)

    def shares(self, array: np.ndarray) -> bool:
        """Whether this very array is a shared one of `get`."""
        return self._shared.holds(array)

    def release(self) -> None:
        """The epoch is over: what is shared is held no longer."""
        self._shared.release()


@functools.cache
def _code() -> str:
    """A hash of what the arrays are made by: two versions of it may run on a node, and one may not read the other's."""
    files = [Path(random.__file__), *sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.blake2b(b"".join(path.read_bytes() for path in files), digest_size=16).hexdigest()
