"""Properties of shifts and masks over many samples: right labels, untouched specials, no empty swaps, 80/10/10."""

import copy
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

import hmtl_plugin.objectives  # noqa: F401  registers
from hmtl_plugin.corruption.batch import IGNORE, FlatBatch
from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.corruption.words import find_words
from tests.objectives.batches import corrupt, make_batch, make_dictionary

VOCABULARY = Vocabulary.from_dictionary(make_dictionary())
BOTH = ("bigram_shift", "mlm")


def pair_of_batches(
    samples: int, names: tuple[str, ...] = BOTH, seed: int = 0, **options: object
) -> tuple[FlatBatch, FlatBatch]:
    clean = clean_batch(samples, seed)
    return clean, corrupt(copy.deepcopy(clean), names, **options)


@lru_cache(maxsize=40)
def clean_batch(samples: int, seed: int) -> FlatBatch:
    return make_batch(np.random.default_rng(seed), VOCABULARY, samples)


def shifted_truth(clean: FlatBatch, shifted: FlatBatch) -> np.ndarray:
    """What stands at each position after the shifts: masked positions restored from the MLM targets."""
    target = shifted.targets["mlm"]
    return np.where(target == IGNORE, shifted.tokens_N, target)


def moved_tokens(shifted: FlatBatch) -> np.ndarray:
    """Those of the words that have changed places."""
    return shifted.targets["bigram_shift"] == 1


@pytest.mark.parametrize(
    "options", [{}, {"mask_scheme": "word"}, {"mask_scheme": "ngram", "bigram_granularity": "both"}]
)
def test_composed_corruption_keeps_every_label_right(options: dict[str, object]) -> None:
    """10^5 samples in all: undoing the swaps that the labels tell gives back the clean text, token by token."""
    moved = total = 0
    for seed in range(34):
        clean, dirty = pair_of_batches(1000, seed=seed, **options)
        truth, moved_N = shifted_truth(clean, dirty), moved_tokens(dirty)
        # every position that holds another token than before is a moved one, and no other
        assert not ((truth != clean.tokens_N) & ~moved_N).any()
        special = VOCABULARY.special_V[clean.tokens_N]
        assert (truth[special] == clean.tokens_N[special]).all() and (
            dirty.tokens_N[special] == clean.tokens_N[special]
        ).all()
        assert (dirty.targets["mlm"][special] == IGNORE).all()
        # masks stay away from moved words
        assert not (moved_N & (dirty.targets["mlm"] != IGNORE)).any()
        label = dirty.targets["bigram_shift"]
        changed = dirty.tokens_N != truth
        assert (label[changed] == IGNORE).all(), "a masked or replaced position carries a shift label"
        moved += int(moved_N.sum())
        total += int((~special).sum())
    assert moved > 0.015 * total


def test_swaps_are_of_two_adjacent_different_words() -> None:
    clean, dirty = pair_of_batches(3000, names=("bigram_shift",))
    words = find_words(clean)
    text = [tuple(clean.tokens_N[s : s + n]) for s, n in zip(words.start_W, words.length_W)]
    moved_N = moved_tokens(dirty)
    moved_W = np.logical_or.reduceat(moved_N, words.start_W)
    w = swaps = 0
    while w < len(text):
        # a swap exchanges a run: within it the dirty tokens are the second word followed by the first
        start = words.start_W[w]
        if moved_N[start]:
            first, second = text[w], text[w + 1]
            assert first != second
            got = tuple(dirty.tokens_N[start : start + len(first) + len(second)])
            assert got == second + first
            assert VOCABULARY.plain_V[list(first + second)].all()
            assert not words.sentence_start_W[w] and not words.sentence_start_W[w + 1]
            assert words.sample_W[w] == words.sample_W[w + 1]
            swaps += 1
            w += 2
        else:
            assert tuple(dirty.tokens_N[start : start + len(text[w])]) == text[w]
            w += 1
    assert swaps > 500 and moved_W.any()


def test_rate_of_moved_words() -> None:
    _, dirty = pair_of_batches(4000, names=("bigram_shift",), bigram_rate=0.2)
    label = dirty.targets["bigram_shift"]
    assert (label[label != IGNORE]).mean() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("scheme", ["token", "word"])
