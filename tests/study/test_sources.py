"""The tasks' files are found in their official layouts, and copied no longer than wanted."""

import json
from pathlib import Path

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.probing.tasks import read_task
from hmtl_plugin.study.profile import Finetuning
from hmtl_plugin.study.sources import TaskFiles, copy_capped, copy_probing, find_sources
from tests.study.studies import probing, squad, tiny, write, write_data

ALL = [Finetuning(task, ["lr=1"], optional=task == "SNLI") for task in ("RTE", "MNLI", "SNLI", "SQuAD")]


def names(paths: list[str]) -> list[str]:
    return ["/".join(Path(path).parts[-2:]) for path in paths]


def test_all_files_are_found(tmp_path: Path) -> None:
    sources = find_sources(tiny(finetuning=ALL), write_data(tmp_path))
    assert [task.name for task in sources.tasks] == ["RTE", "MNLI", "SQuAD"] and sources.missing == ("SNLI",)
    assert {format: names(files) for format, files in sources.text().items()} == {
        "pairs": ["RTE/train.tsv", "MNLI/train.tsv"],
        "squad": ["squad/train-v1.1.json"],
    }
    assert names(sources.evaluation()) == [
        *("RTE/dev.tsv", "RTE/test.tsv", "MNLI/dev_matched.tsv", "MNLI/dev_mismatched.tsv", "MNLI/test_matched.tsv"),
        "squad/dev-v1.1.json",
    ]
    assert [path.name for path in sources.probing] == ["tree_depth.txt", "past_present.txt"]  # in SentEval's order


def test_snli_as_jsonl(tmp_path: Path) -> None:
    line = json.dumps({"gold_label": "neutral", "sentence1": "A man.", "sentence2": "A dog."}) + "\n"
    for split in ("train", "dev", "test"):
        write(write_data(tmp_path) / "glue" / "SNLI" / f"snli_1.0_{split}.jsonl", line)
    sources = find_sources(tiny(finetuning=ALL), tmp_path)
    assert not sources.missing and names(sources.text()["nli-jsonl"]) == ["SNLI/snli_1.0_train.jsonl"]


def test_what_is_missing_is_named_with_the_mend(tmp_path: Path) -> None:
    profile, data = tiny(finetuning=ALL[:2]), tmp_path / "data"
    with pytest.raises(UserError, match="data: no such folder: give one with glue/"):
        find_sources(profile, data)
    write_data(data)
    with pytest.raises(UserError, match=r"no glue/SNLI: bash scripts/download_glue.sh .*/data/glue SNLI"):
        find_sources(tiny(finetuning=[Finetuning("SNLI", ["lr=1"])]), data)
    with pytest.raises(UserError, match="'QNLI': use RTE, MNLI, SNLI or SQuAD"):
        find_sources(tiny(finetuning=[Finetuning("QNLI", ["lr=1"], optional=True)]), data)  # a slip is not "missing"
    (data / "squad" / "dev-v1.1.json").unlink()
    for optional in (False, True):  # half of a task is no task that is missing
        with pytest.raises(UserError, match=r"no squad\*/dev-v1.1\*.json: bash scripts/download_squad.sh"):
            find_sources(tiny(finetuning=[Finetuning("SQuAD", ["lr=1"], optional=optional)]), data)
    for name in ("one", "two"):
        write(data / "squad" / f"dev-v1.1-{name}.json", "{}")
    with pytest.raises(UserError, match="2 files squad"):
        find_sources(tiny(finetuning=ALL[3:]), data)
    write(data / "probing" / "other" / "x.txt", probing({"tr": 2, "va": 1, "te": 1}))
    with pytest.raises(UserError, match=r"2 folders with \.txt files under probing/"):
        find_sources(profile, data)


