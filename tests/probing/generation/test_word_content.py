"""word_content and sentence_length: the label is what the sentence says."""

from pathlib import Path

import numpy as np

from hmtl_plugin.probing.generation.rows import choose_balanced, one_each, quotas
from hmtl_plugin.probing.generation.sentence_length import BINS
from hmtl_plugin.probing.generation.vocabulary import core
from hmtl_plugin.probing.generation.word_content import best_targets, sustained
from tests.probing.generation import texts


def test_a_sentence_contains_one_target_once(source: Path, made: Path) -> None:
    rows = texts.read(made / "word_content.txt")
    targets = {label for label, _ in rows["tr"]}
    assert 10 <= len(targets) <= 30
    assert all(target.isalpha() and target.islower() for target in targets)
    for of_split in rows.values():
        for label, text in of_split:
            assert [word for word in map(core, text.split(" ")) if word in targets] == [label]
            assert text.split(" ").count(label) == 1


def test_targets_are_not_the_most_frequent_words(source: Path, made: Path, tmp_path: Path) -> None:
    text = texts.sample(source, tmp_path / "s")
    frequent = {text.vocabulary.words[w] for w in np.flatnonzero(~text.rare_V)}
    assert len(frequent) == 100
    assert not frequent & {label for label, _ in texts.read(made / "word_content.txt")["tr"]}


def test_length_bins(made: Path) -> None:
    for of_split in texts.read(made / "sentence_length.txt").values():
        for label, text in of_split:
            low, high = BINS[int(label)]
            assert low <= len(text.split(" ")) <= high


def test_quotas_differ_by_one_at_most() -> None:
    assert quotas(np.array([9, 9, 9]), 8).tolist() == [3, 3, 2]
    assert quotas(np.array([2, 9, 9]), 8).tolist() == [2, 3, 3]
    assert quotas(np.array([1, 9, 9]), 8).tolist() == [1, 1, 1]
    assert quotas(np.array([0, 9]), 8).tolist() == [0, 0]
    label_C = np.repeat([0, 1, 2], [5, 50, 500])
    chosen = choose_balanced(label_C, 3, 100, np.random.default_rng(0))
    assert np.bincount(label_C[chosen]).tolist() == [5, 5, 5]
    assert len(set(chosen.tolist())) == 15


def test_one_place_of_each_sentence_every_one_as_likely() -> None:
    group_P = np.array([3, 3, 3, 3, 7, 9, 9])
    drawn = np.stack([one_each(group_P, np.random.default_rng(seed)) for seed in range(2000)])
    assert (group_P[drawn] == [3, 7, 9]).all()
    assert np.abs(np.bincount(drawn[:, 0]) / 2000 - 0.25).max() < 0.05


def test_how_many_sentences_a_target_sustains() -> None:
    supply = np.array([[40, 40, 40, 40], [10, 3, 0, 1], [10, 10, 10, 10]])
    kept = sustained(supply, (1000, 250, 250))
    assert kept.tolist() == [40, 15, 0, 7]
    for k, va in zip(kept.tolist(), supply[1].tolist()):
        assert not k or max(1, k * 250 // 1000) <= va < max(1, (k + 1) * 250 // 1000) or k == 40
    assert best_targets(np.array([50, 20, 9, 20]), 1000)[1].tolist() == [0, 1, 3]
    assert best_targets(np.array([100, 11]), 1000)[1].tolist() == [0]
    assert best_targets(np.array([9, 8]), 1000)[0] == 0
