"""Shared by the tests of this folder."""

import numpy as np
import pytest

from hmtl_plugin.data.tokenizer import Tokenizer, train_tokenizer

WORDS = "the cat sat on a mat and dogs sing while birds fly over old grey towns".split()


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A tokenizer that knows the characters of `WORDS`."""
    random = np.random.default_rng(0)
    sentences = [" ".join(random.choice(WORDS, 8)) for _ in range(300)]
    return Tokenizer(train_tokenizer(sentences, 40, character_coverage=1.0))
