"""odd_man_out: is one word of the sentence not the author's?

SentEval's SOMO without a tagger. In half of the sentences ("C", changed) one word gave way to another of like frequency
that the text has after the same left neighbour and before the same right neighbour, but never between both; so pairs of
neighbours do not give the answer away, and what is left is whether the word fits. The other half are originals ("O").

A word list must not give it away either: were words replaced one by one, the words put in and those taken out would
differ, and a classifier of single words would learn which. So two sentences of a split, with a neighbour in common,
*exchange* their words. Of all pairs that could, a random half did; hence the words of both classes, and the words at
the place in question, are drawn from one distribution. All bigrams at that place, the original ones too, occur in tr in
another sentence as well, and those that come in about as often as those that go out.
"""

from dataclasses import dataclass

import numpy as np

from hmtl_plugin.probing.generation.ngrams import Ngrams
from hmtl_plugin.probing.generation.rows import Row, Rows, Sizes, one_each
from hmtl_plugin.probing.generation.sample import Sample
from hmtl_plugin.probing.generation.vocabulary import BoolArray, IntArray

MINIMUM_COUNT = 5  # of a word in tr
LARGEST_RATIO = 2  # of the counts of two words, and of two bigrams, that replace each other
_ROUNDS = 80
_PARTNERS = 8  # tried for each place in each round
_PATIENCE = 6  # rounds without a pair before giving up


@dataclass(frozen=True)
class Places:
    """P places where a word could be replaced.

    Attributes:
        sentence_P: ascending.   offset_P: number of the word in its sentence.
        left_P, word_P, right_P: the word and its neighbours.
        before_P, after_P: occurrences in tr of left and word, of word and right, in other places than this.
    """

    sentence_P: IntArray
    offset_P: IntArray
    left_P: IntArray
    word_P: IntArray
    right_P: IntArray
    before_P: IntArray
    after_P: IntArray


def find_places(text: Sample, ngrams: Ngrams) -> Places:
    """Words of letters alone and of middle frequency, neither first nor last, whose two bigrams tr has elsewhere too."""
    vocabulary = text.vocabulary
    fits_V = vocabulary.letters_V & text.rare_V & (text.train_count_V >= MINIMUM_COUNT)
    fits_N = fits_V[text.word_N]
    fits_N[text.start_S1[:-1]] = False
    fits_N[text.start_S1[1:] - 1] = False
    place = np.flatnonzero(fits_N)
    left, word, right = (text.word_N[place + step].astype(np.int64) for step in (-1, 0, 1))
    sentence = text.sentence_N[place]
    itself = text.split_S[sentence] == 0
    before, after = ngrams.count(left, word) - itself, ngrams.count(word, right) - itself
    keep = (before > 0) & (after > 0)
    offset = place - text.start_S1[sentence]
    return Places(*(values[keep] for values in (sentence, offset, left, word, right, before, after)))


def _alike(a: IntArray, b: IntArray) -> BoolArray:
    return (a > 0) & (b > 0) & (a <= LARGEST_RATIO * b) & (b <= LARGEST_RATIO * a)


