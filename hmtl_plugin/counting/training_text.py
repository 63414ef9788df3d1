"""What counting the training text of a data folder gives, once for all runs that a process evaluates on it."""

from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from fairseq.data import Dictionary

from hmtl_plugin.corruption.base import Corruption
from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.counting.bigrams import BigramCounts
from hmtl_plugin.counting.pairs import PairCounts, inverse_document_frequency
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.pairing import PairingConfig

UNIGRAM_TOKENS = 50_000_000


class TrainingText:
    """What counting the training text of a data folder gives.

    Attributes:
        unigram_V: (V,) log-probability of each id (from the first 50 M tokens), add-one smoothed; no specials.
        bigrams: pairs of neighbours.
    """

    def __init__(self, corpus: Corpus, vocabulary: Vocabulary) -> None:
        counts = np.ones(vocabulary.size)
        for start in range(0, min(len(corpus.tokens), UNIGRAM_TOKENS), 1 << 20):
            ids = corpus.tokens[start : start + (1 << 20)]
            corpus.check_ids(ids, vocabulary.size)
            counts += np.bincount(ids, minlength=vocabulary.size)
        counts[vocabulary.special_V] = 0
        probability_V = counts / counts.sum()
        with np.errstate(divide="ignore"):
            self.unigram_V = torch.from_numpy(np.log(probability_V))
        self.bigrams = BigramCounts(corpus, vocabulary, probability_V)
        self._corpus, self._vocabulary = corpus, vocabulary
        self._idf_V: npt.NDArray[np.float64] | None = None
        self._pairs: dict[Any, PairCounts] = {}

    @classmethod
    def of(cls, folder: Path, dictionary: Dictionary, vocabulary: Vocabulary) -> "TrainingText":
        """Of ``folder/train``; that of the folder asked for last is kept, so that several runs share it.

        Raises:
            UserError: if the split cannot be opened.
        """
        corpus = Corpus(str(folder / "train"), eos=vocabulary.eos)
        key = (corpus.fingerprint, tuple(dictionary.symbols), vocabulary.has_words)
        if key not in _last_text:
            _last_text.clear()
            _last_text[key] = cls(corpus, vocabulary)
        return _last_text[key]

    def pairs(self, config: PairingConfig, corrupting: tuple[Corruption, ...], seed: int) -> PairCounts | None:
        """Next sentences by counting, on pairs made as those of a view; None for a text of one document."""
        if len(self._corpus.document_start) < 2:
            return None
        if self._idf_V is None:
            self._idf_V = inverse_document_frequency(self._corpus, self._vocabulary)
        key = (config, seed, tuple(sorted((o.name, astuple(o.options)) for o in corrupting)))
        if key not in self._pairs:
            self._pairs[key] = PairCounts(self._corpus, self._vocabulary, self._idf_V, config, corrupting, seed)
        return self._pairs[key]


_last_text: dict[Any, TrainingText] = {}
