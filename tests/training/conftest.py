"""A corpus for the tests of a file, and a run on it that others are compared with."""

from pathlib import Path

import pytest

from tests.training.runs import arguments, make_data, train


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 documents."""
    return make_data(tmp_path_factory.mktemp("data"), documents=40)


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with the options ``WHOLE`` of the file that is never interrupted."""
    save_dir = tmp_path_factory.mktemp("whole")
    train(arguments(data, save_dir, *request.module.WHOLE))
    return save_dir
