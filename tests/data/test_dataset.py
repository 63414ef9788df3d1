"""Batches: what the samples say, how they are laid out, and that nothing but (seed, epoch, index) decides
it.
"""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary, data_utils
from fairseq.data.indexed_dataset import MMapIndexedDataset
from hypothesis import given, settings
from hypothesis import strategies as st

import hmtl_plugin.objectives  # noqa: F401  registers the objectives
from hmtl_plugin.corruption.random import bits, stream_key
from hmtl_plugin.corruption.vocabulary import MASK, Vocabulary
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.dataset import PretrainingDataset, SampleSpec
from hmtl_plugin.data.pairing import PairIndex, PairingConfig, build_pairs
from hmtl_plugin.objectives.base import Objective, build_objectives

from .corpora import random_documents, write

LENGTH = 48


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    dictionary = Dictionary()
    dictionary.add_symbol(MASK)
    for number in range(195):
        dictionary.add_symbol(("\u2581" if number % 3 else "") + chr(97 + number % 26) * (1 + number // 26))
    return Vocabulary.from_dictionary(dictionary)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    rng = np.random.default_rng(0)
    items: list[list[int]] = []
    for document in random_documents(rng, 60, 20, 9.0):
        items += [rng.integers(5, 200, tokens).tolist() for tokens in document]
        items += [[]] * int(rng.integers(1, 3))
    items += [
        rng.integers(5, 200, 300).tolist(),
        [7, 8],
    ]  # a sentence longer than any sample, no last separator
    return Corpus(write(tmp_path_factory.mktemp("corpus"), items))


def objectives(*names: str) -> tuple[Objective, ...]:
    return tuple(build_objectives(names).values())


def view(kind: str, *names: str) -> SampleSpec:
    placed = objectives(*names)
    return SampleSpec(kind, kind, placed, tuple(target for objective in placed for target in objective.target_names))


def dataset(corpus: Corpus, vocabulary: Vocabulary, *views: SampleSpec, **options: Any) -> PretrainingDataset:
    return PretrainingDataset(corpus, vocabulary, views, PairingConfig(tokens_per_sample=LENGTH), **options)


def everything(corpus: Corpus, vocabulary: Vocabulary, **options: Any) -> PretrainingDataset:
    return dataset(corpus, vocabulary, view("nsp", "bigram_shift", "nsp", "mlm"), **options)


def kept_by_bert(a: int, b: int, room: int) -> tuple[int, int]:
    while a + b > room:
        if a > b:
            a -= 1
        else:
            b -= 1
    return a, b


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 200), st.integers(0, 200), st.integers(5, 100), st.integers(0, 2**31))
def test_truncation_is_that_of_bert(a: int, b: int, length: int, start: int) -> None:
    nothing: Any = np.zeros(0, np.int64)
    config = PairingConfig(tokens_per_sample=length)
    index = PairIndex(nothing, nothing, config, np.uint64(77))
    total, paired = np.array([[a + 1, b]]), np.array([b > 0])
    keep, skip = index._truncation(total, paired, np.array([start]))
    assert tuple(keep[0]) == kept_by_bert(a + 1, b, length - 2 - (b > 0))
    assert ((skip >= 0) & (skip <= total - keep)).all()


def sample_by_hand(
    corpus: Corpus, items: MMapIndexedDataset, index: PairIndex, number: int
) -> tuple[list[int], list[bool]]:
    """Tokens and sentence starts of one sample, token by token."""
    segments = [
        (index.rows["a_start"][number], index.rows["a_count"][number]),
        (index.rows["b_start"][number], index.rows["b_count"][number]),
    ]
    texts = [
        [
            (token, place == 0)
            for item in range(start, start + count)
            for place, token in enumerate(items[item][:-1].tolist())
        ]
        for start, count in ((int(s), int(c)) for s, c in segments)
    ]
    room = index.config.tokens_per_sample - (3 if texts[1] else 2)
    keeps = kept_by_bert(len(texts[0]), len(texts[1]), room)
    draw = int(bits(index.cut_key, index.rows["a_start"][number : number + 1])[0])
    sample = [(0, False)]
    for text, keep, ratio in zip(texts, keeps, (draw % 2**32, draw >> 32), strict=True):
        skip = ratio * (len(text) - keep + 1) >> 32
        if text:
            kept = text[skip : skip + keep]
            sample += [*kept, (2, False)]
    return [token for token, _ in sample], [start for _, start in sample]


