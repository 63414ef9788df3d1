"""Word order by counting: what the pieces beside a piece tell of it, from pairs of neighbours in the training text.

Counts need no optimisation: what they reach and a model does not, its text would still give.
"""

import numpy as np
import numpy.typing as npt

from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.data.corpus import Corpus

Ids = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]
DISCOUNT = 0.75  # taken off every count and given to the unigrams (Ney, Essen and Kneser 1994)


class BigramCounts:
    """Pairs of neighbours inside sentences, by absolute discounting interpolated with unigrams.

    Args:
        corpus: text that is counted, its first ``tokens`` ids.
        unigram_V: probability of each id; ids that can be predicted have one above zero.

    Ids are int64. Memory: 17 bytes a pair that occurs, and some 30 bytes an id while it counts.
    """

    def __init__(
        self, corpus: Corpus, vocabulary: Vocabulary, unigram_V: Probabilities, tokens: int = 10_000_000
    ) -> None:
        ids = corpus.tokens[:tokens].astype(np.int64)
        inside = ~vocabulary.special_V.take(ids)
        inside = inside[:-1] & inside[1:]
        self._size, self._unigram_V = vocabulary.size, unigram_V
        self._pairs, self._counts = np.unique((ids[:-1] * self._size + ids[1:])[inside], return_counts=True)
        first, second = np.divmod(self._pairs, self._size)
        self._left, self._right = self._totals(first), self._totals(second)

    def given_left(self, left: Ids, ids: Ids) -> Probabilities:
        """(M,) P(id | the piece to its left) of (M,) pieces."""
        return self._conditional(left, ids, left, ids, self._left)

    def given_right(self, ids: Ids, right: Ids) -> Probabilities:
        """(M,) P(id | the piece to its right) of (M,) pieces."""
        return self._conditional(ids, right, right, ids, self._right)

    def between(self, left: Ids, ids: Ids, right: Ids) -> Probabilities:
        """(M,) P(id | both neighbours), as the mean of both: a probability, and none is zero where a unigram's is not."""
        return (self.given_left(left, ids) + self.given_right(ids, right)) / 2

    def fit(self, left: Ids, ids: Ids, right: Ids) -> Probabilities:
        """(M,) how much likelier a piece is beside its neighbours than anywhere, in nats: pointwise mutual information
        with either, added; 0 where nothing is known.
        """
        unigram = self._unigram_V.take(ids)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = np.log(self.given_left(left, ids) / unigram) + np.log(self.given_right(ids, right) / unigram)
        return np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)

    def _totals(self, context: Ids) -> tuple[Probabilities, Probabilities]:
        """(V,) how often each id is the context, and with how many different ids."""
        occurrences = np.bincount(context, self._counts, minlength=self._size).astype(np.float64)
        return occurrences, np.bincount(context, minlength=self._size).astype(np.float64)

    def _conditional(
        self, first: Ids, second: Ids, context: Ids, ids: Ids, totals: tuple[Probabilities, Probabilities]
    ) -> Probabilities:
        occurrences, kinds = totals[0].take(context), totals[1].take(context)
        seen = np.maximum(self._count(first, second) - DISCOUNT, 0.0)
        known = occurrences > 0
        whole = np.where(known, occurrences, 1.0)
        to_unigrams = np.where(known, DISCOUNT * kinds / whole, 1.0)
        return seen / whole + to_unigrams * self._unigram_V.take(ids)

    def _count(self, first: Ids, second: Ids) -> npt.NDArray[np.int64]:
        wanted = first * self._size + second
        if not len(self._pairs):
            return np.zeros(wanted.shape, dtype=np.int64)
        place = np.searchsorted(self._pairs, wanted).clip(max=len(self._pairs) - 1)
        return np.where(self._pairs.take(place) == wanted, self._counts.take(place), 0)
