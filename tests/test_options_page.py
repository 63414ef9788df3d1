"""docs/options.md is what the options' definitions give."""

import pytest

from tests.conftest import REPOSITORY
from tests.scripts import run_script


def test_the_page_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    run_script("list_options")
    assert capsys.readouterr().out == (REPOSITORY / "docs/options.md").read_text(encoding="utf-8"), (
        "run python scripts/list_options.py > docs/options.md"
    )
