"""Which sentences are taken, how documents are split, and what is known of words."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.probing.generation.split import split_documents
from hmtl_plugin.probing.generation.vocabulary import core, is_bare, number_words
from tests.probing.generation import texts


def test_words_are_numbered_and_described() -> None:
    vocabulary, word_N, start_S1 = number_words(["The dog, the 'Dog' isn't", "naïve dog A4 -- nāḍī हिन्दी"])
    assert [vocabulary.words[w] for w in word_N[start_S1[1] :]] == ["naïve", "dog", "A4", "--", "nāḍī", "हिन्दी"]
    known = dict(zip(vocabulary.words, range(len(vocabulary))))
    assert {w for w in known if vocabulary.bare_V[known[w]]} == {*known} - {"dog,", "'Dog'", "--"}
    assert {w for w in known if vocabulary.letters_V[known[w]]} == {"The", "the", "naïve", "dog", "nāḍī", "हिन्दी"}
    assert {w for w in known if not vocabulary.lower_V[known[w]]} == {"The", "'Dog'", "A4"}
    assert len({vocabulary.core_V[known[w]] for w in ("dog", "dog,", "'Dog'")}) == 1
    assert (core("(Dog)"), core("--"), is_bare("3rd"), is_bare("it's"), is_bare("its'")) == (
        "dog",
        "--",
        True,
        True,
        False,
    )


def test_only_sentences_of_fitting_length_and_of_letters_are_taken(tmp_path: Path) -> None:
    docs = texts.documents(3, 4)
    odd = [
        "Too few words here",
        " ".join(["many"] * 29),
        "1 2 3 4 5 6 = 21 all",
        docs[0][0].upper(),
        "दो तीन चार पाँच छह",
    ]
    text = texts.sample(texts.write(tmp_path / "t", [*docs, odd]), tmp_path / "s")
    assert set(text.sentences) == {*(s for doc in docs for s in doc), odd[-1]}
    assert text.counts == {
        "sentences": 17,
        "too_short_or_long": 2,
        "mostly_no_letters": 1,
        "duplicate": 1,
        "not_sampled": 0,
        "sampled": 13,
    }


def test_a_sample_does_not_depend_on_the_order_of_documents(tmp_path: Path) -> None:
    docs = texts.documents(30, 60)
    there = texts.sample(texts.write(tmp_path / "t", docs), tmp_path / "a", max_sentences=900)
    back = texts.sample(texts.write(tmp_path / "u", docs[::-1]), tmp_path / "b", max_sentences=900)
    assert there.sentences == back.sentences
    assert len(there.sentences) == 900
    assert there.counts["not_sampled"] == 900
    assert np.array_equal(there.split_S, back.split_S)
    per_document = Counter(there.document_S.tolist())
    assert min(per_document.values()) > 10
    assert max(per_document.values()) < 50
    assert not there.unseen([docs[0][0], docs[-1][-1].upper()]).any()  # sentences that were not sampled are known too


def test_splits_come_near_their_shares_and_none_is_empty() -> None:
    random = np.random.default_rng(0)
    for count in (3, 4, 5, 17, 300):
        size_D = random.integers(1, 200, count)
        for asked in ((60.0, 20.0, 20.0), (0.5, 0.15, 0.35)):
            split_D = split_documents(size_D, random.integers(0, 2**63, count).astype(np.uint64), asked)
            assert set(split_D.tolist()) == {0, 1, 2}
            if count > 10:
                shares = np.bincount(split_D, weights=size_D) / size_D.sum()
                assert np.abs(shares - np.array(asked) / sum(asked)).max() < (0.1 if count < 100 else 0.02)


def test_the_unit_of_the_shares_changes_no_split() -> None:
    """Sizes that divide evenly, where splits are often filled alike."""
    random = np.random.default_rng(1)
    for _ in range(50):
        size_D, draw_D = random.integers(1, 5, 60), random.integers(0, 2**63, 60).astype(np.uint64)
        first, *others = (split_documents(size_D, draw_D, unit) for unit in ((0.6, 0.2, 0.2), (60, 20, 20), (6, 2, 2)))
        assert all(np.array_equal(first, other) for other in others)


def test_text_without_words_is_refused(tmp_path: Path) -> None:
    chinese = texts.write(tmp_path / "zh", [[f"我们今天去公园玩然后回家吃饭看书睡觉第{i}天。"] for i in range(50)])
    with pytest.raises(UserError, match="need words separated by blanks"):
        texts.make(chinese, tmp_path / "out")
    titles = texts.write(tmp_path / "titles", [["A short title", f"Another {i}"] for i in range(50)])
    with pytest.raises(UserError, match="none of the 100 sentences has 5 to 28 words"):
        texts.make(titles, tmp_path / "out")
    empty = tmp_path / "empty"
    empty.write_text("\n\n")
    with pytest.raises(UserError, match="hold no text"):
        texts.make(empty, tmp_path / "out")
