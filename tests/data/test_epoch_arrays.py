"""What ranks of a node share of an epoch is what each would compute alone, bit for bit."""

import json
import multiprocessing.connection
import os
import pickle
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary

from hmtl_plugin.corruption.vocabulary import MASK, Vocabulary
from hmtl_plugin.data import dataset as dataset_module
from hmtl_plugin.data import ordering, pairing
from hmtl_plugin.data import shared_arrays as epoch_arrays
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.dataset import PretrainingDataset, SampleSpec
from hmtl_plugin.data.pairing import PairIndex, PairingConfig
from hmtl_plugin.errors import UserError
from hmtl_plugin.objectives.base import build_objectives

from .corpora import random_documents, write

LIMITS = {"max_tokens": 300, "max_sentences": 9, "required_batch_size_multiple": 4}


def make_corpus(folder: Path, seed: int = 0, rows: bool = False) -> str:
    """Documents of sentences of random words; ``rows``: of an even number each. Returns the prefix."""
    rng = np.random.default_rng(seed)
    items: list[list[int]] = []
    for document in random_documents(rng, 40, 20, 9.0):
        items += [
            rng.integers(5, 60, tokens).tolist() for tokens in document[: len(document) // 2 * 2 if rows else None]
        ]
        items.append([])
    folder.mkdir(exist_ok=True)
    return write(folder, items)


def open_dataset(prefix: str, *kinds: str, layout: str = "segments", **options: Any) -> PretrainingDataset:
    """With a view for each way of pairing."""
    dictionary = Dictionary()
    dictionary.add_symbol(MASK)
    for number in range(55):
        dictionary.add_symbol(f"\u2581w{number}")
    mlm = tuple(build_objectives(("mlm",)).values())
    views = [SampleSpec(kind, kind, mlm, ("mlm",)) for kind in kinds or ("nsp",)]
    config = PairingConfig(tokens_per_sample=48, layout=layout)
    return PretrainingDataset(Corpus(prefix), Vocabulary.from_dictionary(dictionary), views, config, **options)


def contents(data: PretrainingDataset) -> list[np.ndarray]:
    """All that follows from an epoch: samples, order, batches, and one batch itself."""
    indices: list[PairIndex] = data._indices
    order = data.ordered_indices()
    batches = data.batch_by_size(data.filter_indices_by_size(order, 48)[0], **LIMITS)
    sample = data.collater(batches[len(batches) // 2].tolist())
    columns = [array for index in indices for array in index.arrays.values()]
    keys = [np.array(index.cut_key) for index in indices]
    return [*columns, *keys, order, *batches, sample["net_input"]["src_tokens"].numpy()]


def assert_same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert [array.dtype for array in found] == [array.dtype for array in expected]
    assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Ranks of a node are data sets of this process; counts what is built."""
    counts: Counter[str] = Counter()

    def counting(name: str, build: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return build(*args, **kwargs)

        return counted

    (tmp_path / "shared").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "shared"))
    monkeypatch.setattr(epoch_arrays, "node_has_several_ranks", lambda: True)
    monkeypatch.setattr(epoch_arrays, "build_pairs", counting("pairs", pairing.build_pairs))
    monkeypatch.setattr(dataset_module, "order_by_length", counting("order", ordering.order_by_length))
    yield counts
    assert [path for path in (tmp_path / "shared").rglob("*") if not path.is_dir()] == []  # all given back


def alone(*args: Any, **kwargs: Any) -> list[np.ndarray]:
    """`contents` of a data set that shares nothing, of ``epoch`` (default 1)."""
    epoch = kwargs.pop("epoch", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(epoch_arrays, "node_has_several_ranks", lambda: False)
        patch.setattr(epoch_arrays, "build_pairs", pairing.build_pairs)
        patch.setattr(dataset_module, "order_by_length", ordering.order_by_length)
        data = open_dataset(*args, **kwargs)
        data.set_epoch(epoch)
        return contents(data)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("kinds", "layout"),
    [
        (("nsp",), "segments"),
        (("sop",), "segments"),
        (("single",), "segments"),
        (("nsp",), "rows"),
        (("nsp", "sop"), "segments"),
    ],
)
def test_shared_is_what_each_would_compute(
    tmp_path: Path, built: Counter[str], kinds: tuple[str, ...], layout: str, packed: bool
) -> None:
    prefix = make_corpus(tmp_path / "corpus", rows=layout == "rows")
    expected = alone(prefix, *kinds, layout=layout, packed=packed)
    ranks = [open_dataset(prefix, *kinds, layout=layout, packed=packed) for _ in range(3)]
    for data in ranks:
        data.set_epoch(1)
        assert_same(contents(data), expected)
        order = data.ordered_indices()
        assert data.filter_indices_by_size(order, 48)[0] is order  # no copy a rank
        assert np.shares_memory(data.batch_by_size(order, **LIMITS)[0], order)
    assert built == {"pairs": len(kinds)} | ({} if packed else {"order": 1})  # packed samples are in random order


def test_epochs_follow_each_other(tmp_path: Path, built: Counter[str]) -> None:
    prefix = make_corpus(tmp_path / "corpus")
    ranks = [open_dataset(prefix) for _ in range(2)]
    for epoch in (1, 2, 5):
        expected = alone(prefix, epoch=epoch)
        for data in ranks:
            data.set_epoch(epoch)
            assert_same(contents(data), expected)
        assert len(list((tmp_path / "shared").rglob("rows.npy"))) == 1  # the epoch before is gone
    assert built == {"pairs": 3, "order": 3}


def test_nothing_else_gets_these_samples(tmp_path: Path, built: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One data set for each thing that they depend on, all held at once."""
    prefix, other = make_corpus(tmp_path / "corpus"), make_corpus(tmp_path / "other", seed=1)
    held = [open_dataset(prefix)]
    assert_same(contents(held[0]), alone(prefix))
    for path, kinds, options in (
        (other, ("nsp",), {}),
        (prefix, ("sop",), {}),
        (prefix, ("nsp", "nsp"), {}),
        (prefix, ("nsp",), {"seed": 2}),
        (prefix, ("nsp",), {"fixed_epoch": 3}),
        (prefix, ("nsp",), {"packed": True}),
    ):
        held.append(open_dataset(path, *kinds, **options))
        epoch = options.get("fixed_epoch", 1)
        assert_same(contents(held[-1]), alone(path, *kinds, epoch=epoch, **options))
    make_corpus(tmp_path / "corpus", seed=2)  # the files are written anew
    held.append(open_dataset(prefix))
    assert_same(contents(held[-1]), alone(prefix))
    pairs = built["pairs"]
    monkeypatch.setattr(epoch_arrays, "_code", lambda: "another version")
    held.append(open_dataset(prefix))
    assert_same(contents(held[-1]), alone(prefix))
    assert built["pairs"] == pairs + 1


def test_some_of_the_samples_are_batched_as_ever(tmp_path: Path, built: Counter[str]) -> None:
    data = open_dataset(make_corpus(tmp_path / "corpus"))
    order = data.ordered_indices()
    chosen = order[::3].copy()
    assert np.concatenate(data.batch_by_size(chosen, **LIMITS)).tolist() == chosen.tolist()
    kept, left_out = data.filter_indices_by_size(order, 20)
    assert (data.sizes[kept] <= 20).all()
    assert len(kept) + len(left_out) == len(order)


def test_workers_and_copies_leave_the_files(tmp_path: Path, built: Counter[str]) -> None:
    prefix = make_corpus(tmp_path / "corpus")
    data = open_dataset(prefix)
    batches = data.batch_by_size(data.ordered_indices(), **LIMITS)
    loader: Any = torch.utils.data.DataLoader(
        data, batch_sampler=[batch.tolist() for batch in batches], collate_fn=data.collater, num_workers=2
    )
    copied = pickle.loads(pickle.dumps(data))
    for sample, batch in zip(loader, batches, strict=True):
        expected = data.collater(batch.tolist())["net_input"]["src_tokens"]
        assert torch.equal(sample["net_input"]["src_tokens"], expected)
        assert torch.equal(copied.collater(batch.tolist())["net_input"]["src_tokens"], expected)
    del copied, loader
    assert contents(open_dataset(prefix))
    assert built == {"pairs": 1, "order": 1}


def test_unusable_folder(tmp_path: Path, built: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(UserError, match=r"missing: the ranks of this node cannot share .*: set TMPDIR to a folder"):
        open_dataset(make_corpus(tmp_path / "corpus")).set_epoch(1)


def rank_of_two(rank: int, folder: Path, prefix: str) -> None:
    """A process of a training: what it gets of two epochs, and how often it built."""
    counts: Counter[str] = Counter()
    build = epoch_arrays.build_pairs

    def counted(*args: Any) -> PairIndex:
        counts["pairs"] += 1
        return build(*args)

    epoch_arrays.build_pairs = counted  # type: ignore[assignment]
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    data = open_dataset(prefix)
    for epoch in (1, 2):
        torch.distributed.barrier()
        data.set_epoch(epoch)
        np.savez(folder / f"rank{rank}-epoch{epoch}.npz", *contents(data))
    torch.distributed.barrier()
    (folder / f"rank{rank}.json").write_text(json.dumps(counts))


def first_failure(processes: list[Any]) -> Any:
    """Wait for processes; the first that fails ends all, for the others would wait for it."""
    waiting = {process.sentinel: process for process in processes}
    try:
        while waiting:
            for sentinel in multiprocessing.connection.wait(list(waiting), timeout=600) or waiting:
                process = waiting.pop(sentinel)
                process.join(10)
                if process.exitcode != 0:
                    return process
        return None
    finally:
        for process in processes:
            process.kill()
            process.join()


def test_two_processes_build_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = make_corpus(tmp_path / "corpus")
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv("TMPDIR", str(shared))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if "GLOO_SOCKET_IFNAME" not in os.environ:
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=rank_of_two, args=(rank, tmp_path, prefix)) for rank in range(2)]
    for process in ranks:
        process.start()
    assert [first_failure(ranks), *(process.exitcode for process in ranks)] == [None, 0, 0]
    for epoch in (1, 2):
        expected = alone(prefix, epoch=epoch)
        for rank in range(2):
            with np.load(tmp_path / f"rank{rank}-epoch{epoch}.npz") as found:
                assert_same([found[f"arr_{number}"] for number in range(len(found))], expected)
    counts = [json.loads((tmp_path / f"rank{rank}.json").read_text()).get("pairs", 0) for rank in range(2)]
    assert sum(counts) == 2  # one an epoch
    assert [path for path in shared.rglob("*") if not path.is_dir()] == []  # nothing is left at the end
