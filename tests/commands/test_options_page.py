"""docs/options.md is what the options' definitions give."""

import subprocess
import sys

from tests.conftest import REPOSITORY


def test_the_page_is_current() -> None:
    """In a process of its own: other tests register objectives and optimizers, whose options are no part of the page."""
    command = [sys.executable, str(REPOSITORY / "scripts/list_options.py")]
    page = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert page == (REPOSITORY / "docs/options.md").read_text(encoding="utf-8"), (
        "run python scripts/list_options.py > docs/options.md"
    )
