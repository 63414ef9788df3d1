"""GLUE's files with their quirks, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.glue.files import GlueRows, find_files, read_rows
from hmtl_plugin.glue.tasks import TASKS, find_task
from hmtl_plugin.preparation.readers import text as text_module

RTE_HEADER = "index\tsentence1\tsentence2\tlabel\n"
OFFICIAL_ROWS = {
    "CoLA": {"train": 8551, "valid": 1043, "test": 1063},
    "SST-2": {"train": 67349, "valid": 872, "test": 1821},
    "MRPC": {"train": 3668, "valid": 408, "test": 1725},
    "STS-B": {"train": 5749, "valid": 1500, "test": 1379},
    "RTE": {"train": 2490, "valid": 277, "test": 3000},
    "WNLI": {"train": 635, "valid": 71, "test": 146},
    "MNLI": {"valid": 9815, "ax": 1104},
    "QNLI": {"valid": 5463, "test": 5463},
}


def write(folder: Path, **files: str) -> Path:
    """``name__ext`` becomes ``name.ext``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content.encode())
    return folder


def read(name: str, glue_dir: Path, split: str = "train") -> GlueRows:
    task = find_task(name)
    file = next(file for file in find_files(task, glue_dir) if file.split == split)
    (span,) = file.spans()
    return read_rows(task, file, span)


def refused(name: str, glue_dir: Path, split: str = "train") -> str:
    with pytest.raises(UserError) as error:
        read(name, glue_dir, split)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_quotes_quote_nothing_and_white_space_is_tidied(tmp_path: Path) -> None:
    row = '0\t"He said\t it \u00a0 " works\x0b" . \tentailment\r\n'
    write(tmp_path / "RTE", train__tsv=RTE_HEADER + row, dev__tsv=RTE_HEADER + "1\ta\tb\tnot_entailment")
    rows = read("rte", tmp_path)
    assert rows.texts == (['"He said'], ['it " works " .'])
    assert rows.labels == ["entailment"]
    assert read("rte", tmp_path, "valid").labels == ["not_entailment"]  # no last line end


def test_a_task_s_own_folder_will_do(tmp_path: Path) -> None:
    write(tmp_path, train__tsv=RTE_HEADER + "0\ta\tb\tentailment\n", dev__tsv=RTE_HEADER)
    assert read("RTE", tmp_path).texts == (["a"], ["b"])


def test_cola_has_no_header_but_in_its_test_set(tmp_path: Path) -> None:
    write(
        tmp_path / "CoLA",
        train__tsv="gj04\t1\t\tBirds sing.\ngj04\t0\t*\tSing birds the.\n",
        dev__tsv="gj04\t1\t\tBirds sing.",
        test__tsv="index\tsentence\n0\tBirds fly.\n",
    )
    assert read("CoLA", tmp_path).texts == (["Birds sing.", "Sing birds the."],)
    assert read("CoLA", tmp_path).labels == ["1", "0"]
    hidden = read("CoLA", tmp_path, "test")
    assert (hidden.texts, hidden.labels) == ((["Birds fly."],), None)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    write(tmp_path / "MRPC", train__tsv=header + "1\t2\t3\ta\tb\n", dev__tsv=header + "0\t2\t3\ta\tb\n")
    assert read("MRPC", tmp_path).labels == ["1"]


def test_mnli_reads_five_annotators_two_validation_sets_and_the_diagnostic_set(tmp_path: Path) -> None:
    header = "index\tsentence1\tsentence2\tlabel1\tgold_label\n"
    row = "0\ta\tb\tneutral\tneutral\n1\tc\td\tneutral\t-\n"
    write(tmp_path / "MNLI", train__tsv=header + row, dev_matched__tsv=header + row, dev_mismatched__tsv=header + row)
    write(tmp_path / "diagnostic", diagnostic__tsv="index\tsentence1\tsentence2\n0\te\tf\n")
    splits = {file.split for file in find_files(find_task("mnli"), tmp_path)}
    assert splits == {"train", "valid", "valid_mm", "ax"}
    rows = read("MNLI", tmp_path, "valid_mm")
    assert (rows.labels, rows.unlabelled) == (["neutral"], 1)
    assert read("MNLI", tmp_path, "ax").texts == (["e"], ["f"])


def test_snli_as_it_was_published(tmp_path: Path) -> None:
    lines = [
        {"gold_label": label, "sentence1": "A  man.", "sentence2": "A dog.", "pairID": 1} for label in ("neutral", "-")
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines)
    write(tmp_path / "SNLI", **{f"snli_1.0_{name}__jsonl": content for name in ("train", "dev", "test")})
    rows = read("SNLI", tmp_path)
    assert (rows.texts, rows.labels, rows.unlabelled) == ((["A man."], ["A dog."]), ["neutral"], 1)
    write(tmp_path / "SNLI", **{"snli_1.0_train__jsonl": '{"gold_label": "neutral"}\n'})
    assert "line 1 is no JSON object with the fields sentence1" in refused("SNLI", tmp_path)


def test_qqp_leaves_out_broken_rows(tmp_path: Path) -> None:
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    write(tmp_path / "QQP", train__tsv=header + "1\t2\t3\ta\tb\t1\n4\t5\t6\tc\n", dev__tsv=header)
    rows = read("QQP", tmp_path)
    assert (rows.labels, rows.broken) == (["1"], 1)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0\ta\tentailment\n", "train.tsv: line 3 has 3 columns instead of 4"),
        ("0\ta\tb\tmaybe\n", "train.tsv: line 3 has the label 'maybe', not one of entailment, not_entailment"),
        ("\n", "train.tsv: line 3 has 1 columns"),
    ],
)
def test_a_row_that_is_not_as_it_must_be(tmp_path: Path, row: str, message: str) -> None:
    good = "0\ta\tb\tentailment\n"
    write(tmp_path / "RTE", train__tsv=RTE_HEADER + good + row + good, dev__tsv=RTE_HEADER)
    assert message in refused("RTE", tmp_path)


