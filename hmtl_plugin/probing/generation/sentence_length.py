"""sentence_length: how many words has the sentence? SentEval's six bins."""

import numpy as np

from hmtl_plugin.probing.generation.rows import Row, Rows, Sizes, choose_balanced
from hmtl_plugin.probing.generation.sample import Sample

BINS = ((5, 8), (9, 12), (13, 16), (17, 20), (21, 25), (26, 28))


def make(text: Sample, sizes: Sizes, random: np.random.Generator) -> Rows:
    """Rows labelled "0" to "5", each label as often as the others; within a bin lengths are as the text has them."""
    bin_S = np.searchsorted([low for low, _ in BINS], text.length_S, side="right") - 1

    def of_split(split: int) -> list[Row]:
        members = np.flatnonzero(text.split_S == split)
        chosen = members[choose_balanced(bin_S[members], len(BINS), sizes[split], random)]
        return [Row(str(bin_S[s]), text.sentences[s]) for s in chosen.tolist()]

    return of_split(0), of_split(1), of_split(2)
