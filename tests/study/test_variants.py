"""The table of variants: what it gives, and every refusal with its line."""

import re
from pathlib import Path

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.hierarchy import Hierarchy
from hmtl_plugin.study.variants import COLUMNS, choose, read_variants, reference
from tests.conftest import REPOSITORY

HEADER = "\t".join(COLUMNS)
FLAT = "flat\tnsp@100%,mlm@100%\t-\tfixed\t-\t-\tBERT"


def table(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "variants.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_lines_become_variants_in_order(tmp_path: Path) -> None:
    shift = "z\tbigram_shift@50%,mlm@100%\tbigram_shift>mlm:add!~\tuncertainty\t--bigram-rate 0.2 --name 'a b'\tflat\twhy not"
    variants = read_variants(
        table(tmp_path, HEADER, "# a remark", shift, "", FLAT, "random\t-\t-\t-\t-\t-\tnothing learnt")
    )
    assert list(variants) == ["z", "flat", "random"]
    assert variants["z"].options == ("--bigram-rate", "0.2", "--name", "a b")
    assert (variants["z"].transfer, variants["z"].weighting, variants["z"].why) == (
        "bigram_shift>mlm:add!~",
        "uncertainty",
        "why not",
    )
    assert (variants["z"].against, variants["flat"].against) == ("flat", "")
    assert variants["flat"].trained and variants["flat"].transfer == "" and variants["flat"].options == ()
    assert not variants["random"].trained and variants["random"].checkpoint == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("flat\tmlm@100%\t-\tfixed\t-\t-", "6 columns, not 7"),
        ("flat\tmlm@100%\t-\tfixed\t-\t-\twhy\tmore", "8 columns, not 7"),
        ("a/b\tmlm@100%\t-\tfixed\t-\t-\twhy", "'a/b' is no name"),
        ("-\tmlm@100%\t-\tfixed\t-\t-\twhy", "'' is no name"),
        ("x\tmlm\t-\tfixed\t-\t-\twhy", "cannot read 'mlm'"),
        ("x\telectra@50%\t-\tfixed\t-\t-\twhy", "unknown objective"),
        ("x\tmlm@100%\tnsp>mlm:add\tfixed\t-\t-\twhy", "not in the hierarchy"),
        ("x\tnsp@1,mlm@2\tnsp>mlm:glue\tfixed\t-\t-\twhy", "unknown operator"),
        ("x\tmlm@100%\t-\tequal\t-\t-\twhy", "weighting 'equal': use fixed or uncertainty"),
        ("x\tmlm@100%\t-\t-\t-\t-\twhy", "weighting ''"),
        ("x\tmlm@100%\t-\tfixed\t--a 'b\t-\twhy", "options --a 'b: No closing quotation"),
        (FLAT, "'flat' comes twice"),
    ],
)
def test_refusals_name_the_line(tmp_path: Path, line: str, message: str) -> None:
    path = table(tmp_path, HEADER, FLAT, "", line)
    with pytest.raises(UserError) as caught:
        read_variants(path)
    assert str(caught.value).startswith(f"{path}, line 4: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.tsv: No such file .*: name a table of variants"):
        read_variants(tmp_path / "none.tsv")
    for first in (HEADER.replace("\t", " "), HEADER + "\tmore", ""):
        with pytest.raises(UserError, match=r"line 1: the columns must be name, hierarchy"):
            read_variants(table(tmp_path, first, FLAT))
    (tmp_path / "empty.tsv").touch()
    with pytest.raises(UserError, match="line 1: the columns"):
        read_variants(tmp_path / "empty.tsv")
    (tmp_path / "bytes.tsv").write_bytes(HEADER.encode() + b"\n\xff\xfe")
    with pytest.raises(UserError, match=r"bytes.tsv: not UTF-8 at byte \d+: convert"):
        read_variants(tmp_path / "bytes.tsv")


def test_ablation_are_in_the_table(tmp_path: Path) -> None:
    line = "x\tmlm@100%\t-\tfixed\t-\tflatt\twhy"
    with pytest.raises(UserError, match=r"variants.tsv: 'x' stands against 'flatt', which the table does not have"):
        read_variants(table(tmp_path, HEADER, line, FLAT))


def test_choosing(tmp_path: Path) -> None:
    variants = read_variants(table(tmp_path, HEADER, FLAT, FLAT.replace("flat", "other")))
    assert [v.name for v in choose(variants, ["other", "flat"], "here")] == ["other", "flat"]
    with pytest.raises(UserError, match="here: no variant 'flt': use flat, other"):
        choose(variants, ["flat", "flt"], "here")


def test_a_reference_is_not_pretrained() -> None:
    assert not reference("bert", "x.pt").trained and reference("bert", "x.pt").checkpoint == "x.pt"


@pytest.mark.parametrize("name", ["", "a/b", "../up", "a,b", "<b>"])
def test_a_reference_has_a_name_that_a_file_can_have(name: str) -> None:
    with pytest.raises(
        UserError, match=rf"^--reference {re.escape(name)}=x\.pt: '{re.escape(name)}' is no name: use letters"
    ):
        reference(name, "x.pt")


def test_the_table_of_this_repository() -> None:
    """The baseline is BERT; every transfer comes with its stopped twin; the control differs by the mark alone."""
    variants = read_variants(REPOSITORY / "recipes" / "variants.tsv")
    flat = Hierarchy.parse(variants["flat"].hierarchy)
    assert set(flat.layers(4).items()) == {("nsp", 4), ("mlm", 4)} and not variants["random"].trained
    for operator in ("concat", "add", "gate", "label"):
        free, stopped = variants[f"nsp-lower-{operator}"], variants[f"nsp-lower-{operator}-stop"]
        assert stopped.transfer == f"{free.transfer}!" and stopped.hierarchy == free.hierarchy
    assert variants["nsp-lower-permuted"].transfer == f"{variants['nsp-lower-concat'].transfer}~"
    assert variants["nsp-lower-permuted"].against == "nsp-lower-concat"
    for variant in variants.values():  # ablations differ from a variant in one thing
        other = variants.get(variant.against)
        if other is not None and variant.name not in ("mlm-lower", "shift-lowest", "sop-lower-concat"):
            assert variant.hierarchy == other.hierarchy
    assert variants["nsp-lower-permuted"].hierarchy == variants["nsp-lower-concat"].hierarchy
