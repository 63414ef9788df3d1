"""What the package says where it cannot work."""

import importlib.metadata
import sys
from types import SimpleNamespace

import pytest

from hmtl_plugin import compat


@pytest.mark.parametrize("version", [(3, 10), (3, 14)])
def test_another_python_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int]) -> None:
    name = ".".join(map(str, version))
    monkeypatch.setattr(compat, "sys", SimpleNamespace(version_info=(*version, 0), version=f"{name}.0 (main)"))
    with pytest.raises(ImportError, match=rf"needs Python 3\.11 to 3\.13, this is {name}\.0: make") as error:
        compat.check_versions()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("installed", "found"),
    [
        ({"fairseq-fixed": "0.13.0"}, "found 0.13.0"),
        ({"fairseq": "0.12.2"}, "found fairseq 0.12.2"),
        ({}, "found none"),
    ],
)
def test_another_fairseq_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], found: str
) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(ImportError, match=f"{found}.*scripts/setup.sh") as error:
        compat.check_versions()
    assert "\n" not in str(error.value)


def test_what_is_installed_here_will_do() -> None:
    assert sys.version_info >= (3, 11)
    compat.check_versions()
