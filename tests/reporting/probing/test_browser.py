"""The report in a real browser: everything is there, nothing runs over, and it prints."""

import html as entities
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from hmtl_plugin.reporting.probing.html import html
from hmtl_plugin.reporting.probing.plots import plots
from tests.reporting.probing.studies import Shape, invented

pytestmark = pytest.mark.slow

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --hide-scrollbars"
).split()
_LARGE = Shape(
    layers=12,
    tasks=12,
    names=("runs/flat", "runs/books-hierarchy-with-a-name-that-is-long", "c", "runs/d", "runs/books/e"),
)

# A frame has the width that it is given, however small; a browser's window has not.
_MEASURE = """<!DOCTYPE html><iframe id="frame" width="{width}" height="900" srcdoc="{page}"></iframe><pre id="found"></pre>
<script>
document.getElementById("frame").onload = function () {{
  const page = this.contentDocument, root = page.documentElement;
  const outside = [];
  for (const svg of page.querySelectorAll("svg")) {{
    const whole = svg.getBoundingClientRect();
    for (const text of svg.querySelectorAll("text")) {{
      const box = text.getBoundingClientRect();
      if (box.left < whole.left - 1 || box.right > whole.right + 1 || box.top < whole.top - 1 || box.bottom > whole.bottom + 1)
        outside.push(text.textContent);
    }}
  }}
  const shown = (selector) => [...page.querySelectorAll(selector)].filter(e => e.getBoundingClientRect().height > 5).length;
  document.getElementById("found").textContent = JSON.stringify({{
    width: root.clientWidth, content: root.scrollWidth, outside: outside,
    sections: shown("section > h2"), figures: shown("figure svg"), tables: shown("section > .scroll > table"),
  }});
}};
</script>"""

Browse = Callable[..., bytes]


@cache
def _page(shape: Shape) -> str:
    return html(invented(shape))


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    """``browse(page, *flags)`` opens the text of a page in a headless browser and returns what it prints."""
    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(_BROWSERS)} is installed")

    def run(page: str, *flags: str) -> bytes:
        file = tmp_path / "page.html"
        file.write_text(page, encoding="utf-8")
        command = [program, *_FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, file.as_uri()]
        return subprocess.run(command, check=True, capture_output=True, timeout=120).stdout

    return run


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("shape", [Shape(), _LARGE], ids=["small", "large"])
def test_everything_is_shown_and_nothing_runs_over(browse: Browse, shape: Shape, width: int) -> None:
    study = invented(shape)
    page = entities.escape(_page(shape))
    dom = browse(_MEASURE.format(width=width, page=page), "--dump-dom").decode()
    match = re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)
    assert match is not None
    found: dict[str, Any] = json.loads(entities.unescape(match[1]))
    assert found["width"] == width
    assert found["content"] <= width
    assert found["outside"] == []
    assert found["figures"] == len(plots(study))
    assert found["sections"] == 10
    assert found["tables"] == 2 + 3 * len(study.poolings)


def test_page_stands_without_a_script(browse: Browse) -> None:
    page = _page(Shape())
    dom = browse(page, "--dump-dom").decode()
    for tag in ("svg", "table", "figure", "h2", "h3", "details"):
        assert dom.count(f"<{tag}") == page.count(f"<{tag}")


def test_prints_on_several_sheets_with_all_numbers(browse: Browse, tmp_path: Path) -> None:
    page = _page(Shape())
    whole = _sheets(browse, page, tmp_path)
    assert whole > 1
    # What is folded on a screen is open on paper.
    assert whole > _sheets(browse, re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL), tmp_path) + 2


def _sheets(browse: Browse, page: str, folder: Path) -> int:
    file = folder / "page.pdf"
    browse(page, f"--print-to-pdf={file}")
    return len(re.findall(rb"/Type\s*/Page\b", file.read_bytes()))


def test_screenshot_is_not_blank(browse: Browse, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    browse(_page(Shape()), "--window-size=1280,5000", f"--screenshot={picture}")
    pixels = (np.asarray(imread(picture))[..., :3] * 255).astype(np.int64) @ [1 << 16, 1 << 8, 1]
    for part in np.array_split(pixels, 5):  # nor is any part of it
        assert len(np.unique(part)) > 20
