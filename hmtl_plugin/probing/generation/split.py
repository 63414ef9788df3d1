"""Which documents go to tr, va and te: whole ones, so that no document is trained and tested on."""

import numpy as np

from hmtl_plugin.errors import UserError
from hmtl_plugin.preparation.deduplication import Uint64Array
from hmtl_plugin.probing.generation.vocabulary import IntArray

SPLITS = ("tr", "va", "te")


def split_documents(size_D: IntArray, draw_D: Uint64Array, shares: tuple[float, ...]) -> IntArray:
    """Number of the split of each document, such that the splits' sentences come near their shares.

    Large documents are placed first, those of like size (within a factor of two) in the order of `draw_D`; each goes
    to the split that is least filled. So the splits also get long and short documents alike, and of three documents
    every split has one.

    Args:
        size_D: sentences of each document.
        draw_D: a seeded hash of each document.
        shares: of the sentences, for each split, in any unit.
    """
    magnitude_D = np.frexp(size_D.astype(np.float64))[1]
    order = np.lexsort((draw_D, -magnitude_D))
    split_D = np.zeros(len(size_D), dtype=np.int64)
    fraction = [share / sum(shares) for share in shares]  # ties fall alike in any unit
    filled = [0.0] * len(shares)
    for document, size in zip(order.tolist(), size_D[order].tolist()):
        split = filled.index(min(filled))
        split_D[document] = split
        filled[split] += size / fraction[split]
    return split_D


def split_sentences(document_S: IntArray, draw_D: Uint64Array, shares: tuple[float, ...], what: str) -> IntArray:
    """Number of the split of each sentence, by its document.

    Raises:
        UserError: fewer than three documents have sentences.
    """
    present, place_S, size = np.unique(document_S, return_inverse=True, return_counts=True)
    if len(present) < len(SPLITS):
        raise UserError(
            f"only {len(present)} {what}(s) with sentences of 5 to 28 words, where tr, va and te need one each at least: "
            "give more of them (more files, or blank lines between documents), or --split-by sentence"
        )
    return split_documents(size, draw_D[present], shares)[place_S]