def test_structure_tells_nothing_about_shifts(scheme: str) -> None:
    """Where a word stands in its run, how many pieces it has, whether a mask is beside it: the share of moved words
    among those with a label is the same. A rule that reads these would otherwise score above chance."""
    kept: dict[tuple[str, int], list[np.ndarray]] = {}
    for seed in range(12):
        clean, dirty = pair_of_batches(3000, seed=seed, mask_scheme=scheme, mask_prob=0.3, bigram_rate=0.2)
        shifted = replace(clean, tokens_N=shifted_truth(clean, dirty))
        words = find_words(shifted)  # words as they stand after the shifts
        label_W = dirty.targets["bigram_shift"][words.start_W]
        plain_W = words.every(VOCABULARY.plain_V[shifted.tokens_N]) & ~words.sentence_start_W & ~words.boundary_W
        masked_W = np.logical_or.reduceat(dirty.tokens_N == VOCABULARY.mask, words.start_W)
        features = {
            "pieces": np.minimum(words.length_W, 3),
            "left": np.append(0, plain_W[:-1]),
            "right": np.append(plain_W[1:], 0),
            "mask left": np.append(0, masked_W[:-1]),
            "mask right": np.append(masked_W[1:], 0),
        }
        for name, value_W in features.items():
            for value in np.unique(value_W):
                kept.setdefault((name, int(value)), []).append(label_W[(label_W != IGNORE) & (value_W == value)])
    everything = np.concatenate(kept["pieces", 1] + kept["pieces", 2] + kept["pieces", 3]).mean()
    for key, parts in kept.items():
        labels = np.concatenate(parts)
        if len(labels) > 500:
            assert labels.mean() == pytest.approx(everything, abs=4 * 0.4 / np.sqrt(len(labels) / 2)), (
                f"{key} tells about shifts"
            )


def test_any_word_moves_first_words_but_never_across_sentences() -> None:
    clean, dirty = pair_of_batches(3000, names=("bigram_shift",), bigram_any_word=True)
    words = find_words(clean)
    assert moved_tokens(dirty)[words.start_W[words.sentence_start_W]].any()
    sentence = np.cumsum(clean.sentence_start_N)
    for number in np.unique(sentence)[:2000]:
        here = (sentence == number) & ~VOCABULARY.special_V[clean.tokens_N]
        assert sorted(clean.tokens_N[here]) == sorted(dirty.tokens_N[here])


def test_sentence_granularity_labels_half_of_the_samples() -> None:
    clean, dirty = pair_of_batches(4000, names=("bigram_shift",), bigram_granularity="sentence")
    label = dirty.targets["bigram_shift_sentence"]
    carries = np.logical_or.reduceat(dirty.tokens_N != clean.tokens_N, clean.offsets[:-1])
    # a swap of two words of equal spelling is never made, so a carried shift always shows
    assert (carries == (label == 1)).all()
    assert (label == IGNORE).mean() < 0.3, "samples in which nothing can move"
    assert label[label != IGNORE].mean() == pytest.approx(0.5, abs=0.03)
    assert "bigram_shift" not in dirty.targets


@pytest.mark.parametrize("granularity", ["token", "sentence", "both"])
@pytest.mark.parametrize("scheme", ["token", "word", "ngram"])
def test_masks_tell_nothing_about_shifts(scheme: str, granularity: str) -> None:
    """They are the same, with the same targets, as if nothing had moved; so runs with and without shifts see the same
    masks too.
    """
    options = {"mask_scheme": scheme, "mask_prob": 0.3, "bigram_rate": 0.3, "bigram_granularity": granularity}
    clean, dirty = pair_of_batches(1000, **options)
    _, unshifted = pair_of_batches(1000, names=("mlm",), **options)
    assert (dirty.targets["mlm"] == unshifted.targets["mlm"]).all()
    masked = unshifted.tokens_N == VOCABULARY.mask
    assert ((dirty.tokens_N == VOCABULARY.mask) == masked).all()
    assert (shifted_truth(clean, dirty) != clean.tokens_N).sum() > 100  # something has moved


def test_word_pieces_of_a_masked_word_carry_no_label() -> None:
    """A visible piece beside a masked one of its word would betray that the word has not moved."""
    clean, dirty = pair_of_batches(2000)
    words = find_words(clean)
    changed = dirty.tokens_N != shifted_truth(clean, dirty)
    touched_W = np.logical_or.reduceat(changed, words.start_W)
    labelled_W = np.logical_or.reduceat(dirty.targets["bigram_shift"] != IGNORE, words.start_W)
    assert touched_W.sum() > 100 and not (touched_W & labelled_W).any()


