"""The pre-training data set: samples are numbers, everything else happens for a whole batch in the
collater.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hmtl_plugin.corruption import contract
from hmtl_plugin.corruption.base import Corruption
from hmtl_plugin.corruption.batch import IGNORE, FlatBatch
from hmtl_plugin.corruption.corrupt import corrupt_batch
from hmtl_plugin.corruption.random import BatchRandom
from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.data.batching import NumberedDataset, pack
from hmtl_plugin.data.corpus import Corpus, Int64Array
from hmtl_plugin.data.ordering import order_by_length
from hmtl_plugin.data.pairing import PairIndex, PairingConfig
from hmtl_plugin.data.shared_arrays import Arrays, EpochArrays


class Sample(dict[str, Any]):
    """A dictionary of tensors, numbers and such dictionaries; pickled without shared memory, and a plain one when
    unpickled.
    """

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


@dataclass(frozen=True)
class SampleSpec:
    """One way of turning the corpus into samples.

    Training has one view with every placed objective. Validation has a common one (pairs and masks, no
    shifts), whose numbers compare across hierarchies, and one more for each objective that needs samples of
    its own.

    Attributes:
        name: for messages.
        kind: how sentences are paired.
        corrupting: objectives whose corruption runs, in order of their ``rank``.
        keep: names of the targets that reach the trainer.
        still: names of objectives that may change no token.
    """

    name: str
    kind: str
    corrupting: tuple[Corruption, ...]
    keep: tuple[str, ...]
    still: frozenset[str] = frozenset()


class PretrainingDataset(NumberedDataset):
    """Samples of one or several views of a corpus, one view after the other.

    A sample's content is a pure function of (seed, epoch, index); see `hmtl_plugin.corruption.random`.

    Args:
        corpus, vocabulary: the text and what is known of its token ids.
        views: at least one. SampleSpec v owns the indices ``starts[v]:starts[v + 1]``.
        pairing: how sentences become samples; its ``kind`` gives way to that of each view.
        seed: of all draws.
        fixed_epoch: the epoch whose samples are given whatever `set_epoch` says (validation).
        pad_to_multiple: batches are padded to a length that is a multiple of it.
        packed: batches hold their samples end to end, without padding.
        threads: for the pair index, see `build_pairs`.

    Attributes:
        pairing: how sentences are paired, by the kind of a view.
    """

    def __init__(
        self,
        corpus: Corpus,
        vocabulary: Vocabulary,
        views: Sequence[SampleSpec],
        pairing: PairingConfig | None = None,
        *,
        seed: int = 1,
        fixed_epoch: int | None = None,
        pad_to_multiple: int = 1,
        packed: bool = False,
        threads: int | None = None,
    ) -> None:
        super().__init__()
        if not views:
            raise ValueError("a data set needs at least one view")
        self.corpus, self.vocabulary, self.views = corpus, vocabulary, tuple(views)
        self.pairing = {view.kind: replace(pairing or PairingConfig(), kind=view.kind) for view in self.views}
        self.seed, self.fixed_epoch, self.epoch = seed, fixed_epoch, fixed_epoch or 1
        self.pad_to_multiple, self.packed = pad_to_multiple, packed
        self._checked = contract.asked_for()  # here, not a batch
        self._arrays = EpochArrays(corpus, seed, threads)

    # ---- the epoch ----

    def set_epoch(self, epoch: int) -> None:
        """Pair the corpus anew for ``epoch`` (from 1); workers must be started after it
        (``persistent_workers=False``).
        """
        if self.fixed_epoch is None and epoch != self.epoch:
            self.epoch = epoch
            for name in ("_indices", "starts", "sizes", "mean_tokens"):
                self.__dict__.pop(name, None)
            self._arrays.release()
        _ = self._indices  # before any worker is forked, so that all share it

    @cached_property
    def _indices(self) -> list[PairIndex]:
        """The pair index of each view; views of one kind share theirs."""
        built = {kind: self._arrays.pairs(self.epoch, config) for kind, config in self.pairing.items()}
        return [built[view.kind] for view in self.views]

    @cached_property
    def starts(self) -> Int64Array:
        """(views + 1,) first index of each view, and the number of samples."""
        return np.append(0, np.cumsum([len(index) for index in self._indices]))

    @cached_property
    def sizes(self) -> npt.NDArray[np.int32]:
        """Tokens of each sample, special tokens included."""
        if len(self._indices) == 1:
            return self._indices[0].sizes
        return np.concatenate([index.sizes for index in self._indices])

    @cached_property
    def mean_tokens(self) -> float:
        """The epoch's mean tokens a sample: how many tokens a sentence target stands for in the loss."""
        return float(self.sizes.mean(dtype=np.float64))

    # ---- what the trainer asks ----

    def __len__(self) -> int:
        return int(self.starts[-1])

    def ordered_indices(self) -> Int64Array:
        """All samples: by length, so that batches need little padding, equal lengths in random order; packed, in random
        order.

        The order depends on seed and epoch alone, not on numpy's global generator.
        """

        def build() -> Arrays:
            random = np.random.default_rng((self.seed, self.epoch))
            return {"order": random.permutation(len(self)) if self.packed else order_by_length(self.sizes, random)}

        return self._arrays.get(self.epoch, ("order", self._samples, self.packed), build)["order"]

    @property
    def _samples(self) -> tuple[PairingConfig, ...]:
        """What the samples depend on beside corpus, seed and epoch."""
        return tuple(self.pairing[view.kind] for view in self.views)

    def filter_indices_by_size(self, indices: Int64Array, max_sizes: Any) -> tuple[Int64Array, list[int]]:
        """fairseq's, without a copy of the indices where no sample can be too long."""
        longest = max(config.tokens_per_sample for config in self._samples)
        if isinstance(max_sizes, int) and longest <= max_sizes:
            return indices, []
        return super().filter_indices_by_size(indices, max_sizes)

    def batch_by_size(
        self,
        indices: Int64Array,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[Int64Array]:
        """Batches of at most so many tokens, padding counted, and samples; packed ones are of any number of samples."""
        if self._arrays.shares(indices):  # all samples in order, not some chosen by the caller
            return self._shared_batches(indices, max_tokens, max_sentences, required_batch_size_multiple)
        if not self.packed:
            return super().batch_by_size(indices, max_tokens, max_sentences, required_batch_size_multiple)
        return [indices[run] for run in pack(self.sizes[indices], max_tokens, max_sentences)]

    def _shared_batches(self, order: Int64Array, *limits: int | None) -> list[Int64Array]:
        """Batches as views of the shared order: finding where they end takes several times the order's memory."""

        def build() -> Arrays:
            batches = self.batch_by_size(order.view(), *limits)  # type: ignore[arg-type]
            return {"ends": np.cumsum([len(batch) for batch in batches])}

        ends = self._arrays.get(self.epoch, ("batches", self._samples, self.packed, limits), build)["ends"].tolist()
        return [order[begin:end] for begin, end in pairwise([0, *ends])]

    def collater(self, samples: list[int]) -> dict[str, Any]:
        """The trainer's batch of the samples with these numbers; rows are grouped by view. ``{}`` for no
        samples.

        Returns:
            ``id`` (B,), ``first_id`` (which stays on the host), ``nsentences`` B, ``ntokens`` tokens that are
            no padding, ``mean_tokens`` of the epoch, ``net_input``: ``src_tokens`` (B, T) long and
            ``padded``, whether any row is shorter than T; packed: ``src_tokens`` (N,), ``starts`` (B + 1,) int32 and
            ``longest`` (see `hmtl_plugin.models.sequences.Packing`); ``targets``: name -> ``positions`` (M,) in the
            flattened tokens, or of samples for sentence targets, and ``labels`` (M,): long classes, or numbers in fp64.
        """
        if not samples:
            return {}
        index = np.asarray(samples, dtype=np.int64)
        batches = []
        for number, view in enumerate(self.views):
            low, high = self.starts[number], self.starts[number + 1]
            chosen = index if len(self.views) == 1 else index[(index >= low) & (index < high)]
            if len(chosen):
                batches.append((view, chosen, self.flat_batch(number, chosen - low)))
        return self._collate(batches)

    def flat_batch(self, view: int, index_B: Int64Array) -> FlatBatch:
        """The corrupted samples ``index_B`` of a view (counted within it), flat."""
        batch = self._indices[view].batch(self.corpus, index_B, self.vocabulary)
        random = BatchRandom(self.seed, self.epoch, index_B, batch.sample_N, batch.position_N)
        corrupt_batch(self.views[view].corrupting, batch, random, self.views[view].still, self._checked)
        return batch

    def _collate(self, batches: list[tuple[SampleSpec, Int64Array, FlatBatch]]) -> dict[str, Any]:
        rows = sum(len(chosen) for _, chosen, _ in batches)
        longest = max(int(batch.lengths_B.max()) for _, _, batch in batches)
        count = sum(len(batch.tokens_N) for _, _, batch in batches)
        width = 0 if self.packed else -(-longest // self.pad_to_multiple) * self.pad_to_multiple
        size = count if self.packed else rows * width
        tokens = np.empty(size, np.int64) if count == size else np.full(size, self.vocabulary.pad, dtype=np.int64)
        found: dict[str, list[tuple[Int64Array, npt.NDArray[Any]]]] = {}
        row = begin = 0
        for view, chosen, batch in batches:
            length = len(batch.tokens_N)
            place_N = slice(begin, begin + length) if self.packed else _places(batch, width, row)
            tokens[place_N] = batch.tokens_N
            for name in view.keep:
                if name in batch.targets:
                    labels = batch.targets[name]
                    at = np.flatnonzero(labels == labels if labels.dtype.kind == "f" else labels != IGNORE)
                    if len(labels) == length:
                        positions = at + place_N.start if isinstance(place_N, slice) else place_N.take(at)
                    else:
                        positions = at + row
                    found.setdefault(name, []).append((positions, labels.take(at)))
            row, begin = row + len(chosen), begin + length
        if self.packed:
            starts = np.append(0, np.cumsum(np.concatenate([batch.lengths_B for _, _, batch in batches])))
            net_input = {
                "src_tokens": torch.from_numpy(tokens),
                "starts": torch.from_numpy(starts.astype(np.int32)),
                "longest": longest,
            }
        else:
            net_input = {"src_tokens": torch.from_numpy(tokens.reshape(rows, width)), "padded": count < size}
        sample = {
            "id": torch.from_numpy(np.concatenate([chosen for _, chosen, _ in batches])),
            "first_id": int(batches[0][1][0]),
            "nsentences": rows,
            "ntokens": count,
            "mean_tokens": self.mean_tokens,
            "net_input": net_input,
            "targets": {name: _join(parts) for name, parts in found.items()},
        }
        return Sample(sample)


def _places(batch: FlatBatch, width: int, row: int) -> Int64Array | slice:
    """Where the batch's tokens lie in the flattened rows of ``width`` tokens, its first sample being row ``row``."""
    rows, count = len(batch.lengths_B), len(batch.tokens_N)
    if count == rows * width:  # nothing to pad: the flat batch is what we want
        return slice(row * width, row * width + count)
    shift_B = (row + np.arange(rows)) * width - batch.offsets[:-1]
    place_N = np.repeat(shift_B, batch.lengths_B)
    place_N += np.arange(count)
    return place_N


def _join(parts: list[tuple[Int64Array, npt.NDArray[Any]]]) -> dict[str, torch.Tensor]:
    positions, labels = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
    kind = np.float64 if labels.dtype.kind == "f" else np.int64  # fairseq makes half precision of fp32 labels
    return {"positions": torch.from_numpy(positions), "labels": torch.from_numpy(labels.astype(kind, copy=False))}
