"""The table of default options: what it says reaches fairseq, and every refusal names the file and the entry."""

from pathlib import Path

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.models.hierarchical_bert import ARCHITECTURES
from hmtl_plugin.recipe.options import ARCHITECTURE, CHOICES, find_options
from hmtl_plugin.recipe.table import part_of, read_table
from tests.recipe.configurations import TABLE, arguments_of, configuration
from tests.refusals import refusal

GOOD = """
[common]
optimizer = "hmtl_muon"
matrix-lr = 0.01
lr-scheduler = "polynomial_decay"
positions = "rotary"
max-tokens = 100
update-freq = 1
[wide]
arch = "hmtl_bert_small"
zero-init-outputs = true
lr = 4e-3
max-update = 50
warmup-updates = 5
[plain]
arch = "hmtl_bert_tiny"
optimizer = "hmtl_adamw"
lr = "1e-3"
max-update = 50
warmup-updates = 5
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "defaults.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_size_is_the_common_part_and_its_own(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, GOOD))
    assert list(table) == ["wide", "plain"]
    assert table["wide"]["positions"] == table["plain"]["positions"] == "rotary"
    assert (table["wide"]["matrix-lr"], table["wide"]["lr"], table["plain"]["lr"]) == (0.01, [0.004], [0.001])
    assert "matrix-lr" not in table["plain"]  # AdamW has none
    with pytest.raises(UserError, match=r"^SIZE huge: use wide or plain$"):
        part_of(table, "huge", "SIZE")


@pytest.mark.parametrize("size", TABLE)
def test_fairseq_makes_of_the_arguments_what_the_table_says(size: str, tmp_path: Path) -> None:
    config = configuration(arguments_of(size, tmp_path).arguments)
    known = find_options(TABLE[size]["optimizer"], TABLE[size]["lr-scheduler"])
    for name, value in TABLE[size].items():
        if name in CHOICES:
            assert config[name.replace("-", "_")]["_name"] == value
        elif name == ARCHITECTURE:
            assert config["model"]["_name"] == value
        else:
            assert known[name].stored(config) == value, name


def test_each_architecture_has_a_size_of_its_name() -> None:
    assert {f"hmtl_bert_{name}" for name in ARCHITECTURES} == {TABLE[name]["arch"] for name in ARCHITECTURES}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('positions = "rotary"', 'positions = "turning"', "common.positions: 'turning': use learned, rotary"),
        ("positions", "position", "common.position: no option of fairseq-train with optimizer hmtl_muon"),
        ("positions", "position", "use positions, or take it out"),
        ("zero-init-outputs = true", "zero-init-outputs = 1", "wide.zero-init-outputs: 1: write true or false"),
        ("max-tokens = 100", "max-tokens = true", "common.max-tokens: True: is no flag"),
        ("max-tokens = 100", "max-tokens = 1.5", "common.max-tokens: 1.5 is no int"),
        ("lr = 4e-3", 'lr = "fast"', "wide.lr: 'fast' is no"),
        ("lr = 4e-3", 'lr = "1e-3,"', ""),
        ("lr = 4e-3", "lr = [4]", ""),
        ("lr = 4e-3", "", "wide.lr: missing"),
        ('"hmtl_muon"', '"muon"', "common.optimizer: 'muon': use adam, "),
        ('"hmtl_adamw"', '"hmtl_adam"', "plain.optimizer: 'hmtl_adam': use adam, "),
        ('"hmtl_adamw"', '"hmtl_adamw"\nmatrix-lr = 1', "plain.matrix-lr: no option of fairseq-train with optimizer"),
        ('"hmtl_bert_tiny"', '"tiny"', "plain.arch: 'tiny': use hmtl_bert, "),
        ("[common]", "lr = 1\n[common]", "lr: stands outside of all parts: put it under [common]"),
        ("[wide]", "[wide", "at line"),
    ],
)
def test_refusals_name_file_and_entry(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = written(tmp_path, GOOD.replace(old, new, 1))
    if not message:  # other ways to write it
        assert read_table(path)["wide"]["lr"]
        return
    assert message in refusal(path, read_table)


def test_files_that_are_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.toml: No such file"):
        read_table(tmp_path / "none.toml")
    with pytest.raises(UserError, match=r"holds no size: add a part, as \[small\]"):
        read_table(written(tmp_path, "[common]\n"))