@pytest.mark.parametrize("scheme", ["token", "word", "ngram"])
@pytest.mark.parametrize("names", [("mlm",), BOTH])
def test_share_of_masked_tokens(scheme: str, names: tuple[str, ...]) -> None:
    """15 % of all maskable tokens in every scheme, with shifts and without: masks tell nothing about shifts."""
    clean, dirty = pair_of_batches(6000, names=names, mask_scheme=scheme)
    maskable = ~VOCABULARY.special_V[clean.tokens_N]
    share = (dirty.targets["mlm"] != IGNORE).sum() / maskable.sum()
    assert share == pytest.approx(0.15, abs=0.006)


def test_eighty_ten_ten() -> None:
    clean, dirty = pair_of_batches(8000, names=("mlm",))
    chosen = dirty.targets["mlm"] != IGNORE
    now, was = dirty.tokens_N[chosen], clean.tokens_N[chosen]
    assert (dirty.targets["mlm"][chosen] == was).all()
    n = len(was)
    tolerance = 4 * np.sqrt(0.16 / n)
    by_chance = 1 / len(VOCABULARY.replacements)
    assert (now == VOCABULARY.mask).mean() == pytest.approx(0.8, abs=tolerance)
    assert (now == was).mean() == pytest.approx(0.1 + 0.1 * by_chance, abs=tolerance)
    replaced = now[(now != VOCABULARY.mask) & (now != was)]
    assert not VOCABULARY.special_V[replaced].any()
    counts = np.bincount(replaced, minlength=VOCABULARY.size)[VOCABULARY.replacements]
    expected = len(replaced) / len(counts)
    assert ((counts - expected) ** 2 / expected).sum() < 2 * len(counts), "replacements are not uniform"


def test_whole_words_are_masked_whole() -> None:
    clean, dirty = pair_of_batches(2000, names=("mlm",), mask_scheme="word")
    words = find_words(clean)
    maskable = ~VOCABULARY.special_V[clean.tokens_N]
    chosen = dirty.targets["mlm"] != IGNORE
    some = np.logical_or.reduceat(chosen, words.start_W)
    every = np.logical_and.reduceat(chosen | ~maskable, words.start_W)
    assert (some <= every).all() and some.any()


def test_a_sample_does_not_depend_on_its_batch() -> None:
    clean = make_batch(np.random.default_rng(5), VOCABULARY, 50)
    together = corrupt(copy.deepcopy(clean), BOTH)
    for b in (0, 7, 49):
        a, z = clean.offsets[b], clean.offsets[b + 1]
        alone = FlatBatch(
            tokens_N=clean.tokens_N[a:z].copy(),
            offsets=np.array([0, z - a]),
            index_B=clean.index_B[b : b + 1],
            sentence_start_N=clean.sentence_start_N[a:z],
            vocabulary=VOCABULARY,
        )
        corrupt(alone, BOTH)
        assert (alone.tokens_N == together.tokens_N[a:z]).all()
        assert all((alone.targets[name] == together.targets[name][a:z]).all() for name in BOTH)


def test_epochs_seeds_and_streams_differ() -> None:
    clean = make_batch(np.random.default_rng(6), VOCABULARY, 200)
    first = corrupt(copy.deepcopy(clean), ("mlm",)).targets["mlm"]
    assert (first == corrupt(copy.deepcopy(clean), ("mlm",)).targets["mlm"]).all()
    for change in ({"epoch": 2}, {"seed": 2}):
        other = corrupt(copy.deepcopy(clean), ("mlm",), **change).targets["mlm"]
        assert ((first != IGNORE) & (other != IGNORE)).sum() < 0.3 * (first != IGNORE).sum()


def test_text_without_word_boundaries_moves_pieces() -> None:
    vocabulary = Vocabulary.from_dictionary(make_dictionary(words=2, endings=100))
    assert not vocabulary.has_words and vocabulary.word_start_V.all()
    whole_words = Vocabulary.from_dictionary(make_dictionary(marked=False))
    assert whole_words.has_words and whole_words.word_start_V.all()


def test_nothing_to_move_or_mask() -> None:
    """Samples of specials and one word: no swap, no crash, no label."""
    v = VOCABULARY
    batch = FlatBatch(
        tokens_N=np.array([v.bos, v.unk, v.eos, v.bos, 5, v.eos, v.bos, v.eos]),
        offsets=np.array([0, 3, 6, 8]),
        index_B=np.arange(3),
        sentence_start_N=np.array([0, 1, 0, 0, 1, 0, 0, 0], dtype=bool),
        vocabulary=v,
    )
    corrupt(batch, BOTH, bigram_granularity="both")
    assert (batch.targets["bigram_shift_sentence"] == IGNORE).all()
    assert (batch.targets["bigram_shift"] == IGNORE).all()
