"""Shared by the tests of this folder."""

import pytest

from tests.preparation.texts import documents, prepare, write_sentences


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tokenizer that knows all characters of these tests."""
    folder = tmp_path_factory.mktemp("tokenizer")
    extra = ["ABCDEFGHIJKLMNOPQRSTUVWXYZ abcdefghijklmnopqrstuvwxyz 0123456789 .,?!'\"-:;()\u00e9"] * 3
    source = write_sentences(folder / "t.txt", [*documents(60), extra])
    out = prepare([source], folder / "d", vocab_size=150, character_coverage=1.0).folder
    return str(out / "sentencepiece.bpe.model")
