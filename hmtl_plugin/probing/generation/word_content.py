"""word_content: which of the target words does the sentence contain?

Targets are words in small letters, of letters alone, of middle frequency: a run of neighbours in the order of frequency
in tr, below the 100 most frequent words. A sentence belongs to a target when it contains just one of all targets, once,
as it stands; ``Target`` or ``target,`` count as containing, so such a sentence is not used. Which run, and how many
targets (of `words` at most), is tried out.
"""

from dataclasses import dataclass

import numpy as np

from hmtl_plugin.probing.generation.rows import Row, Rows, Sizes, choose_balanced
from hmtl_plugin.probing.generation.sample import Sample
from hmtl_plugin.probing.generation.vocabulary import IntArray

MINIMUM_EXAMPLES = 10  # sentences of each word in tr, as at full size; in va and te one
_FEWER = 0.7  # one number of targets after the other
_STARTS = 8  # runs tried for each number


@dataclass(frozen=True)
class Occurrences:
    """Where candidates for targets occur in the text.

    Attributes:
        words: C candidates, numbers in the vocabulary, by falling frequency in tr.
        sentence_T, candidate_T: each occurrence in any form.
        exact_T: whether it stands there in small letters without punctuation.
    """

    words: IntArray
    sentence_T: IntArray
    candidate_T: IntArray
    exact_T: IntArray


def _occurrences(text: Sample) -> Occurrences:
    vocabulary = text.vocabulary
    split_N = text.split_S[text.sentence_N]
    fits_V = vocabulary.letters_V & vocabulary.lower_V & text.rare_V & (text.train_count_V >= MINIMUM_EXAMPLES)
    for split in (1, 2):
        fits_V &= np.bincount(text.word_N[split_N == split], minlength=len(vocabulary)) > 0
    words = np.flatnonzero(fits_V)
    words = words[np.argsort(-text.train_count_V[words], kind="stable")]
    candidate_of_core = np.full(int(vocabulary.core_V.max(initial=0)) + 1, -1)
    candidate_of_core[vocabulary.core_V[words]] = np.arange(len(words))
    candidate_N = candidate_of_core[vocabulary.core_V[text.word_N]]
    places = np.flatnonzero(candidate_N >= 0)
    candidate_T = candidate_N[places]
    return Occurrences(words, text.sentence_N[places], candidate_T, text.word_N[places] == words[candidate_T])


def _single(found: Occurrences, targets: IntArray, sentences: int) -> tuple[IntArray, IntArray]:
    """The sentences with just one of the targets, once and exactly, and the index of that target."""
    index_C = np.full(len(found.words), -1)
    index_C[targets] = np.arange(len(targets))
    index_T = index_C[found.candidate_T]
    hits = index_T >= 0
    times_S = np.bincount(found.sentence_T[hits], minlength=sentences)
    one = hits & found.exact_T & (times_S[found.sentence_T] == 1)
    return found.sentence_T[one], index_T[one]


def _supply(text: Sample, sentence: IntArray, index: IntArray, targets: int) -> IntArray:
    """(3, targets) sentences of each target in each split."""
    where = text.split_S[sentence] * targets + index
    return np.bincount(where, minlength=3 * targets).reshape(3, targets)


def sustained(supply_3W: IntArray, sizes: Sizes) -> IntArray:
    """Sentences in tr that each target has beside a share in va and te as the sizes have it (at least one each)."""
    most_W = supply_3W[0]
    for supply_W, size in zip(supply_3W[1:], sizes[1:]):
        # The largest k with max(1, floor(k * size / tr)) <= supply.
        most_W = np.where(supply_W > 0, np.minimum(most_W, ((supply_W + 1) * sizes[0] - 1) // size), 0)
    return most_W


def best_targets(sustained_W: IntArray, size: int) -> tuple[int, IntArray]:
    """Which targets to keep: those for which rows of tr times number of targets is largest; and that product.

    The product, because few words of many rows each would make an easy task, and many words a tiny one.
    """
    order = np.argsort(-sustained_W, kind="stable")
    each = sustained_W[order]
    number = np.arange(1, len(each) + 1)
    enough = np.minimum(each, size // number) >= MINIMUM_EXAMPLES
    score = np.where(enough, np.minimum(each * number, size) * number, 0)
    chosen = int(np.argmax(score))
    return int(score[chosen]), np.sort(order[: chosen + 1])


def choose_targets(text: Sample, found: Occurrences, sizes: Sizes, words: int) -> IntArray:
    """Indices of the candidates to be targets; none if the text is too small."""
    best_score, best = 0, np.empty(0, dtype=np.int64)
    number = min(words, len(found.words))
    while number >= 2:
        for start in np.unique(np.linspace(0, len(found.words) - number, _STARTS).astype(np.int64)).tolist():
            run = np.arange(start, start + number)
            supply = _supply(text, *_single(found, run, len(text.sentences)), number)
            score, kept = best_targets(sustained(supply, sizes), sizes[0])
            if score > best_score:
                best_score, best = score, run[kept]
        number = int(number * _FEWER)
    return best


def make(text: Sample, sizes: Sizes, random: np.random.Generator, words: int = 1000) -> Rows:
    """Rows labelled with the word that the sentence contains; every word is in tr, va and te."""
    found = _occurrences(text)
    targets = choose_targets(text, found, sizes, words)
    sentence, index = _single(found, targets, len(text.sentences))
    names = [text.vocabulary.words[word] for word in found.words[targets].tolist()]

    def of_split(split: int) -> list[Row]:
        members = np.flatnonzero(text.split_S[sentence] == split)
        if not len(members):
            return []
        chosen = members[choose_balanced(index[members], len(names), sizes[split], random)]
        return [Row(names[index[i]], text.sentences[sentence[i]]) for i in chosen.tolist()]

    return of_split(0), of_split(1), of_split(2)
