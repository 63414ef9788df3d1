"""Next sentences by counting: features as a loop would compute them, no label gets into them, what is read is bounded."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary

from hmtl_plugin.corruption.batch import FlatBatch
from hmtl_plugin.corruption.random import BatchRandom
from hmtl_plugin.corruption.vocabulary import MASK, Vocabulary
from hmtl_plugin.counting import pairs as pair_counts
from hmtl_plugin.counting.pairs import PairCounts, inverse_document_frequency, pair_features
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.pairing import PairIndex, PairingConfig
from hmtl_plugin.data.splits import open_split
from hmtl_plugin.objectives.base import build_objectives
from tests.data.corpora import write
from tests.training.runs import make_data

BOS, PAD, EOS, MASKED, FIRST, SIZE = 0, 1, 2, 4, 5, 17
OPTIONS = SimpleNamespace(tokens_per_sample=40, short_seq_prob=0.1, pairing="auto")


def small_vocabulary() -> Vocabulary:
    return SimpleNamespace(size=SIZE, eos=EOS, special_V=np.arange(SIZE) < FIRST)  # type: ignore[return-value]


def slow_features(tokens: list[int], idf: list[float]) -> list[float]:
    """Of one row, as the docstring of `pair_features` says it."""
    end = tokens.index(EOS)
    first, second = ([t for t in part if t >= FIRST] for part in (tokens[:end], tokens[end:]))
    a, b = set(first), set(second)
    shared, union = a & b, a | b
    return [
        sum(idf[t] for t in shared) / sum(idf[t] for t in union) if union and sum(idf[t] for t in union) else 0.0,
        len(shared) / len(a) if a else 0.0,
        len(shared) / len(b) if b else 0.0,
        max((idf[t] for t in shared), default=0.0),
        float(len(first)),
        float(len(second)),
        float(len(shared)),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_features_are_those_of_a_loop(seed: int) -> None:
    """Padded or end to end; masks and unknown pieces among them, segments without a piece, rows without a second one."""
    random = np.random.default_rng(seed)
    idf_V = np.where(random.random(SIZE) < 0.2, 0.0, random.random(SIZE))
    rows = []
    for _ in range(40):
        parts = [random.choice([3, MASKED, *range(FIRST, SIZE)], random.integers(0, 9)).tolist() for _ in range(2)]
        rows.append([BOS, *parts[0], EOS, *([*parts[1], EOS] if random.random() < 0.9 else [])])
    expected = [slow_features(row, idf_V.tolist()) for row in rows]
    vocabulary, width = small_vocabulary(), max(map(len, rows)) + 2
    flat = np.concatenate(rows), np.repeat(np.arange(len(rows)), list(map(len, rows)))
    padded = np.array([row + [PAD] * (width - len(row)) for row in rows])
    for tokens_N, row_N in (flat, (padded.ravel(), np.repeat(np.arange(len(rows)), width))):
        found = pair_features(tokens_N, row_N, len(rows), vocabulary, idf_V)
        assert np.allclose(found, expected)


@pytest.mark.parametrize("chunk", [3, 7, 1 << 20])
@pytest.mark.parametrize("documents", [5, 130])
def test_idf_of_documents_or_of_sentences_where_these_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, documents: int
) -> None:
    """However the text is cut into chunks."""
    monkeypatch.setattr(pair_counts, "_CHUNK", chunk)
    random = np.random.default_rng(documents)
    texts = [
        [random.integers(FIRST, SIZE - 1, random.integers(1, 5)).tolist() for _ in range(random.integers(1, 4))]
        for _ in range(documents)
    ]
    corpus = Corpus(write(tmp_path, [item for text in texts for item in [*text, []]]))
    units = [set().union(*text) for text in texts] if documents >= 100 else [set(s) for text in texts for s in text]
    units += [set()] * (documents < 100) * documents  # an empty item closes a document, and is a unit of its own
    expected = [np.log((2 + len(units)) / (1 + sum(i in unit for unit in units))) for i in range(FIRST, SIZE)]
    found = inverse_document_frequency(corpus, small_vocabulary())
    assert np.allclose(found[FIRST:] - found[SIZE - 1], np.array(expected) - expected[-1])
    assert (found[FIRST:] >= 0).all()
    assert not np.allclose(found, inverse_document_frequency(corpus, small_vocabulary(), tokens=6))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("pairs"), documents=600)


def counts_and_right(folder: Path) -> tuple[PairCounts, float, float, float]:
    """Percent right on held-out pairs by all features, by sizes, and by the majority."""
    dictionary = Dictionary.load(str(folder / "dict.txt"))
    dictionary.add_symbol(MASK)
    vocabulary = Vocabulary.from_dictionary(dictionary)
    objectives = build_objectives(["nsp", "mlm"])
    data = open_split(folder, "valid", objectives, vocabulary, OPTIONS, training=False, seed=0)
    corpus = Corpus(str(folder / "train"), eos=vocabulary.eos)
    idf_V = inverse_document_frequency(corpus, vocabulary)
    counts = PairCounts(corpus, vocabulary, idf_V, data.pairing["nsp"], tuple(objectives.values()))
    sample = data.collater(list(range(len(data))))
    labels = sample["targets"]["nsp"]["labels"].numpy()
    assert torch.equal(sample["targets"]["nsp"]["positions"], torch.arange(len(data)))
    whole, sizes = counts.follows(sample["net_input"]["src_tokens"].numpy())
    majority = max(labels.mean(), 1 - labels.mean())
    return counts, 100 * (whole == labels).mean(), 100 * (sizes == labels).mean(), 100 * majority


def test_topics_are_found_and_no_label_leaks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitted on shuffled labels it falls to the majority: nothing but the labels tells which pair is which."""
    _, whole, sizes, majority = counts_and_right(folder)
    assert whole > majority + 15 and abs(sizes - majority) < 8
    build = pair_counts.build_pairs

    def shuffled(*arguments: object) -> PairIndex:
        index = build(*arguments)  # type: ignore[arg-type]
        index.rows["label"] = np.random.default_rng(3).permutation(index.rows["label"])
        return index

    monkeypatch.setattr(pair_counts, "build_pairs", shuffled)
    _, whole, _, majority = counts_and_right(folder)
    assert whole < majority + 8


