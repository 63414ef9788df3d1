"""Shared by the tests of this folder."""

import pytest

from hmtl_plugin.tokenizers.base import Tokenizer
from tests.finetuning.squad.runs import Trained, train_words


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> dict[str, Trained]:
    """A trained model of each version. Not to be changed."""
    return {
        version: train_words(tmp_path_factory.mktemp("squad"), tokenizer, version == "2.0")
        for version in ("1.1", "2.0")
    }


@pytest.fixture(params=["1.1", "2.0"])
def trained(models: dict[str, Trained], request: pytest.FixtureRequest) -> Trained:
    """One of them."""
    return models[request.param]
