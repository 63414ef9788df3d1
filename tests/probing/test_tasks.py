"""Reading SentEval's layout."""

from pathlib import Path

import numpy as np
import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.probing.tasks import KNOWN, find_tasks, known_task, read_task

GOOD = "tr\tb\tone two\nte\ta\tsix\nva\ta\tfour\ntr\ta\tthree\tfive\n"


def written(tmp_path: Path, text: str, name: str = "some_task.txt") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "change", [lambda t: t, lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n"), lambda t: t + "\n\n"]
)
def test_rows_are_arranged_by_split_and_keep_their_labels(tmp_path: Path, change) -> None:
    task = read_task(written(tmp_path, change(GOOD)))
    assert task.sizes == (2, 1, 1) and task.labels == ("a", "b")
    # the sentence is the last field, whatever stands before it
    assert task.sentences(range(4)) == ["one two", "five", "four", "six"]
    assert [task.labels[i] for i in task.label_N] == ["b", "a", "a", "a"]
    assert task.sentences(np.arange(4)[task.rows("te")]) == ["six"]


def test_other_line_ends_than_newline_stay_in_the_sentence(tmp_path: Path) -> None:
    odd = "one\u2028two\u0085three\x0bfour"
    task = read_task(written(tmp_path, GOOD.replace("one two", odd)))
    assert task.sentences([0]) == [odd]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "tr\tonly two\n", "line 5: 2 fields"),
        (GOOD + "test\ta\ttext\n", "line 5: begins with 'test'"),
        (GOOD + "te\tc\tnever seen\n", "line 5: label 'c' never occurs in tr"),
        (GOOD + "va\tc\tnever seen\n", "line 5: label 'c' never occurs in tr"),
        (GOOD + "tr\t\ttext\n", "line 5: empty label"),
        (GOOD + "tr\ta\t \n", "line 5: empty sentence"),
        (GOOD.replace("va", "tr"), "no line begins with 'va'"),
        (GOOD.replace("\tb\t", "\ta\t"), "all rows have the label 'a'"),
        ("", "no line begins with 'tr'"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_task(written(tmp_path, text))
    assert "some_task.txt" in str(error.value) and "\n" not in str(error.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(GOOD.encode() + b"tr\ta\t\xff\xfe\n")
    with pytest.raises(UserError, match=r"x.txt, line 5: not UTF-8"):
        read_task(path)


def test_places(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no probing task"):
        find_tasks([tmp_path])
    with pytest.raises(UserError, match="cannot be read"):
        find_tasks([tmp_path / "absent.txt"])
    for name in ("zebra", "odd_man_out_brown", "sentence_length"):
        written(tmp_path, GOOD, f"{name}.txt")
    assert [task.name for task in find_tasks([tmp_path])] == ["sentence_length", "odd_man_out_brown", "zebra"]
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="same name"):
        find_tasks([tmp_path, written(tmp_path / "other", GOOD, "zebra.txt")])


def test_varieties_of_known_tasks() -> None:
    assert known_task("odd_man_out_brown") is KNOWN["odd_man_out"]
    assert known_task("bigram_shift").objective == "bigram_shift"
    assert known_task("word_content").linear_only
    assert known_task("my_task").title == "My task" and not known_task("bigram_shifted").objective


def test_the_ten_real_files(real_data) -> None:
    tasks = find_tasks([real_data("probing/senteval_layout")])
    assert [known_task(task.name).title for task in tasks] == [entry.title for entry in KNOWN.values()]
    assert all(task.sentences([len(task) - 1])[0].strip() for task in tasks)
