"""Bits a character of whole words: the same words whatever the vocabulary, values as computed by hand."""

import logging
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary

from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.evaluation.word_bits import CHARACTERS, SHARE, MaskedContext, masked_words, word_bits
from hmtl_plugin.tokenizers.base import Tokenizer
from hmtl_plugin.tokenizers.loading import load_tokenizer
from tests.commands.running import run_script

SIZES = (80, 300)


def write_text(path: Path) -> Path:
    """Sentences of made-up words, frequent ones first, some with a comma; some longer than a context."""
    draw = random.Random(0)
    words = ["".join(draw.choice("bdfgklmnprst") + draw.choice("aeiou") for _ in range(1 + n % 4)) for n in range(300)]
    lines = []
    for _ in range(60):
        for _ in range(4):
            count = draw.randint(4, 14) if draw.random() < 0.9 else 50
            chosen = [words[int(300 * draw.random() ** 2)] + "," * (draw.random() < 0.1) for _ in range(count)]
            lines.append(" ".join(chosen).capitalize() + ".")
        lines.append("")
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One text with two vocabularies."""
    root = tmp_path_factory.mktemp("vocabularies")
    text = write_text(root / "text.txt")
    for size in SIZES:
        run_script("prepare_corpus", text, "--format", "sentences", "--vocab-size", str(size), "--valid-fraction", "0.5",
                   "--workers", "1", "--out", root / str(size))  # fmt: skip
    return [root / str(size) for size in SIZES]


def asked(folder: Path, positions: int = 512, samples: int = 200) -> tuple[list[MaskedContext], Vocabulary, Tokenizer]:
    vocabulary = Vocabulary.from_dictionary(Dictionary.load(str(folder / "dict.txt")))
    tokenizer = load_tokenizer(folder)
    contexts = masked_words(Corpus(str(folder / "valid")), vocabulary, tokenizer, positions, samples)
    assert not isinstance(contexts, str)
    return contexts, vocabulary, tokenizer


def test_two_vocabularies_are_asked_for_the_same_words(folders: list[Path]) -> None:
    small, large = (asked(folder)[0] for folder in folders)
    assert len(small) > 50
    assert [context.words for context in small] == [context.words for context in large]
    assert [context.characters for context in small] == [context.characters for context in large]
    pieces = [sum(len(context.labels) for context in contexts) for contexts in (small, large)]
    assert pieces[0] > 1.2 * pieces[1], "the vocabularies do not differ"


@pytest.mark.parametrize("number", [0, 1])
def test_all_pieces_of_a_word_are_masked_and_nothing_else(folders: list[Path], number: int) -> None:
    contexts, vocabulary, tokenizer = asked(folders[number])
    held_out = Corpus(str(folders[number] / "valid"))
    text = tokenizer.decode(held_out.tokens.astype(np.int64))
    words = 0
    for context in contexts:
        clean = context.ids.copy()
        assert (np.flatnonzero(clean == vocabulary.mask) == context.positions).all()
        clean[context.positions] = context.labels
        shown = tokenizer.decode(clean)
        assert clean[0] == vocabulary.bos and clean[-1] == vocabulary.eos
        assert shown in text and len(shown) <= CHARACTERS
        found = tokenizer.decode(context.labels).split(" ")
        assert found == list(context.words) and set(found) <= set(shown.split(" "))
        words += len(shown.split(" "))
    share = sum(len(context.words) for context in contexts) / words
    assert abs(share - SHARE) < 0.03, share


def test_bits_of_a_uniform_model_by_hand(folders: list[Path]) -> None:
    """log2 V for every piece, whatever the batches; unigrams likewise."""
    contexts, vocabulary, _ = asked(folders[0])
    seen: list[int] = []

    class Uniform:
        def __call__(self, tokens_BT: torch.Tensor, targets: dict[str, Any]) -> tuple[dict[str, torch.Tensor], None]:
            positions = targets["mlm"]["positions"]
            assert (tokens_BT.flatten()[positions] == vocabulary.mask).all()
            assert len(positions) == int((tokens_BT == vocabulary.mask).sum())
            seen.append(tokens_BT.numel())
            return {"mlm": torch.zeros(len(positions), vocabulary.size)}, None

    unigram_V = torch.full((vocabulary.size,), -1.0)
    for max_tokens in (500, 10_000):
        sums = word_bits(Uniform(), contexts, vocabulary, unigram_V, max_tokens)  # type: ignore[arg-type]
        pieces = np.array([len(context.labels) for context in contexts])
        assert np.allclose(sums[:, 0], pieces * np.log2(vocabulary.size))
        assert sums[:, 1].tolist() == [sum(map(len, context.words)) for context in contexts]
        assert np.allclose(sums[:, 2], pieces / np.log(2))
        assert max(seen) <= max_tokens
        seen.clear()


def test_words_beyond_the_positions_are_left_out_and_counted(
    folders: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    whole, cut = asked(folders[0])[0], None
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        cut = asked(folders[0], positions=30)[0]
    assert max(len(context.ids) for context in cut) == 30
    lost = sum(len(c.words) for c in whole) - sum(len(c.words) for c in cut)
    assert lost > 0 and f"{lost} of " in caplog.text and "30 positions" in caplog.text


def test_without_a_tokenizer_or_words_there_is_a_reason(folders: list[Path]) -> None:
    corpus, vocabulary = Corpus(str(folders[0] / "valid")), asked(folders[0])[1]
    assert "no tokenizer" in str(masked_words(corpus, vocabulary, None, 512, 10))
    no_words = SimpleNamespace(**{**vars(vocabulary), "has_words": False})
    found = masked_words(corpus, no_words, load_tokenizer(folders[0]), 512, 10)  # type: ignore[arg-type]
    assert "does not mark where words begin" in str(found)