def test_of_a_large_corpus_a_bounded_part_is_paired(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus(str(folder / "train"))
    assert pair_counts._part(corpus) == corpus.documents
    monkeypatch.setattr(pair_counts, "_MOST_SENTENCES", 400)
    monkeypatch.setattr(pair_counts, "_MOST_DOCUMENTS", 100)
    start, end = pair_counts._part(corpus)
    assert len(start) == 100 and 200 < (end - start).sum() <= 400
    document = np.searchsorted(corpus.document_end, start, side="right")
    whole_start, whole_end = corpus.document_start[document], corpus.document_end[document]
    assert len(np.unique(document)) == 100 and (start >= whole_start).all() and (end <= whole_end).all()
    assert ((start - whole_start) % 2 == 0).all() and (start > whole_start).any()
    _, whole, _, majority = counts_and_right(folder)
    assert whole > majority + 10


def test_labels_of_one_class_have_a_regression() -> None:
    features = np.random.default_rng(0).random((50, 3))
    features[:, 2] = 4.0  # does not vary
    assert pair_counts._Classes(features, np.ones(50, dtype=np.int8))(features).all()
    labels = (features[:, 0] > 0.5).astype(np.int8)
    assert (pair_counts._Classes(features, labels)(features) == labels).mean() > 0.9


def test_three_labels_have_one_each() -> None:
    features = np.random.default_rng(0).random((300, 3))
    labels = features.argmax(1).astype(np.int8)
    assert (pair_counts._Classes(features, labels)(features) == labels).mean() > 0.9


def test_the_same_pairs_every_time(folder: Path) -> None:
    one, other = counts_and_right(folder), counts_and_right(folder)
    assert one[1:] == other[1:]


def test_pairs_are_fitted_as_the_model_sees_them(folder: Path) -> None:
    """After the corruption: where all is masked nothing is left to fit on."""

    class MaskAll:
        name, rank, target_names, num_labels, pairing = "all", 0, (), None, "all"

        def reserve(self, batch: FlatBatch, random: BatchRandom) -> None:
            return None

        def corrupt(self, batch: FlatBatch, random: BatchRandom) -> None:
            batch.tokens_N[~batch.vocabulary.special_V.take(batch.tokens_N)] = batch.vocabulary.mask

    dictionary = Dictionary.load(str(folder / "dict.txt"))
    dictionary.add_symbol(MASK)
    vocabulary = Vocabulary.from_dictionary(dictionary)
    corpus, idf_V = Corpus(str(folder / "train")), np.ones(vocabulary.size)
    tokens_BT = np.random.default_rng(0).integers(5, vocabulary.size - 1, (50, 20))
    tokens_BT[:, [9, 19]] = vocabulary.eos
    tokens_BT[:25, 10:19] = tokens_BT[:25, :9]  # every piece of B occurs in A

    def answers(*corrupting: object) -> list[set[int]]:
        config = PairingConfig("nsp", 40)
        counts = PairCounts(corpus, vocabulary, idf_V, config, corrupting)  # type: ignore[arg-type]
        return [set(found.tolist()) for found in counts.follows(tokens_BT)]

    assert answers()[0] == {0, 1}
    assert all(len(found) == 1 for found in answers(MaskAll()))
