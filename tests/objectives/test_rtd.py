"""Replaced tokens: a label says what was done, by frequency, and never of what others have reserved."""

import copy

import numpy as np

from hmtl_plugin.corruption.batch import IGNORE
from hmtl_plugin.corruption.vocabulary import Vocabulary
from tests.objectives.batches import corrupt, make_batch, make_dictionary

VOCABULARY = Vocabulary.from_dictionary(make_dictionary())


def clean(samples: int = 2000):
    batch = make_batch(np.random.default_rng(0), VOCABULARY, samples)
    kinds = VOCABULARY.replacements
    batch.text = np.repeat(kinds, np.where(kinds == kinds[0], 60, 1)).astype(np.int64)  # one piece is frequent
    return batch


def test_labels_say_what_was_replaced() -> None:
    before = clean()
    after = corrupt(copy.deepcopy(before), ("rtd",), rtd_rate=0.2)
    changed, label = after.tokens_N != before.tokens_N, after.targets["rtd"]
    special = VOCABULARY.special_V[before.tokens_N]
    assert (label[changed] == 1).all() and (changed[label == 1]).all()
    assert (label[special] == IGNORE).all() and (label[~special] != IGNORE).all()
    assert 0.13 < changed[~special].mean() < 0.2, "some draws are what stood there"
    starts = VOCABULARY.word_start_V
    assert (starts[after.tokens_N] == starts[before.tokens_N]).all(), "words do not fall apart"


def test_replacements_are_drawn_by_frequency() -> None:
    before = clean()
    after = corrupt(copy.deepcopy(before), ("rtd",), rtd_rate=0.3)
    frequent = VOCABULARY.replacements[0]
    same_kind = VOCABULARY.word_start_V[before.tokens_N] == VOCABULARY.word_start_V[frequent]
    drawn = after.tokens_N[(after.targets["rtd"] == 1) & same_kind]
    assert 0.3 < (drawn == frequent).mean() < 0.7


def test_masks_stay_and_have_no_label() -> None:
    before = clean()
    masked = corrupt(copy.deepcopy(before), ("mlm",), mask_prob=0.3)
    both = corrupt(copy.deepcopy(before), ("rtd", "mlm"), mask_prob=0.3, rtd_rate=0.3)
    assert np.array_equal(masked.targets["mlm"], both.targets["mlm"])
    reserved = both.targets["mlm"] != IGNORE
    assert (both.targets["rtd"][reserved] == IGNORE).all()
    assert np.array_equal(masked.tokens_N[reserved], both.tokens_N[reserved])


def test_what_moves_is_not_replaced() -> None:
    before = clean()
    both = corrupt(copy.deepcopy(before), ("rtd", "bigram_shift"), rtd_rate=0.3, bigram_rate=0.5)
    assert not ((both.targets["rtd"] == 1) & (both.targets["bigram_shift"] != IGNORE)).any()
