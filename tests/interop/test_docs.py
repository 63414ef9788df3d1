"""The snippets of the page on interchange, run as they stand."""

import re
from pathlib import Path

import pytest

for package in ("transformers", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)
from hmtl_plugin.interop.exporting import export_hf  # noqa: E402
from hmtl_plugin.interop.onnx import export_onnx  # noqa: E402
from hmtl_plugin.tokenizers.base import SENTENCEPIECE  # noqa: E402
from hmtl_plugin.tokenizers.loading import tokenizer_from_bytes  # noqa: E402
from hmtl_plugin.tokenizers.training import train_tokenizer  # noqa: E402
from tests.conftest import REPOSITORY  # noqa: E402
from tests.interop.checkpoints import save_checkpoint  # noqa: E402
from tests.preparation.texts import documents  # noqa: E402

PAGE = (REPOSITORY / "docs" / "interchange.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """hf/my and my.onnx, of a checkpoint with random weights."""
    folder = tmp_path_factory.mktemp("docs")
    sentences = [s for doc in documents(60) for s in doc]
    run = save_checkpoint(folder / "run", tokenizer_from_bytes(SENTENCEPIECE, train_tokenizer(sentences, 120)))
    export_hf(run, folder / "hf" / "my")
    export_onnx(run, folder / "my.onnx")
    return folder


@pytest.mark.parametrize("number", range(3))
def test_snippet(place: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    assert len(SNIPPETS) == 3
    monkeypatch.chdir(place)
    found: dict[str, object] = {}
    exec(compile(SNIPPETS[number], f"snippet {number}", "exec"), found)
    value = found.get("states", found.get("similarity"))
    shape = tuple(value.shape)  # type: ignore[union-attr]
    assert shape[-1:] == (32,) or shape == ()


def test_scripts_and_files_that_the_page_names_are_there() -> None:
    for name in re.findall(r"(?:scripts|tests)/[\w./]+", PAGE):
        assert (REPOSITORY / name.rstrip(".")).exists(), name
