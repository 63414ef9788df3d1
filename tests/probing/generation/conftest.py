"""One small text and its sets, made once."""

from pathlib import Path

import pytest

from tests.probing.generation import texts


@pytest.fixture(scope="package")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 documents of 100 sentences."""
    return texts.write(tmp_path_factory.mktemp("text") / "text.txt", texts.documents())


@pytest.fixture(scope="package")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of its probing sets."""
    out = tmp_path_factory.mktemp("sets") / "probing"
    texts.make(source, out)
    return out
