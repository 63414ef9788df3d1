"""bigram_shift: have two neighbouring words changed places?

As in SentEval, half of the sentences carry one swap ("I", inverted), half none ("O", original). Since capitals and
punctuation would give the answer away, never swapped are the first word and words with punctuation attached; nor two
equal words. Both classes are drawn from the same sentences, those that could be swapped, so which words a sentence has
says nothing.
"""

import numpy as np

from hmtl_plugin.probing.generation.rows import Row, Rows, Sizes, one_each
from hmtl_plugin.probing.generation.sample import Sample
from hmtl_plugin.probing.generation.vocabulary import IntArray

_SPARE = 1.05  # tried at first: a swap seldom gives a sentence that somebody wrote


def swappable(text: Sample) -> IntArray:
    """Places in `word_N` of words that may change places with the next one."""
    bare_N = text.vocabulary.bare_V[text.word_N]
    core_N = text.vocabulary.core_V[text.word_N]
    together = text.sentence_N[:-1] == text.sentence_N[1:]
    may = together & bare_N[:-1] & bare_N[1:] & (core_N[:-1] != core_N[1:])
    may[text.start_S1[:-1][text.length_S > 1]] = False  # the first word
    return np.flatnonzero(may)


def swap(sentence: str, place: int) -> str:
    """The sentence with the words at `place` and after it exchanged."""
    words = sentence.split(" ")
    words[place], words[place + 1] = words[place + 1], words[place]
    return " ".join(words)


def make(text: Sample, sizes: Sizes, random: np.random.Generator) -> Rows:
    """Rows labelled "O" and "I", as many of one as of the other."""
    places = swappable(text)
    places = places[one_each(text.sentence_N[places], random)]
    sentences = text.sentence_N[places]
    places = places - text.start_S1[sentences]

    def of_split(split: int) -> list[Row]:
        members = random.permutation(np.flatnonzero(text.split_S[sentences] == split))
        rows: list[tuple[str, str]] = []  # original, swapped
        while len(members) and len(rows) < sizes[split]:
            trial = members[: int(_SPARE * (sizes[split] - len(rows))) + 1]
            members = members[len(trial) :]
            originals = [text.sentences[s] for s in sentences[trial].tolist()]
            swapped = [swap(o, place) for o, place in zip(originals, places[trial].tolist())]
            fresh = text.unseen(swapped)
            rows += [pair for pair, is_fresh in zip(zip(originals, swapped), fresh.tolist()) if is_fresh]
        half = min(len(rows), sizes[split]) // 2
        made = [Row("I", swapped) for _, swapped in rows[:half]]
        made += [Row("O", original) for original, _ in rows[half : 2 * half]]
        return [made[i] for i in random.permutation(len(made)).tolist()]

    return of_split(0), of_split(1), of_split(2)
