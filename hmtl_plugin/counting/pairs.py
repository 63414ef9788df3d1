"""Next sentences by counting: how many pieces two segments share, how rare these are, and how long both are.

Like `counting.bigrams`, a baseline that needs no optimisation of an encoder: what it reaches and a model does not, the
text would still give.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from hmtl_plugin.corruption.base import Corruption
from hmtl_plugin.corruption.corrupt import corrupt_batch
from hmtl_plugin.corruption.random import BatchRandom
from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.data.corpus import Corpus, Int64Array
from hmtl_plugin.data.pairing import PairIndex, PairingConfig, build_pairs

FloatArray = npt.NDArray[np.float64]
FEATURES = ("overlap", "share of A", "share of B", "rarest shared", "size of A", "size of B", "shared")
SIZES = [4, 5]
"""Places of the two sizes among the features."""
PAIRS = 8_000
_PENALTY = 1e-3  # ridge on standardised features, against a mean loss; keeps separable classes finite
_CHUNK = 1 << 20
_FEW_DOCUMENTS = 100
_MOST_DOCUMENTS, _MOST_SENTENCES = 1 << 12, 1 << 18
_BATCH = 1_000


class PairCounts:
    """Two logistic regressions on pairs of the training text: on all `FEATURES`, and on the two sizes alone; of more
    than two classes, one for each class against the rest.

    The second shows what the way of pairing gives away, for sizes know nothing of content.

    Args:
        corpus: the training split.
        idf_V: see `inverse_document_frequency`.
        config: how sentences become pairs that have labels.
        corrupting: objectives whose corruption the model's samples have gone through.
        seed: of pairs and corruption.
        pairs: the regressions are fitted on at most so many.
    """

    def __init__(
        self,
        corpus: Corpus,
        vocabulary: Vocabulary,
        idf_V: FloatArray,
        config: PairingConfig,
        corrupting: Sequence[Corruption],
        seed: int = 0,
        pairs: int = PAIRS,
    ) -> None:
        self._vocabulary, self._idf_V = vocabulary, idf_V
        index = build_pairs(corpus.sizes, _part(corpus), config, seed, 1)
        chosen = np.sort(np.random.default_rng(seed).permutation(len(index))[:pairs])
        features_M7 = np.concatenate(
            [
                self._corrupted(corpus, index, chosen[begin : begin + _BATCH], corrupting, seed)
                for begin in range(0, len(chosen), _BATCH)
            ]
        )
        labels_M = index.rows["label"].take(chosen)
        self._whole, self._sizes = _Classes(features_M7, labels_M), _Classes(features_M7[:, SIZES], labels_M)

    def follows(self, tokens_BT: Int64Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(B,) labels of the pairs (of ``nsp`` 1: B follows A) by all features, and by sizes alone.

        Args:
            tokens_BT: rows ``<s> A </s> B </s>`` as a model sees them, padded.
        """
        row_N = np.repeat(np.arange(len(tokens_BT)), tokens_BT.shape[1])
        features_B7 = pair_features(tokens_BT.ravel(), row_N, len(tokens_BT), self._vocabulary, self._idf_V)
        return self._whole(features_B7), self._sizes(features_B7[:, SIZES])

    def _corrupted(
        self, corpus: Corpus, index: PairIndex, index_B: Int64Array, corrupting: Sequence[Corruption], seed: int
    ) -> FloatArray:
        batch = index.batch(corpus, index_B, self._vocabulary)
        corrupt_batch(corrupting, batch, BatchRandom(seed, 1, index_B, batch.sample_N, batch.position_N))
        return pair_features(batch.tokens_N, batch.sample_N, len(index_B), self._vocabulary, self._idf_V)


def pair_features(
    tokens_N: Int64Array, row_N: Int64Array, rows: int, vocabulary: Vocabulary, idf_V: FloatArray
) -> FloatArray:
    """(B, 7) features of B rows ``<s> A </s> [B </s>]``, special ids and ``<mask>`` left out.

    A share of nothing is 0.

    1. idf of the shared distinct pieces, added up, as a share of that of all distinct pieces;
    2. share of A's distinct pieces that occur in B; 3. of B's that occur in A;
    4. the largest idf of a shared piece;
    5. pieces of A; 6. pieces of B;
    7. shared distinct pieces.

    Args:
        tokens_N, row_N: ids and their row, rows in order; padding may be among them.
        rows: B.
    """
    ends_N = tokens_N == vocabulary.eos
    ends_B = np.bincount(row_N[ends_N], minlength=rows)
    segment_N = np.cumsum(ends_N) - (np.cumsum(ends_B) - ends_B).take(row_N)
    inside = np.flatnonzero(~vocabulary.special_V.take(tokens_N))
    key, of_b = row_N.take(inside) * vocabulary.size + tokens_N.take(inside), segment_N.take(inside) > 0
    first, second = np.unique(key[~of_b]), np.unique(key[of_b])
    shared = np.intersect1d(first, second, assume_unique=True)

    def per_row(keys: Int64Array, weight_V: FloatArray | None = None) -> FloatArray:
        row, piece = np.divmod(keys, vocabulary.size)
        weights = None if weight_V is None else weight_V.take(piece)
        return np.bincount(row, weights, minlength=rows).astype(np.float64)

    rarest_B = np.zeros(rows)
    row, piece = np.divmod(shared, vocabulary.size)
    np.maximum.at(rarest_B, row, idf_V.take(piece))
    shared_B, idf_B = per_row(shared), per_row(shared, idf_V)
    columns = [
        _share(idf_B, per_row(first, idf_V) + per_row(second, idf_V) - idf_B),
        _share(shared_B, per_row(first)),
        _share(shared_B, per_row(second)),
        rarest_B,
        per_row(key[~of_b]),
        per_row(key[of_b]),
        shared_B,
    ]
    return np.stack(columns, 1)


