"""What imports and exports write: whole or not at all, also where two write at once."""

from pathlib import Path

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.interop.output import write_folder


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_two_at_once_do_not_meet(tmp_path: Path) -> None:
    """The second is refused at once, and takes nothing from the first."""
    out = tmp_path / "hf"

    def second(part: Path) -> None:
        pytest.fail("it writes beside the first")

    def first(part: Path) -> None:
        (part / "config.json").write_text("{}")
        with pytest.raises(UserError, match="is being prepared by another run; wait for it or choose another --out"):
            write_folder(out, second)
        (part / "model.safetensors").write_text("weights")

    write_folder(out, first)
    assert files(out) == ["config.json", "model.safetensors"] and files(tmp_path) == ["hf"]
    with pytest.raises(UserError, match="is there already"):
        write_folder(out, second)
    assert files(out) == ["config.json", "model.safetensors"] and files(tmp_path) == ["hf"]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def full(part: Path) -> None:
        (part / "config.json").write_text("{}")
        raise OSError(28, "No space left on device")

    def wrong(part: Path) -> None:
        raise ValueError("ours")

    with pytest.raises(UserError, match=r"hf: cannot be written \(No space left on device\); nothing new was kept"):
        write_folder(tmp_path / "hf", full)
    with pytest.raises(ValueError, match="ours"):
        write_folder(tmp_path / "hf", wrong)
    assert files(tmp_path) == []
