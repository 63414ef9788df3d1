"""odd_man_out: one word was replaced, both its bigrams are attested, its trigram is not; and no word list tells."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hmtl_plugin.probing.generation.ngrams import Ngrams
from tests.probing.generation import texts


def grams(sentences: list[str], n: int) -> Counter[tuple[str, ...]]:
    """Runs of n words, counted."""
    split = [s.split(" ") for s in sentences]
    return Counter(tuple(words[i : i + n]) for words in split for i in range(len(words) - n + 1))


def replaced_word(text: str, by_context: dict[tuple[str, ...], list[tuple[str, int]]]) -> tuple[str, int]:
    """The word that stood there, and its place."""
    words = text.split(" ")
    found = [
        (old, i)
        for i in range(1, len(words) - 1)
        for old, place in by_context.get((*words[:i], *words[i + 1 :]), [])
        if place == i
    ]
    assert len(found) == 1
    return found[0]


def test_every_replacement_obeys_the_rules(source: Path, made: Path, tmp_path: Path) -> None:
    sample = texts.sample(source, tmp_path / "s")
    train = [s for s, split in zip(sample.sentences, sample.split_S) if split == 0]
    single, pair, triple = grams(train, 1), grams(train, 2), grams(sample.sentences, 3)
    frequent = {word for (word,), _ in single.most_common(100)}
    by_context: dict[tuple[str, ...], list[tuple[str, int]]] = {}
    for sentence in sample.sentences:
        words = sentence.split(" ")
        for i in range(1, len(words) - 1):
            by_context.setdefault((*words[:i], *words[i + 1 :]), []).append((words[i], i))
    for of_split in texts.read(made / "odd_man_out.txt").values():
        taken, put = Counter[str](), Counter[str]()
        for label, text in of_split:
            if label == "O":
                assert text in set(sample.sentences)
                continue
            old, i = replaced_word(text, by_context)
            left, new, right = text.split(" ")[i - 1 : i + 2]
            assert old.isalpha() and new.isalpha()
            assert old != new
            assert not {old, new} & frequent
            assert 0.5 <= single[old,] / single[new,] <= 2
            assert pair[left, new] and pair[new, right]
            assert (left, new, right) not in triple
            taken[old] += 1
            put[new] += 1
        assert taken.total() == len(of_split) / 2
        assert (taken - put).total() <= 1  # exchanged: what is put in was taken out


def test_ngrams_count_what_a_dictionary_counts(source: Path, tmp_path: Path) -> None:
    sample = texts.sample(source, tmp_path / "s")
    ngrams, words = Ngrams(sample), sample.vocabulary.words
    pair = grams([s for s, split in zip(sample.sentences, sample.split_S) if split == 0], 2)
    triple = grams(sample.sentences, 3)
    random = np.random.default_rng(0)
    left, middle, right = random.choice(np.argsort(-sample.train_count_V)[:60], (3, 3000))
    counted = ngrams.count(left, middle).tolist()
    assert counted == [pair[words[a], words[b]] for a, b in zip(left, middle)]
    attested = ngrams.has_trigram(left, middle, right).tolist()
    assert attested == [(words[a], words[b], words[c]) in triple for a, b, c in zip(left, middle, right)]
    assert any(attested)


@pytest.mark.parametrize("name", ["bigram_shift", "odd_man_out"])
def test_single_words_tell_nothing_on_real_text(
    real_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    out = brown_sets(real_data("text/brown/brown.txt"), tmp_path_factory)
    rows = texts.read(out / f"{name}.txt")
    vectorizer = CountVectorizer(token_pattern=r"\S+", lowercase=False)
    labels, train = zip(*rows["tr"])
    assert len(train) >= 5000
    classifier = LogisticRegression(C=0.03, max_iter=300).fit(vectorizer.fit_transform(train), labels)
    held_labels, held = zip(*rows["va"], *rows["te"])
    accuracy = classifier.score(vectorizer.transform(held), held_labels)
    assert abs(accuracy - 0.5) < 3 * 0.5 / len(held) ** 0.5  # three standard deviations of guessing


def brown_sets(source: Path, factory: pytest.TempPathFactory) -> Path:
    """The sets of Brown, made once."""
    out = factory.getbasetemp() / "brown_probing"
    if not out.exists():
        texts.make(source, out, train=10_000, valid=2500, test=2500, words=1000)
    return out