def inverse_document_frequency(corpus: Corpus, vocabulary: Vocabulary, tokens: int = 10_000_000) -> FloatArray:
    """(V,) log((1 + n) / (1 + n_id)) with n documents of which n_id hold the id, in the first ``tokens`` ids of a
    corpus.

    Sentences take the place of documents where fewer than 100 documents begin there. Memory: a few arrays of a million
    ids, and of the vocabulary, however long corpus and documents are.
    """
    end = min(len(corpus.tokens), tokens)
    by_document = int((corpus.token_start(corpus.document_start[:_FEW_DOCUMENTS]) < end).sum()) == _FEW_DOCUMENTS
    holding_V, seen_V = np.zeros(vocabulary.size), np.full(vocabulary.size, -1, dtype=np.int64)
    unit, after_end = (
        0,
        True,
    )  # number of the document or sentence that the next id is of, and whether </s> stood before it
    for begin in range(0, end, _CHUNK):
        ids = corpus.tokens[begin : min(end, begin + _CHUNK)].astype(np.int64)
        ends = ids == corpus.eos
        closes = ends & np.append(after_end, ends[:-1]) if by_document else ends
        unit_N = unit + np.cumsum(closes)
        units, pieces = np.divmod(np.unique(unit_N * vocabulary.size + ids), vocabulary.size)
        fresh = seen_V.take(pieces) != units  # only the first unit of a chunk may have begun in the one before
        holding_V += np.bincount(pieces[fresh], minlength=vocabulary.size)
        np.maximum.at(seen_V, pieces, units)
        unit, after_end = int(unit_N[-1]), bool(ends[-1])
    return np.log((2.0 + unit) / (1.0 + holding_V))


def _part(corpus: Corpus) -> tuple[Int64Array, Int64Array]:
    """(start, end) of all documents; of a large corpus, of a run of sentences in each of some thousand random ones."""
    start, end = corpus.documents
    if len(corpus) <= _MOST_SENTENCES:
        return start, end
    random = np.random.default_rng(0)
    if len(start) > _MOST_DOCUMENTS:
        chosen = np.sort(random.choice(len(start), _MOST_DOCUMENTS, replace=False))
        start, end = start.take(chosen), end.take(chosen)
    most = 2 * (_MOST_SENTENCES // (2 * len(start)))  # even, and begun at an even place: whole rows of sentence pairs
    skipped = 2 * random.integers((np.maximum(end - start - most, 0) // 2) + 1)
    return start + skipped, np.minimum(start + skipped + most, end)


def _share(part_B: FloatArray, whole_B: FloatArray) -> FloatArray:
    return np.divide(part_B, whole_B, out=np.zeros_like(part_B), where=whole_B > 0)


class _Classes:
    """Logistic regressions on standardised features, of labels 0, 1, ...: of two classes one, else one for each class
    against the rest; called, it gives the likeliest label.
    """

    def __init__(self, features_MF: FloatArray, labels_M: npt.NDArray[np.integer]) -> None:
        deviation_F = features_MF.std(0)
        self._mean_F, self._scale_F = features_MF.mean(0), np.where(deviation_F > 0, deviation_F, 1.0)
        x_MF = self._standard(features_MF)
        classes = max(2, int(labels_M.max(initial=0)) + 1)
        self._scores: list[Callable[[FloatArray], FloatArray]] = []
        for label in range(classes)[classes == 2 :]:
            one_M = labels_M == label
            if one_M.all() or not one_M.any():  # nothing to tell apart
                self._scores.append(partial(_always, 1.0 if one_M.any() else -1.0))
                continue
            regression = LogisticRegression(C=1 / (_PENALTY * len(x_MF)), solver="newton-cholesky")
            self._scores.append(regression.fit(x_MF, one_M).decision_function)

    def __call__(self, features_MF: FloatArray) -> npt.NDArray[np.int64]:
        """(M,) labels; of two classes the second where it is likelier than not."""
        x_MF = self._standard(features_MF)
        scores_KM = np.stack([score(x_MF) for score in self._scores])
        return (scores_KM[0] > 0).astype(np.int64) if len(scores_KM) == 1 else scores_KM.argmax(0)

    def _standard(self, features_MF: FloatArray) -> FloatArray:
        found: FloatArray = (features_MF - self._mean_F) / self._scale_F
        return found


def _always(score: float, features_MF: FloatArray) -> FloatArray:
    return np.full(len(features_MF), score)