@pytest.mark.parametrize("kind", ["nsp", "sop", "single"])
def test_batches_hold_the_corpus(corpus: Corpus, vocabulary: Vocabulary, kind: str) -> None:
    index = build_pairs(corpus.sizes, corpus.documents, PairingConfig(kind, LENGTH), 1, 1)
    items = MMapIndexedDataset(corpus.prefix)
    chosen = np.random.default_rng(1).permutation(len(index))
    batch = index.batch(corpus, chosen, vocabulary)
    assert np.array_equal(batch.lengths_B, index.sizes[chosen])
    assert np.array_equal(batch.index_B, chosen)
    for row, number in enumerate(chosen.tolist()):
        part = slice(batch.offsets[row], batch.offsets[row + 1])
        tokens, starts = sample_by_hand(corpus, items, index, number)
        assert batch.tokens_N[part].tolist() == tokens
        # what is left of a sentence cut at its front counts as its start
        first = np.flatnonzero(np.isin(batch.tokens_N[part][:-1], (0, 2))) + 1
        expected = np.array(starts)
        expected[first] = True
        assert batch.sentence_start_N[part].tolist() == expected.tolist()
    if kind == "single":
        assert batch.targets == {}
    else:
        assert np.array_equal(batch.targets[kind], index.rows["label"][chosen])


def test_batch_layout(corpus: Corpus, vocabulary: Vocabulary) -> None:
    data = everything(corpus, vocabulary)
    ids = data.ordered_indices()[::3][:40]
    sample = data.collater(ids.tolist())
    tokens = sample["net_input"]["src_tokens"]
    assert tokens.dtype == torch.long
    assert sample["id"].tolist() == ids.tolist()
    assert sample["nsentences"] == len(tokens) == 40
    lengths = torch.tensor(data.sizes[ids])
    assert tokens.shape[1] == lengths.max()
    assert torch.equal((tokens != vocabulary.pad).sum(1), lengths.long())
    assert (tokens[:, 0] == vocabulary.bos).all()
    assert (tokens[torch.arange(40), lengths.long() - 1] == vocabulary.eos).all()
    assert sample["ntokens"] == int(lengths.sum())
    assert sample["net_input"]["padded"] is True
    assert sample["mean_tokens"] == pytest.approx(data.sizes.mean())
    assert data.collater(data.ordered_indices()[-8:].tolist())["net_input"]["padded"] is False


def test_targets_point_at_their_tokens(corpus: Corpus, vocabulary: Vocabulary) -> None:
    plain = dataset(corpus, vocabulary, view("nsp", "nsp"))
    masked = dataset(corpus, vocabulary, view("nsp", "mlm", "nsp"))
    ids = plain.ordered_indices()[:64].tolist()
    before, after = plain.collater(ids), masked.collater(ids)
    original, tokens = (sample["net_input"]["src_tokens"].flatten() for sample in (before, after))
    target = after["targets"]["mlm"]
    assert torch.equal(original[target["positions"]], target["labels"])
    untouched = torch.ones(len(tokens), dtype=torch.bool)
    untouched[target["positions"]] = False
    assert torch.equal(tokens[untouched], original[untouched])
    assert len(target["positions"]) > 50
    assert torch.equal(after["targets"]["nsp"]["labels"], before["targets"]["nsp"]["labels"])
    assert after["targets"]["nsp"]["positions"].tolist() == list(range(64))


def test_shifted_words_keep_the_tokens_of_their_sample(corpus: Corpus, vocabulary: Vocabulary) -> None:
    plain = dataset(corpus, vocabulary, view("nsp", "nsp"))
    shifted = dataset(corpus, vocabulary, view("nsp", "bigram_shift"))
    ids = plain.ordered_indices().tolist()
    before, after = (data.collater(ids)["net_input"]["src_tokens"] for data in (plain, shifted))
    assert not torch.equal(before, after)
    assert torch.equal(before.sort(1).values, after.sort(1).values)


