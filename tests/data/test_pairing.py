"""The pair index against a slow reference, and the properties that must hold for any corpus."""

from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmtl_plugin.corruption.random import bits, stream_key
from hmtl_plugin.data import pairing
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.pairing import PairIndex, PairingConfig, build_pairs
from hmtl_plugin.errors import UserError

from .corpora import Documents, corpus_of, random_documents, write


@dataclass
class Sample:
    """One sample of the reference, fields as in `PairIndex`."""

    a_start: int
    a_count: int
    b_start: int
    b_count: int
    label: int
    size: int


def draw(seed: int, epoch: int, stream: str, sentence: int) -> int:
    return int(bits(stream_key(seed, epoch, stream), np.array([sentence]))[0])


def reference(sizes: np.ndarray, documents: Documents, config: PairingConfig, seed: int, epoch: int) -> list[Sample]:
    """The rules of the module's docstring, one document and one chunk after the other."""
    samples: list[Sample] = []
    starts, ends = documents[0].tolist(), documents[1].tolist()
    lengths = [int(size) - 1 for size in sizes]
    for document, (start, end) in enumerate(zip(starts, ends, strict=True)):
        parts = max((end - start) // pairing.PART, 1)
        for part in range(parts):
            position = start + part * pairing.PART
            stop = end if part == parts - 1 else position + pairing.PART
            while position < stop:
                position = _chunk(samples, lengths, starts, ends, document, position, stop, config, seed, epoch)
    return samples


def _chunk(samples, lengths, starts, ends, document, position, stop, config, seed, epoch):  # type: ignore[no-untyped-def]
    """Append the sample whose chunk begins at ``position``; returns where the next one begins."""
    hashed = draw(seed, epoch, "pairing.chunk", position)
    coin, target = hashed >> 63, config.budget
    if hashed % 2**16 < round(config.short_seq_prob * 2**16):
        target = 2 + (hashed // 2**16 % 2**24) * (config.budget - 1) // 2**24
    chunk = [position]
    while config.layout == "segments" and chunk[-1] + 1 < stop and sum(lengths[s] for s in chunk) < target:
        chunk.append(chunk[-1] + 1)
    if config.layout == "rows":
        chunk.append(position + 1)
    if config.kind == "single":
        size = min(sum(lengths[s] for s in chunk), config.budget) + 2
        samples.append(Sample(position, len(chunk), 0, 0, -1, size))
        return chunk[-1] + 1
    split = (
        1 if len(chunk) == 1 or config.layout == "rows" else 1 + (hashed // 2**40 % 2**23) * (len(chunk) - 1) // 2**23
    )
    a, b, label, following = chunk[:split], chunk[split:], 1, chunk[-1] + 1
    if config.kind == "nsp" and (coin or not b):
        label = 0
        if config.layout == "segments":
            following = a[-1] + 1
        hashed = draw(seed, epoch, "pairing.random", position)
        other = (hashed >> 32) * (len(starts) - 1) >> 32
        other += other >= document
        count = ends[other] - starts[other]
        if config.layout == "rows":
            b = [starts[other] + 2 * ((hashed % 2**32) * (count // 2) >> 32) + 1]
        else:
            b = [starts[other] + ((hashed % 2**32) * count >> 32)]
            while sum(lengths[s] for s in a + b) < target and b[-1] + 1 < ends[other]:
                b.append(b[-1] + 1)
    if config.kind == "sop" and not b:
        samples.append(Sample(position, 1, 0, 0, -1, min(lengths[position], config.tokens_per_sample - 2) + 2))
        return following
    if config.kind == "sop" and coin:
        a, b, label = b, a, 0
    size = min(sum(lengths[s] for s in a + b), config.budget) + 3
    samples.append(Sample(a[0], len(a), b[0], len(b), label, size))
    return following


def rows_of(index: PairIndex) -> list[tuple[int, ...]]:
    fields = ("a_start", "a_count", "b_start", "b_count", "label")
    columns = [*(index.rows[name] for name in fields), index.sizes]
    return list(zip(*(column.tolist() for column in columns), strict=True))


corpora = st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=25), min_size=2, max_size=12)


@settings(max_examples=150, deadline=None)
@given(
    corpora,
    st.sampled_from(["nsp", "sop", "single"]),
    st.sampled_from(["segments", "rows"]),
    st.integers(5, 80),
    st.sampled_from([0.0, 0.1, 0.7, 1.0]),
    st.integers(0, 3),
    st.integers(1, 30),
    st.sampled_from([1, 2, 3]),
)
def test_equals_the_reference(
    documents: list[list[int]],
    kind: str,
    layout: str,
    length: int,
    short: float,
    seed: int,
    block: int,
    threads: int,
) -> None:
    if layout == "rows":
        documents = [document * 2 for document in documents]
    sizes, bounds = corpus_of(documents)
    config = PairingConfig(kind, length, short, layout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairing, "PART", 8)
        index = build_pairs(sizes, bounds, config, seed, 5, threads=threads, block=block)
        expected = reference(sizes, bounds, config, seed, 5)
    assert rows_of(index) == [astuple(sample) for sample in expected]
    assert index.sizes.max() <= length


@pytest.mark.parametrize("kind", ["nsp", "sop", "single"])
def test_long_documents_equal_the_reference(kind: str) -> None:
    rng = np.random.default_rng(3)
    sizes, bounds = corpus_of([*random_documents(rng, 4, 30, 12.0), rng.integers(1, 30, 1500).tolist()])
    config = PairingConfig(kind, 64)
    index = build_pairs(sizes, bounds, config, 1, 1, block=400)
    assert rows_of(index) == [astuple(sample) for sample in reference(sizes, bounds, config, 1, 1)]


@pytest.mark.parametrize("kind", ["nsp", "sop", "single"])
def test_independent_of_blocks_threads_and_alignment(kind: str) -> None:
    sizes, bounds = corpus_of(random_documents(np.random.default_rng(4), 3000, 40, 20.0))
    config = PairingConfig(kind)
    expected = rows_of(build_pairs(sizes, bounds, config, 1, 2, threads=1))
    unaligned = np.frombuffer(bytes(26) + sizes.tobytes(), dtype=np.int32, offset=26)
    for threads, block, view in ((2, 1000, sizes), (3, 777, sizes), (1, 50, sizes), (2, 9999, unaligned)):
        assert rows_of(build_pairs(view, bounds, config, 1, 2, threads=threads, block=block)) == expected


def owner(bounds: Documents, sentences: np.ndarray) -> np.ndarray:
    return np.searchsorted(bounds[1], sentences, side="right")


def test_positives_follow_and_negatives_are_of_other_documents() -> None:
    sizes, bounds = corpus_of(random_documents(np.random.default_rng(5), 500, 60, 20.0))
    index = build_pairs(sizes, bounds, PairingConfig("nsp"), 1, 1)
    a, b = owner(bounds, index.rows["a_start"]), owner(bounds, index.rows["b_start"])
    follows = index.rows["label"] == 1
    assert np.array_equal(index.rows["b_start"][follows], (index.rows["a_start"] + index.rows["a_count"])[follows])
    assert (a == b)[follows].all()
    assert (a != b)[~follows].all()
    assert (owner(bounds, index.rows["b_start"] + index.rows["b_count"] - 1) == b).all()
    assert (owner(bounds, index.rows["a_start"] + index.rows["a_count"] - 1) == a).all()
    assert index.rows["b_count"].min() >= 1


@pytest.mark.parametrize("length", [128, 512])
def test_half_of_the_pairs_are_negative(length: int) -> None:
    sizes, bounds = corpus_of(random_documents(np.random.default_rng(6), 300, 900, 10.0))
    labels = build_pairs(sizes, bounds, PairingConfig("nsp", length), 1, 1).rows["label"]
    assert abs((labels == 1).mean() - 0.5) < 0.02
    orders = build_pairs(sizes, bounds, PairingConfig("sop", length), 1, 1).rows["label"]
    assert abs((orders == 1).sum() / (orders >= 0).sum() - 0.5) < 0.02


def test_random_segments_are_uniform_over_other_documents() -> None:
    sizes, bounds = corpus_of([[5] * 3000] + [[5] * 10] * 4)
    index = build_pairs(sizes, bounds, PairingConfig("nsp", 16), 1, 1)
    drawn = owner(bounds, index.rows["b_start"][(index.rows["label"] == 0) & (index.rows["a_start"] < 3000)])
    shares = np.bincount(drawn, minlength=5) / len(drawn)
    assert shares[0] == 0
    assert np.abs(shares[1:] - 0.25).max() < 0.05


@pytest.mark.parametrize("kind", ["sop", "single"])
def test_every_sentence_is_used_once(kind: str) -> None:
    sizes, bounds = corpus_of(random_documents(np.random.default_rng(7), 50, 700, 20.0))
    index = build_pairs(sizes, bounds, PairingConfig(kind), 1, 1)
    used = np.zeros(len(sizes), dtype=int)
    for start, count in (
        (index.rows["a_start"], index.rows["a_count"]),
        (index.rows["b_start"], index.rows["b_count"]),
    ):
        for first, number in zip(start.tolist(), count.tolist(), strict=True):
            used[first : first + number] += 1
    assert np.array_equal(used, sizes > 1)


def test_epochs_and_seeds_differ_and_repeat() -> None:
    sizes, bounds = corpus_of(random_documents(np.random.default_rng(8), 200, 40, 20.0))

    def rows(seed: int, epoch: int) -> list[tuple[int, ...]]:
        return rows_of(build_pairs(sizes, bounds, PairingConfig("nsp"), seed, epoch))

    assert rows(1, 1) == rows(1, 1)
    assert rows(1, 1) != rows(1, 2)
    assert rows(1, 1) != rows(2, 1)
    shared = {row[2] for row in rows(1, 1) if row[4] == 0} & {row[2] for row in rows(1, 2) if row[4] == 0}
    assert len(shared) < 0.5 * sum(row[4] == 0 for row in rows(1, 1))


def test_one_document_of_a_million_sentences() -> None:
    rng = np.random.default_rng(9)
    sizes, bounds = corpus_of([rng.integers(1, 40, 1_000_000).tolist(), [5, 6]])
    index = build_pairs(sizes, bounds, PairingConfig("nsp"), 1, 1)
    assert index.sizes.max() == 128
    assert len(index) > 100_000
    assert (
        owner(bounds, index.rows["b_start"][(index.rows["label"] == 0) & (index.rows["a_start"] < 1_000_000)])
        .tolist()
        .count(1)
        > 50_000
    )


def test_one_document_is_refused_for_nsp_alone() -> None:
    sizes, bounds = corpus_of([[5, 6, 7]])
    with pytest.raises(UserError, match=r"two documents.*blank lines.*--pairing sop or --pairing single"):
        build_pairs(sizes, bounds, PairingConfig("nsp"), 1, 1)
    assert rows_of(build_pairs(sizes, bounds, PairingConfig("single"), 1, 1)) == [(0, 3, 0, 0, -1, 20)]
    assert build_pairs(sizes, bounds, PairingConfig("sop"), 1, 1).rows["label"].tolist()[0] in (0, 1)


def test_documents_of_one_sentence() -> None:
    sizes, bounds = corpus_of([[7]] * 100)
    index = build_pairs(sizes, bounds, PairingConfig("nsp"), 1, 1)
    assert index.rows["label"].tolist() == [0] * 100
    assert (index.sizes == 17).all()
    single = build_pairs(sizes, bounds, PairingConfig("sop"), 1, 1)
    assert single.rows["label"].tolist() == [-1] * 100
    assert (single.rows["b_count"] == 0).all()
    assert (single.sizes == 9).all()


def test_rows_must_be_pairs() -> None:
    sizes, bounds = corpus_of([[5, 6], [5, 6, 7]])
    with pytest.raises(UserError, match="document at item 3 has an odd number"):
        build_pairs(sizes, bounds, PairingConfig("nsp", layout="rows"), 1, 1)


@pytest.mark.parametrize("length", [4, 1 << 16])
def test_impossible_lengths(length: int) -> None:
    sizes, bounds = corpus_of([[5, 6], [5, 6, 7]])
    with pytest.raises(UserError, match="--tokens-per-sample"):
        build_pairs(sizes, bounds, PairingConfig("nsp", length), 1, 1)


@pytest.mark.parametrize(("kind", "layout"), [("pairs", "segments"), ("nsp", "lines")])
def test_unknown_options(kind: str, layout: str) -> None:
    with pytest.raises(UserError, match="use one of nsp, sop, distance, single and one of segments, rows"):
        PairingConfig(kind, layout=layout)


def test_corpus_without_last_separator(tmp_path: Path) -> None:
    corpus = Corpus(write(tmp_path, [[], [5] * 9, [6] * 9, [], [], [7] * 9, [8] * 9]))
    index = build_pairs(corpus.sizes, corpus.documents, PairingConfig("single"), 1, 1)
    assert rows_of(index) == [(1, 2, 0, 0, -1, 20), (5, 2, 0, 0, -1, 20)]