def test_the_line_is_right_in_a_later_span(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "SPAN_BYTES", 64)
    rows = "".join(f"{i}\tsentence {i}\tb\tentailment\n" for i in range(40))
    write(tmp_path / "RTE", train__tsv=RTE_HEADER + rows + "40\ta\tb\tno\n", dev__tsv=RTE_HEADER)
    task = find_task("RTE")
    file = find_files(task, tmp_path)[0]
    *earlier, last = file.spans()
    assert len(earlier) > 5
    assert all(read_rows(task, file, span).labels for span in earlier)
    with pytest.raises(UserError, match="line 42 has the label 'no'"):
        read_rows(task, file, last)


def test_a_score_that_is_no_number(tmp_path: Path) -> None:
    header = "index\tsentence1\tsentence2\tscore\n"
    for score in ("good", "nan", ""):
        write(tmp_path / "STS-B", train__tsv=f"{header}0\ta\tb\t{score}\n", dev__tsv=header)
        assert f"line 2 has the score '{score}', which is no number" in refused("STS-B", tmp_path)


def test_files_and_columns_that_are_missing(tmp_path: Path) -> None:
    assert "holds no train.tsv of RTE; fetch it" in refused("RTE", tmp_path)
    write(tmp_path / "RTE", train__tsv="index\tsentence1\tlabel\n", dev__tsv=RTE_HEADER)
    assert "no column 'sentence2' in its header" in refused("RTE", tmp_path)
    write(tmp_path / "RTE", train__tsv="index\tsentence1\tsentence2\n")
    assert "no column 'label'" in refused("RTE", tmp_path)
    write(tmp_path / "RTE", train__tsv="")
    assert "train.tsv: is empty" in refused("RTE", tmp_path)
    (tmp_path / "RTE" / "train.tsv").write_bytes(RTE_HEADER.encode() + b"0\ta\xff\tb\tentailment\n")
    assert f"not UTF-8 at byte {len(RTE_HEADER) + 3}" in refused("RTE", tmp_path)


def test_names_of_tasks() -> None:
    assert [find_task(name).name for name in ("sst2", "STS-b", "cola", "MNLI")] == ["SST-2", "STS-B", "CoLA", "MNLI"]
    with pytest.raises(UserError, match=r"'AX' is no GLUE task: choose from CoLA, SST-2"):
        find_task("AX")


@pytest.mark.parametrize("name", OFFICIAL_ROWS)
def test_official_counts(real_data: Callable[[str], Path], name: str) -> None:
    glue = real_data("glue")
    task = TASKS[name]
    files = {file.split: file for file in find_files(task, glue)}
    for split, expected in OFFICIAL_ROWS[name].items():
        found = [read_rows(task, files[split], span) for span in files[split].spans()]
        assert sum(len(rows.texts[0]) for rows in found) == expected
        assert all(text for rows in found for texts in rows.texts for text in texts)


def test_lines_may_end_in_cr_alone(tmp_path: Path) -> None:
    rows = "0\ta cat\ta dog\tentailment\n1\tone\ttwo\tnot_entailment\n"
    write(tmp_path / "lf" / "RTE", train__tsv=RTE_HEADER + rows, dev__tsv=RTE_HEADER + rows)
    other = (RTE_HEADER + rows).replace("\n", "\r")
    write(tmp_path / "cr" / "RTE", train__tsv=other, dev__tsv=other)
    assert read("RTE", tmp_path / "cr") == read("RTE", tmp_path / "lf")


@pytest.mark.parametrize("row", ["The cat sees.\n", "gj04\t1\n", "gj04\t1\t*\n"])
def test_cola_with_fewer_columns_is_one_line(row: str, tmp_path: Path) -> None:
    write(tmp_path / "CoLA", train__tsv=row * 3, dev__tsv=row * 3)
    with pytest.raises(
        UserError, match=rf"train.tsv: line 1 has {row.count(chr(9)) + 1} columns, CoLA's files have 4: fetch"
    ):
        find_files(find_task("CoLA"), tmp_path)


def test_json_that_no_text_can_hold_is_one_line(tmp_path: Path) -> None:
    for odd, message in (
        ('"\\ud83d"', "line 1: half of a surrogate pair"),
        ("[" * 5000 + "]" * 5000, "line 1 is no JSON"),
    ):
        row = '{"gold_label": "neutral", "sentence1": ' + odd + ', "sentence2": "b"}\n'
        write(tmp_path / "SNLI", **{f"snli_1.0_{name}__jsonl": row for name in ("train", "dev", "test")})
        with pytest.raises(UserError, match=message):
            read("SNLI", tmp_path)


@pytest.mark.parametrize("value", ["null", "3", '["A dog."]'])
def test_snli_whose_sentence_is_no_text(value: str, tmp_path: Path) -> None:
    """It was read as the word None."""
    content = f'{{"gold_label": "neutral", "sentence1": "A man.", "sentence2": {value}}}\n'
    write(tmp_path / "SNLI", **{f"snli_1.0_{name}__jsonl": content for name in ("train", "dev", "test")})
    assert "line 1 is no JSON object with the fields sentence1, sentence2, gold_label as text" in refused(
        "SNLI", tmp_path
    )