def rows_of(sample: dict[str, Any]) -> dict[int, tuple[Any, ...]]:
    """Everything a batch says of each sample, by id, whatever the batch's width."""
    tokens = sample["net_input"]["src_tokens"]
    width = tokens.shape[1]
    told: dict[int, list[Any]] = {number: [] for number in sample["id"].tolist()}
    numbers = sample["id"].tolist()
    for row, number in enumerate(numbers):
        told[number].append(tuple(token for token in tokens[row].tolist() if token != 1))
    for name, target in sorted(sample["targets"].items()):
        for position, label in zip(target["positions"].tolist(), target["labels"].tolist(), strict=True):
            row, place = (position, 0) if name in ("nsp", "sop") else divmod(position, width)
            told[numbers[row]].append((name, place, label))
    return {number: tuple(said) for number, said in told.items()}


def test_samples_do_not_depend_on_their_batch(corpus: Corpus, vocabulary: Vocabulary) -> None:
    data = everything(corpus, vocabulary)
    ids = np.random.default_rng(0).permutation(len(data)).tolist()
    together = rows_of(data.collater(ids))
    assert together == rows_of(data.collater(sorted(ids)))
    for size in (1, 7):
        for first in range(0, 42, size):
            part = rows_of(data.collater(ids[first : first + size]))
            assert part == {number: together[number] for number in ids[first : first + size]}


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_same_batches(corpus: Corpus, vocabulary: Vocabulary, workers: int) -> None:
    def batches(number: int, epoch: int) -> list[dict[int, tuple[Any, ...]]]:
        data = everything(corpus, vocabulary)
        data.set_epoch(epoch)
        sampler = np.array_split(data.ordered_indices(), 9)
        loader: torch.utils.data.DataLoader = torch.utils.data.DataLoader(
            data,
            batch_sampler=[part.tolist() for part in sampler],
            collate_fn=data.collater,
            num_workers=number,
        )
        return [rows_of(sample) for sample in loader]

    for epoch in (1, 3):
        assert batches(workers, epoch) == batches(0, epoch)


def test_pickled_copy_gives_the_same_batches(corpus: Corpus, vocabulary: Vocabulary) -> None:
    data = everything(corpus, vocabulary)
    data.set_epoch(4)
    again = pickle.loads(pickle.dumps(data))
    assert rows_of(again.collater([3, 1, 2])) == rows_of(data.collater([3, 1, 2]))


def test_epochs(corpus: Corpus, vocabulary: Vocabulary) -> None:
    data = everything(corpus, vocabulary)
    fixed = everything(corpus, vocabulary, fixed_epoch=1)
    first, length, mean = rows_of(data.collater([0, 1, 2])), len(data), data.mean_tokens
    index = data._indices[0]
    data.set_epoch(1)
    assert data._indices[0] is index  # nothing is built twice
    for each in (data, fixed):
        each.set_epoch(2)
    assert rows_of(data.collater([0, 1, 2])) != first
    assert (len(data), data.mean_tokens) != (length, mean)
    assert len(data.sizes) == len(data) == len(data.ordered_indices())
    assert rows_of(fixed.collater([0, 1, 2])) == first
    data.set_epoch(1)
    assert rows_of(data.collater([0, 1, 2])) == first
    assert not data.can_reuse_epoch_itr_across_epochs


def test_order_is_by_length_and_its_own(corpus: Corpus, vocabulary: Vocabulary) -> None:
    data = everything(corpus, vocabulary)
    order = data.ordered_indices()
    np.random.seed(5)  # noqa: NPY002  fairseq seeds the global generator before it asks
    assert np.array_equal(data.ordered_indices(), order)
    assert np.array_equal(np.sort(order), np.arange(len(data)))
    assert (np.diff(data.sizes[order]) >= 0).all()
    ties = order[data.sizes[order] == LENGTH]
    assert (np.diff(ties) < 0).any()
    assert np.array_equal(data.num_tokens_vec(order), data.sizes[order])
    assert data.size(3) == data.num_tokens(3) == data.sizes[3]
    with data_utils.numpy_seed(9):
        batches = data.batch_by_size(order, max_tokens=500)
    assert sum(len(batch) for batch in batches) == len(data)