class Exchange:
    """Finds pairs of places whose words may be exchanged."""

    def __init__(self, text: Sample, random: np.random.Generator) -> None:
        self.text, self.random = text, random
        self.ngrams = Ngrams(text)
        self.places = find_places(text, self.ngrams)

    def may(self, a: IntArray, b: IntArray, left_is_common: bool) -> IntArray:
        """Which of the pairs of places `a` and `b`, with one neighbour in common, may exchange their words."""
        p, count_V, core_V = self.places, self.text.train_count_V, self.text.vocabulary.core_V
        x, y = p.word_P[a], p.word_P[b]
        good = np.flatnonzero((core_V[x] != core_V[y]) & _alike(count_V[x], count_V[y]))
        for place, word in ((a, y), (b, x)):  # most fail here: what follows looks at few
            at, new = place[good], word[good]
            if left_is_common:
                good = good[_alike(self.ngrams.count(new, p.right_P[at]), p.after_P[at])]
            else:
                good = good[_alike(self.ngrams.count(p.left_P[at], new), p.before_P[at])]
        for place, word in ((a, y), (b, x)):
            at, new = place[good], word[good]
            good = good[~self.ngrams.has_trigram(p.left_P[at], new, p.right_P[at])]
        return good

    def _arranged(self, places: IntArray, left_is_common: bool) -> tuple[IntArray, IntArray]:
        """Places in an order where likely partners are near, and the group of each: those in the same split that have
        the neighbour in common and whose words are alike in letter case; inside a group roughly by frequency.
        """
        p = self.places
        word, neighbour = p.word_P[places], (p.left_P if left_is_common else p.right_P)[places]
        kind = 2 * self.text.split_S[p.sentence_P[places]] + self.text.vocabulary.lower_V[word]
        group = kind * len(self.text.vocabulary) + neighbour
        near = np.log2(self.text.train_count_V[word]) + self.random.random(len(word))
        order = np.lexsort((near, group))
        return places[order], group[order]

    def pairs(self, wanted: IntArray) -> tuple[IntArray, IntArray]:
        """Pairs of places, every sentence in one pair at most, `wanted` or a few more for each split.

        Every round takes a random place of each sentence that is free and tries some partners, so nothing is quadratic
        in the text. Fewer than `wanted` are found when the text has no more, or hides them well.
        """
        sentence_P = self.places.sentence_P
        split_P = self.text.split_S[sentence_P]
        free_S = np.ones(len(self.text.sentences), dtype=np.bool_)
        found: list[tuple[int, int]] = []
        have, idle = np.zeros(len(wanted), dtype=np.int64), 0
        for number in range(_ROUNDS):
            active = np.flatnonzero(free_S[sentence_P] & (have < wanted)[split_P])
            if not len(active) or idle == _PATIENCE:
                break
            left_is_common, before = number % 2 == 0, len(found)
            places, group = self._arranged(active[one_each(sentence_P[active], self.random)], left_is_common)
            for step in range(1, _PARTNERS + 1):
                near = np.flatnonzero(group[step:] == group[:-step])
                near = near[free_S[sentence_P[places[near]]] & free_S[sentence_P[places[near + step]]]]
                a, b = places[near], places[near + step]
                good = self.may(a, b, left_is_common)
                for one, other in zip(a[good].tolist(), b[good].tolist()):
                    if free_S[sentence_P[one]] and free_S[sentence_P[other]]:
                        free_S[sentence_P[[one, other]]] = False
                        found.append((one, other))
            have = np.bincount(split_P[[one for one, _ in found]], minlength=len(wanted)) if found else have
            idle = 0 if len(found) > before else idle + 1
        result = np.array(found, dtype=np.int64).reshape(-1, 2)
        return result[:, 0], result[:, 1]

    def exchanged(self, a: IntArray, b: IntArray) -> list[str]:
        """The sentences of the places `a` with the words of the places `b`."""
        p, result = self.places, []
        for sentence, offset, word in zip(p.sentence_P[a].tolist(), p.offset_P[a].tolist(), p.word_P[b].tolist()):
            words = self.text.sentences[sentence].split(" ")
            words[offset] = self.text.vocabulary.words[word]
            result.append(" ".join(words))
        return result


def make(text: Sample, sizes: Sizes, random: np.random.Generator) -> Rows:
    """Rows labelled "O" and "C", as many of one as of the other."""
    exchange = Exchange(text, random)
    a, b = exchange.pairs(np.array(sizes) * 51 // 100 + 2)  # some spare: a few give a sentence that somebody wrote
    sentence_P = exchange.places.sentence_P
    changed_a, changed_b = exchange.exchanged(a, b), exchange.exchanged(b, a)
    fresh = text.unseen(changed_a) & text.unseen(changed_b)

    def of_split(split: int) -> list[Row]:
        pairs = random.permutation(np.flatnonzero(fresh & (text.split_S[sentence_P[a]] == split)))
        half = len(pairs) // 2
        rows = min(2 * half, sizes[split] // 2)  # of each label; two sentences a pair
        changed = [c for i in pairs[:half].tolist() for c in (changed_a[i], changed_b[i])][:rows]
        originals = [text.sentences[s] for i in pairs[half:] for s in sentence_P[[a[i], b[i]]].tolist()][:rows]
        made = [Row("C", c) for c in changed] + [Row("O", o) for o in originals]
        return [made[i] for i in random.permutation(len(made)).tolist()]

    return of_split(0), of_split(1), of_split(2)