def test_a_broken_optional_task_is_an_error(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        write(write_data(tmp_path) / "glue" / "SNLI" / f"{split}.tsv", "a\tb\nx\ty\n")
    with pytest.raises(UserError, match=r"SNLI/train.tsv: no column 'sentence1'"):
        find_sources(tiny(finetuning=ALL), tmp_path)


def copied(tmp_path: Path, task: TaskFiles, train_rows: int, valid_rows: int) -> Path:
    folder = tmp_path / "copy"
    copy_capped(task, Finetuning(task.name, ["lr=1"], train_rows=train_rows, valid_rows=valid_rows), folder)
    return folder


def test_rows_are_capped_and_the_header_kept(tmp_path: Path) -> None:
    task = find_sources(tiny(finetuning=ALL[:1]), write_data(tmp_path / "data")).tasks[0]
    folder = copied(tmp_path, task, train_rows=3, valid_rows=0)
    whole = task.train.read_bytes().splitlines(keepends=True)
    assert (folder / "train.tsv").read_bytes() == b"".join(whole[:4])
    assert (folder / "dev.tsv").read_bytes() == task.valid.read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == [
        "dev.tsv",
        "train.tsv",
    ]  # no test file, nothing to tune on
    copied(tmp_path, task, train_rows=1000, valid_rows=2)
    assert (folder / "train.tsv").read_bytes() == task.train.read_bytes()
    assert len((folder / "dev.tsv").read_text().splitlines()) == 3


def test_jsonl_has_no_header(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", '{"a": 1}\n{"a": 2}\n')
    valid = write(tmp_path / "dev.jsonl", '{"a": 3}\n')
    folder = copied(tmp_path, TaskFiles("SNLI", train, valid, (valid,), "nli-jsonl"), 1, 1)
    assert (folder / "train.jsonl").read_text() == '{"a": 1}\n'


@pytest.mark.parametrize("questions", range(1, 11))
def test_questions_are_capped(tmp_path: Path, questions: int) -> None:
    """The first questions, in whole paragraphs but the last; articles and paragraphs without any are left out."""
    train = write(tmp_path / "train-v1.1.json", squad([[2, 3], [0], [4]], "fruit"))
    dev = write(tmp_path / "dev-v1.1.json", squad([[1]], "stone"))
    folder = copied(tmp_path, TaskFiles("SQuAD", train, dev, (dev,), "squad"), questions, 0)
    assert (folder / "dev.json").read_bytes() == dev.read_bytes()
    content = json.loads((folder / "train.json").read_text())
    paragraphs = [p for article in content["data"] for p in article["paragraphs"]]
    asked = [qa["id"] for p in paragraphs for qa in p["qas"]]
    everything = [qa for a in json.loads(train.read_text())["data"] for p in a["paragraphs"] for qa in p["qas"]]
    assert asked == [qa["id"] for qa in everything][:questions]
    assert all(p["qas"] and p["context"] for p in paragraphs) and content["version"] == "1.1"
    assert len(content["data"]) == (1 if questions <= 5 else 2)


def test_probing_tasks_are_capped_by_split(tmp_path: Path) -> None:
    """Rows of the splits may be mixed, as in SentEval; the file may have a mark, empty lines and no last line end."""
    rows = "".join(f"{s}\t{'ab'[i % 2]}\t{s} {i}.\n" for i in range(6) for s in ("te", "tr", "va"))
    path = write(tmp_path / "mixed.txt", f"\ufeff{rows}\n\ntr\tb\tlast")
    copy_probing([path], [3, 2, 1], tmp_path / "copy")
    task = read_task(tmp_path / "copy" / "mixed.txt")
    assert task.sizes == (3, 2, 1)
    assert task.sentences(range(6)) == ["tr 0.", "tr 1.", "tr 2.", "va 0.", "va 1.", "te 0."]
    copy_probing([path], [100, 100, 100], tmp_path / "all")
    assert read_task(tmp_path / "all" / "mixed.txt").sizes == (7, 6, 6)
    copy_probing([path], [0, 0, 0], tmp_path / "same")
    assert (tmp_path / "same" / "mixed.txt").read_bytes() == path.read_bytes()


def test_labels_that_the_cap_left_out_of_training_are_left_out_of_all(tmp_path: Path) -> None:
    path = write(tmp_path / "three.txt", probing({"tr": 9, "va": 6, "te": 6}, labels="abc"))
    copy_probing([path], [2, 4, 3], tmp_path / "copy")
    task = read_task(tmp_path / "copy" / "three.txt")
    assert task.labels == ("a", "b") and task.sizes == (2, 4, 3)
    with pytest.raises(UserError, match="all rows have the label 'a'"):
        copy_probing([path], [1, 4, 3], tmp_path / "copy")
