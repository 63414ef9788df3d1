"""Which words stand beside each other in the text."""

import numpy as np

from hmtl_plugin.probing.generation.sample import Sample
from hmtl_plugin.probing.generation.vocabulary import BoolArray, IntArray


class Ngrams:
    """How often two words follow each other in tr, and whether three do anywhere in the sampled text."""

    def __init__(self, text: Sample) -> None:
        self._words = len(text.vocabulary)
        word_N = text.word_N.astype(np.int64)
        inside = text.sentence_N[:-1] == text.sentence_N[1:]
        first = np.flatnonzero(inside)
        pairs = word_N[first] * self._words + word_N[first + 1]
        self._bigrams, number = np.unique(pairs, return_inverse=True)
        in_train = text.split_S[text.sentence_N[first]] == 0
        self._count = np.bincount(number[in_train], minlength=len(self._bigrams))
        # A trigram is numbered as the bigram it begins with and its last word: fits 64 bits whatever the vocabulary.
        goes_on = np.flatnonzero(np.diff(first) == 1)
        self._trigrams = np.unique(number[goes_on] * self._words + word_N[first[goes_on] + 2])

    def count(self, left: IntArray, right: IntArray) -> IntArray:
        """Occurrences in tr of each `right` after its `left`."""
        place, found = _find(self._bigrams, left * self._words + right)
        return np.where(found, self._count[place], 0)

    def has_trigram(self, left: IntArray, word: IntArray, right: IntArray) -> BoolArray:
        """Whether the three words follow each other anywhere in the sample."""
        place, found = _find(self._bigrams, left * self._words + word)
        return found & _find(self._trigrams, place * self._words + right)[1]


def _find(ordered: IntArray, wanted: IntArray) -> tuple[IntArray, BoolArray]:
    """Place of each wanted value in an ordered array, and whether it is there."""
    if not len(ordered):
        return np.zeros(len(wanted), dtype=np.int64), np.zeros(len(wanted), dtype=np.bool_)
    place = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return place, ordered[place] == wanted
