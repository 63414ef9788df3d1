"""What ``scripts/study.py`` refuses before anything is prepared: one line that names the option and how to fix it."""

from pathlib import Path

import pytest

from hmtl_plugin.errors import UserError
from tests.commands.running import run_script


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--profile", "none"], r"^--profile none: use cpu, gpu, paper, smoke, or a TOML file"),
        (["--profile", "cpu"], r"^--profile cpu needs --data DIR"),
        (["--seeds", "0,1"], r"^seed 0: number seeds from 1"),
        (["--seeds", "1,1"], r"^--seeds 1,1: write different whole numbers"),
        (["--time-limit", "25"], r"^--time-limit 25: write a number and s, m or h"),
        (["--reference", "bert"], r"^--reference bert: write NAME=CHECKPOINT, a file or folder that is there"),
        (["--reference", "bert=none.pt"], r"^--reference bert=none.pt: write NAME=CHECKPOINT"),
        (["--reference", "a/b=FILE"], r"^--reference a/b=.*: 'a/b' is no name"),
        (["--reference", "a=FILE", "--reference", "a=FILE"], r"^--reference a: is given twice"),
        (["--out", "FILE"], r"^--out .*file: File exists: give a folder"),
        (["--table", "none.tsv"], r"^none.tsv: No such file"),
    ],
)
def test_refusals(tmp_path: Path, options: list[str], message: str) -> None:
    file = tmp_path / "file"
    file.touch()
    arguments = [option.replace("FILE", str(file)) for option in options]
    with pytest.raises(UserError, match=message) as caught:
        run_script("study", "--profile", "smoke", "--out", tmp_path / "study", *arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "study" / "data").exists()
