"""Normalisation, key sets, the split."""

import numpy as np
import pytest

from hmtl_plugin.preparation.deduplication import (
    ExcludedSentences,
    SeenKeys,
    choose_validation,
    contains,
    key,
    normalise,
    split_keys,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('The  "Cat", sat!', "the cat sat"),
        ("The cat’s “mat”", "the CATS mat"),
        ("line one\nline two", "line one line two"),
        ("caf\u00e9 \ufb01sh", "CAFE\u0301 FISH"),
        ("a\u2028b\u00a0c", "abc"),
        ("plain ascii\nna\u00efve", "PLAIN ASCII NA\u00cfVE"),
    ],
)
def test_normalise_joins(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)
    assert key(one) == key(other)


@pytest.mark.parametrize(
    ("one", "other"), [("C++", "C"), ("...", "---"), ("a", "b"), ("\u0915\u093f", "\u0915\u0940"), ("", ".")]
)
def test_normalise_keeps_apart(one: str, other: str) -> None:
    assert key(one) != key(other)


def test_normalised_in_parts() -> None:
    text = "Caf\u00e9 one.\n\u201cTwo\u201d\n***\nThree e\u0301\n\u0301x"
    for place in range(len(text)):
        if text[place] == "\n":
            assert normalise(text[:place]) + normalise(text[place + 1 :]) == normalise(text)


def test_seen_keys_against_a_set() -> None:
    random = np.random.default_rng(1)
    seen, reference = SeenKeys(), set()
    for _ in range(60):
        keys = random.integers(0, 3000, random.integers(0, 200)).astype(np.uint64)
        expected = []
        for k in keys.tolist():
            expected.append(k not in reference)
            reference.add(k)
        assert seen.add(keys).tolist() == expected
    assert len(seen) == len(reference)


def test_contains_at_the_ends() -> None:
    keys = np.array([3, 5, 2**64 - 1], dtype=np.uint64)
    wanted = np.array([0, 3, 4, 5, 2**64 - 1], dtype=np.uint64)
    assert contains(keys, wanted).tolist() == [False, True, False, True, True]
    assert not contains(keys[:0], wanted).any()


def test_split_is_a_stable_function_of_content_and_seed() -> None:
    keys = np.random.default_rng(0).integers(0, 2**64, 100_000, dtype=np.uint64)
    uniform = split_keys(keys, 1)
    chosen = choose_validation(uniform, 0.1)
    assert abs(chosen.mean() - 0.1) < 5 * (0.09 / 1e5) ** 0.5
    assert (choose_validation(split_keys(keys[:5000], 1), 0.1) == chosen[:5000]).all()
    other = choose_validation(split_keys(keys, 2), 0.1)
    assert abs((chosen & other).mean() - 0.01) < 0.003
    assert choose_validation(split_keys(np.arange(1000, dtype=np.uint64), 3), 0.5).sum() == pytest.approx(500, abs=80)


def test_split_is_that_of_earlier_versions() -> None:
    """Else a corpus prepared again would hold out other documents."""
    keys = np.array([0, 1, 2**64 - 1], dtype=np.uint64)
    assert split_keys(keys, 1).tolist() == [9262233095870552236, 13388956390581069961, 1078847551218761876]
    assert keys.tolist() == [0, 1, 2**64 - 1]  # not mixed in place


def test_split_sizes() -> None:
    keys = split_keys(np.arange(50, dtype=np.uint64), 1)
    assert choose_validation(keys, 0.5, documents=7).sum() == 7
    assert choose_validation(keys, 0.5, documents=0).sum() == 0
    assert choose_validation(keys, 0.5, documents=99).sum() == 50
    assert [int(choose_validation(keys[:count], 1e-12).sum()) for count in (0, 1, 2, 3, 4, 50)] == [0, 1, 1, 1, 2, 2]
    assert (choose_validation(keys, 1e-12) == choose_validation(keys, 0, documents=2)).all()
    assert choose_validation(keys, 0.0).sum() == 0
    assert choose_validation(keys[:0], 0.5).sum() == 0


def test_excluded_sentences() -> None:
    excluded = ExcludedSentences(minimum_words=3)
    excluded.add(excluded.keys(["Yes.", "He did say that.", ""]))
    excluded.seal()
    assert len(excluded) == 1
    assert excluded.shared(["no", "he did say that"])
    assert not excluded.shared(["Yes.", ""])
