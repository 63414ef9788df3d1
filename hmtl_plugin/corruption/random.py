"""Counter-based randomness: a draw is a pure function of (seed, epoch, stream, index, counter).

Nothing has a state that could be frozen in a worker, shared between ranks or lost on resume, and a whole batch is
drawn in a few array operations. The bits come from the SplitMix64 finaliser (Steele, Lea, Flood 2014), which
passes BigCrush over consecutive counters; every stream has a key of its own, so adding one changes no other's draws.
Numpy's counter-based generators draw runs of counters, not those of a whole batch of samples.
"""

import hashlib

import numpy as np
import numpy.typing as npt

UInt64Array = npt.NDArray[np.uint64]
FloatArray = npt.NDArray[np.float64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_UNIT = 2.0**-53


def stream_key(seed: int, epoch: int, stream: str) -> np.uint64:
    """64-bit key of a named stream; different names, seeds or epochs give unrelated keys."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{stream}".encode(), digest_size=8).digest()
    return np.frombuffer(digest, dtype="<u8")[0]


def mix(state: UInt64Array) -> UInt64Array:
    """SplitMix64's finaliser, a bijection on 64-bit integers; works in place on ``state`` and returns it."""
    shifted = state >> np.uint64(30)
    state ^= shifted
    state *= _MIX_1
    state ^= np.right_shift(state, np.uint64(27), out=shifted)
    state *= _MIX_2
    state ^= np.right_shift(state, np.uint64(31), out=shifted)
    return state


def bits(key: np.uint64 | UInt64Array, counter: npt.ArrayLike) -> UInt64Array:
    """64 random bits for each counter (any integer array) under ``key`` (one, or an array that broadcasts)."""
    state: UInt64Array = np.asarray(counter).astype(np.uint64)  # always a copy: mixed in place
    state *= GOLDEN
    if isinstance(key, np.ndarray) and key.shape != state.shape:
        state = state + key
    else:
        state += key
    return mix(state)


def uniform(key: np.uint64 | UInt64Array, counter: npt.ArrayLike) -> FloatArray:
    """Uniform draws in [0, 1), one for each counter."""
    state = bits(key, counter)
    state >>= np.uint64(11)
    draws: FloatArray = state.view(np.int64).astype(np.float64)  # signed: one instruction
    draws *= _UNIT
    return draws


class BatchRandom:
    """Draws for a batch of B samples with N tokens in all; each named stream is independent of every other.

    Args:
        seed, epoch: of the run.
        index_B: each sample's index in the epoch. A sample's draws depend on nothing else, so they do not change
            with the batch it lands in, the worker or the rank.
        sample_N, position_N: each token's row in the batch and position in its sample.
    """

    def __init__(
        self, seed: int, epoch: int, index_B: npt.NDArray[np.int64], sample_N: npt.NDArray, position_N: npt.NDArray
    ) -> None:
        self._seed, self._epoch = seed, epoch
        self._index_B, self._sample_N, self._position_N = index_B, sample_N, position_N

    def per_sample(self, stream: str) -> FloatArray:
        """(B,) uniform draws, one for each sample."""
        return uniform(stream_key(self._seed, self._epoch, stream), self._index_B)

    def per_token(self, stream: str, where: npt.NDArray[np.int64] | None = None) -> FloatArray:
        """Uniform draws, one for each token: all N of them, or those at the token indices ``where``."""
        key_B = bits(stream_key(self._seed, self._epoch, stream), self._index_B)
        if where is None:
            return uniform(key_B.take(self._sample_N), self._position_N)
        return uniform(key_B.take(self._sample_N.take(where)), self._position_N.take(where))
