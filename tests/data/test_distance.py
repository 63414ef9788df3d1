"""Pairs of ``distance``: the label says where the second segment is from, and the two never overlap."""

import numpy as np
import pytest

from hmtl_plugin.data.pairing import PairIndex, PairingConfig, build_pairs


def pairs_of(layout: str, seed: int = 1) -> tuple[PairIndex, np.ndarray, np.ndarray]:
    """Pairs of 300 documents of 2 to 40 sentences, the document of each sentence, and where documents begin."""
    random = np.random.default_rng(seed)
    lengths = 2 * random.integers(1, 21, 300)
    end = np.cumsum(lengths)
    sizes = random.integers(3, 15, int(end[-1])).astype(np.int32)
    config = PairingConfig("distance", 64, 0.1, layout)
    index = build_pairs(sizes, (end - lengths, end), config, seed, 1)
    return index, np.repeat(np.arange(300), lengths), end - lengths


@pytest.mark.parametrize("layout", ["segments", "rows"])
def test_every_label_is_right(layout: str) -> None:
    index, document, start = pairs_of(layout)
    rows = index.rows
    a, b = rows["a_start"].astype(int), rows["b_start"].astype(int)
    a_end, b_end = a + rows["a_count"], b + rows["b_count"]
    label = rows["label"]
    assert set(label) == {0, 1, 2} and (rows["b_count"] > 0).all()
    assert (document[a] == document[a_end - 1]).all() and (document[b] == document[b_end - 1]).all()
    assert ((document[a] == document[b]) == (label > 0)).all()
    assert (b[label == 2] == a_end[label == 2]).all(), "the next segment"
    elsewhere = label == 1
    assert (b[elsewhere] != a_end[elsewhere]).all() and ((b_end <= a) | (b >= a_end))[elsewhere].all()
    assert (b_end <= a)[elsewhere].mean() > 0.2 and (b >= a_end)[elsewhere].mean() > 0.2
    if layout == "rows":
        assert ((b - start[document[b]]) % 2 == 1).all(), "a row's second sentence"


def test_half_of_the_random_ones_are_of_the_same_document() -> None:
    index, document, _ = pairs_of("rows")
    alone = np.bincount(document)[document[index.rows["a_start"].astype(int)]] == 2
    share = np.bincount(index.rows["label"][~alone], minlength=3) / (~alone).sum()
    assert share == pytest.approx([0.25, 0.25, 0.5], abs=0.04)
    assert set(index.rows["label"][alone]) == {0, 2}, "a document of one pair has no elsewhere"


def test_it_depends_on_seed_and_place_alone() -> None:
    one, two, other = pairs_of("segments")[0], pairs_of("segments")[0], pairs_of("segments", seed=2)[0]
    assert np.array_equal(one.rows, two.rows) and len(one) != len(other)
