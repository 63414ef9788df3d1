"""Counts of neighbours: probabilities, whatever the text; right by hand; blind to what stands on both sides of a
sentence's end.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hmtl_plugin.counting.bigrams import DISCOUNT, BigramCounts
from hmtl_plugin.data.corpus import Corpus
from tests.data.corpora import write

SIZE, FIRST = 12, 5  # ids below FIRST are special


def counts_of(folder: Path, items: list[list[int]], tokens: int = 10**6) -> tuple[BigramCounts, np.ndarray]:
    special_V = np.arange(SIZE) < FIRST
    unigram_V = np.where(special_V, 0.0, 1.0)
    for item in items:
        np.add.at(unigram_V, item, 1.0)
    unigram_V /= unigram_V.sum()
    corpus = Corpus(write(folder, items))
    vocabulary = SimpleNamespace(size=SIZE, special_V=special_V)
    return BigramCounts(corpus, vocabulary, unigram_V, tokens), unigram_V  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(5))
def test_probabilities_sum_to_one_beside_every_context(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    items = [rng.integers(FIRST, SIZE - 1, rng.integers(1, 9)).tolist() for _ in range(30)]
    counts, _ = counts_of(tmp_path, items)
    ids = np.arange(SIZE)
    for context in range(SIZE):  # special ids and one that never occurs among them
        beside = np.full(SIZE, context)
        assert counts.given_left(beside, ids).sum() == pytest.approx(1)
        assert counts.given_right(ids, beside).sum() == pytest.approx(1)
        assert (counts.between(beside, ids, beside)[FIRST:] > 0).all()


def test_by_hand(tmp_path: Path) -> None:
    counts, unigram_V = counts_of(tmp_path, [[5, 6, 7], [5, 6, 8], [5, 7]])
    left, ids = np.array([5, 5, 7]), np.array([6, 7, 5])
    to_unigrams = DISCOUNT * 2 / 3  # 5 is followed three times, by 6 and 7
    expected = [(2 - DISCOUNT) / 3 + to_unigrams * unigram_V[6], (1 - DISCOUNT) / 3 + to_unigrams * unigram_V[7]]
    assert counts.given_left(left, ids).tolist() == pytest.approx([*expected, unigram_V[5]])  # 7 ends its sentences
    assert counts.given_right(np.array([6]), np.array([8])).tolist() == pytest.approx(
        [1 - DISCOUNT + DISCOUNT * unigram_V[6]]
    )


def test_a_pair_in_its_order_fits_better_than_exchanged(tmp_path: Path) -> None:
    counts, _ = counts_of(tmp_path, [[5, 6, 7, 8]] * 20 + [[9, 10]])
    right, exchanged = (np.array(line) for line in ([5, 6, 7, 8], [5, 7, 6, 8]))
    fits = [counts.fit(line[:-2], line[1:-1], line[2:]) for line in (right, exchanged)]
    assert (fits[0] > 0).all() and (fits[1] < fits[0]).all()
    special = counts.fit(np.array([0]), np.array([6]), np.array([2]))
    assert special.tolist() == pytest.approx([0.0])  # nothing is known beside <s> and </s>
    assert np.isfinite(counts.fit(np.array([4]), np.array([4]), np.array([4]))).all()


def test_no_more_is_read_than_asked(tmp_path: Path) -> None:
    items = [[5, 6], [7, 8]]
    first, whole = counts_of(tmp_path, items, tokens=3)[0], counts_of(tmp_path, items)[0]
    beside, ids = np.array([7]), np.array([8])
    assert whole.given_left(beside, ids) > first.given_left(beside, ids)
    none, unigram_V = counts_of(tmp_path, items, tokens=0)
    assert none.given_left(beside, ids).tolist() == unigram_V[ids].tolist()