def test_masks_are_new_each_epoch(corpus: Corpus, vocabulary: Vocabulary) -> None:
    config = PairingConfig("single", 512, short_seq_prob=0.0)  # the same samples, none of them cut, every epoch
    masked, plain = (
        PretrainingDataset(corpus, vocabulary, [view("single", *names)], config) for names in (("mlm",), ())
    )
    masks, texts = [], []
    for epoch in (1, 2):
        for data in (masked, plain):
            data.set_epoch(epoch)
        masks.append(masked.collater(list(range(20)))["targets"]["mlm"]["positions"].tolist())
        texts.append(rows_of(plain.collater(list(range(20)))))
    assert texts[0] == texts[1]
    shared = set(masks[0]) & set(masks[1])
    assert len(shared) < 0.4 * len(masks[0])


def test_the_order_in_which_objectives_are_written_changes_nothing(corpus: Corpus, vocabulary: Vocabulary) -> None:
    one, other = (
        dataset(corpus, vocabulary, view("nsp", *names)).flat_batch(0, np.arange(50))
        for names in (("mlm", "bigram_shift"), ("bigram_shift", "mlm"))
    )
    assert (one.tokens_N == other.tokens_N).all()
    assert all((one.targets[name] == other.targets[name]).all() for name in one.targets)


def test_no_samples(corpus: Corpus, vocabulary: Vocabulary) -> None:
    assert everything(corpus, vocabulary).collater([]) == {}


def test_width_is_a_multiple(corpus: Corpus, vocabulary: Vocabulary) -> None:
    data, wide = everything(corpus, vocabulary), everything(corpus, vocabulary, pad_to_multiple=32)
    short = data.ordered_indices()[:5].tolist()
    sample = wide.collater(short)
    assert sample["net_input"]["src_tokens"].shape[1] % 32 == 0
    assert rows_of(sample) == rows_of(data.collater(short))


def test_views(corpus: Corpus, vocabulary: Vocabulary) -> None:
    mlm, nsp, shift, sop = objectives("mlm", "nsp", "bigram_shift", "sop")
    common = SampleSpec("common", "nsp", (mlm, nsp), ("mlm", "nsp"))
    own = SampleSpec("bigram_shift", "nsp", (mlm, nsp, shift), ("bigram_shift",))
    order = SampleSpec("sop", "sop", (mlm, sop), ("sop",))
    data = dataset(corpus, vocabulary, common, own, order, fixed_epoch=1)
    count = int(data.starts[1])
    assert data._indices[0] is data._indices[1]
    assert data.starts[2] == 2 * count
    assert len(data) == data.starts[3] == len(data.sizes)
    alone = dataset(corpus, vocabulary, common)
    assert rows_of(data.collater([0, 5, 7])) == rows_of(alone.collater([0, 5, 7]))
    assert set(data.collater([1])["targets"]) == {"mlm", "nsp"}
    assert set(data.collater([count + 1])["targets"]) == {"bigram_shift"}
    assert set(data.collater([2 * count + 1])["targets"]) == {"sop"}
    mixed = [2 * count + 4, 3, count + 5, 0, count + 9, 2 * count + 8]
    told = rows_of(data.collater(mixed))
    assert told == {number: rows_of(data.collater([number]))[number] for number in mixed}


def test_a_view_is_needed(corpus: Corpus, vocabulary: Vocabulary) -> None:
    with pytest.raises(ValueError, match="at least one view"):
        PretrainingDataset(corpus, vocabulary, [])


def test_streams_are_apart() -> None:
    keys = {stream_key(1, 1, name) for name in ("pairing.chunk", "pairing.random", "pairing.cut")}
    assert len(keys) == 3


@pytest.mark.parametrize("multiple", [1, 8])
def test_every_sample_is_in_one_batch(corpus: Corpus, vocabulary: Vocabulary, multiple: int) -> None:
    """fairseq's own batching leaves out the last few samples, the longest of an epoch."""
    data = everything(corpus, vocabulary)
    order = data.ordered_indices()
    for count in (1, 3, 9, len(order)):
        batches = data.batch_by_size(order[:count], max_tokens=500, required_batch_size_multiple=multiple)
        assert np.concatenate(batches).tolist() == order[:count].tolist()
        assert all(data.num_tokens_vec(batch).max() * len(batch) <= 500 for batch in batches)
