"""Made-up tasks are what they say: answers in their place, labels in balance, nothing of the evaluation in the training
text.
"""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hmtl_plugin.glue.files import find_files
from hmtl_plugin.glue.tasks import TASKS
from hmtl_plugin.probing.tasks import find_tasks
from hmtl_plugin.study.toy import write_toy_data

Questions = list[tuple[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_data(tmp_path_factory.mktemp("made") / "toy")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def questions(path: Path) -> Questions:
    data = json.loads(path.read_text(encoding="utf-8"))["data"]
    return [(p["context"], asked) for article in data for p in article["paragraphs"] for asked in p["qas"]]


@pytest.mark.parametrize("split", ["train", "dev"])
def test_answers_stand_at_their_place_after_the_words_asked_for(toy: Path, split: str) -> None:
    found = questions(toy / "squad" / f"{split}-v1.1.json")
    assert len(found) >= 40 and len({asked["id"] for _, asked in found}) == len(found)
    for context, asked in found:
        ((text, start),) = [(answer["text"], answer["answer_start"]) for answer in asked["answers"]]
        quoted = asked["question"].removeprefix("What stands after ").removesuffix("?")
        assert text.strip() and context[start : start + len(text)] == text
        assert context[:start].endswith(f"{quoted} ")


@pytest.mark.parametrize(
    ("task", "file", "label", "count"),
    [
        ("RTE", "train", "label", 400),
        ("RTE", "dev", "label", 150),
        ("MNLI", "train", "gold_label", 400),
        ("MNLI", "dev_matched", "gold_label", 150),
    ],
)
def test_labels_are_in_balance_and_true(toy: Path, task: str, file: str, label: str, count: int) -> None:
    found = rows(toy / "glue" / task / f"{file}.tsv")
    assert len(found) == count
    labels = Counter(row[label] for row in found)
    assert set(labels) == set(TASKS[task].labels)
    assert min(labels.values()) > 0.7 * count / len(labels)
    for row in found:
        assert (row["sentence2"] in row["sentence1"]) == (row[label] == "entailment")


def test_training_and_evaluation_share_no_document(toy: Path) -> None:
    for task, dev in (("RTE", "dev"), ("MNLI", "dev_matched")):
        train, valid = (rows(toy / "glue" / task / f"{file}.tsv") for file in ("train", dev))
        for column in ("sentence1", "sentence2"):
            assert {row[column] for row in train}.isdisjoint(row[column] for row in valid)
    contexts = [{context for context, _ in questions(toy / "squad" / f"{f}-v1.1.json")} for f in ("train", "dev")]
    assert contexts[0].isdisjoint(contexts[1])
    assert not any(row["sentence1"] in context for context in contexts[1] for row in rows(toy / "glue/RTE/train.tsv"))


def test_the_files_are_read_as_official_ones(toy: Path) -> None:
    for task in ("RTE", "MNLI"):
        assert {file.split for file in find_files(TASKS[task], toy / "glue")} >= {"train", "valid"}
    tasks = find_tasks([toy / "probing"])
    assert "bigram_shift" in {task.name for task in tasks} and all(min(task.sizes) > 0 for task in tasks)


def test_it_is_written_once(toy: Path) -> None:
    file = toy / "glue" / "RTE" / "train.tsv"
    file.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    before = file.stat().st_mtime_ns
    assert write_toy_data(toy) == toy and file.stat().st_mtime_ns == before


def test_what_a_killed_writer_left_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.part").mkdir()
    (tmp_path / "toy.part" / "half").touch()
    monkeypatch.setattr("hmtl_plugin.study.toy.make_probing", lambda *_: None)  # what takes time
    assert sorted(path.name for path in write_toy_data(tmp_path / "toy").iterdir()) == ["glue", "squad", "text.txt"]
    assert not (tmp_path / "toy.part").exists()
