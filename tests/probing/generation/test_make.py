"""Whole folders of probing sets: layout, balance, splits, the same bytes again, and what is refused."""

import json
from collections import Counter
from pathlib import Path

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.probing.tasks import find_tasks
from tests.commands.running import run_script
from tests.probing.generation import texts

TASKS = ("sentence_length", "word_content", "bigram_shift", "odd_man_out")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_all_tasks_are_made_and_the_prober_reads_them(made: Path) -> None:
    assert {path.name for path in made.iterdir()} == {*(f"{task}.txt" for task in TASKS), "probing.json"}
    assert [task.name for task in find_tasks([made])] == list(TASKS)
    manifest = json.loads((made / "probing.json").read_text())
    assert manifest["left_out"] == {}
    for name in TASKS:
        rows = texts.read(made / f"{name}.txt")
        counted = {split: dict(Counter(label for label, _ in rows[split])) for split in rows}
        assert manifest["tasks"][name] == counted


@pytest.mark.parametrize("name", TASKS)
def test_labels_are_balanced_and_sentences_of_their_length(made: Path, name: str) -> None:
    rows = texts.read(made / f"{name}.txt")
    labels = {label for label, _ in rows["tr"]}
    for of_split in rows.values():
        counts = Counter(label for label, _ in of_split)
        assert set(counts) == labels
        assert max(counts.values()) - min(counts.values()) <= 1
        assert all(5 <= len(text.split(" ")) <= 28 for _, text in of_split)
        half = [label for label, _ in of_split][: len(of_split) // 2]
        assert len(labels) > 6 or set(half) == labels  # shuffled


def test_no_document_is_in_two_splits_and_no_sentence_twice(source: Path, made: Path) -> None:
    home = {text: n for n, doc in enumerate(source.read_text().split("\n\n")) for text in doc.strip().split("\n")}
    split_of: dict[int, str] = {}
    for name in ("sentence_length", "word_content"):
        rows = texts.read(made / f"{name}.txt")
        sentences = [text for of_split in rows.values() for _, text in of_split]
        assert len(set(sentences)) == len(sentences)
        for split, of_split in rows.items():
            for _, text in of_split:
                assert split_of.setdefault(home[text], split) == split
    for name in ("bigram_shift", "odd_man_out"):
        rows = texts.read(made / f"{name}.txt")
        sentences = [text for of_split in rows.values() for _, text in of_split]
        assert len(set(sentences)) == len(sentences)
        for split, of_split in rows.items():
            for label, text in of_split:
                assert (text in home) == (label == "O")
                if label == "O":
                    assert split_of.setdefault(home[text], split) == split


def test_same_bytes_whatever_the_workers_and_other_ones_for_another_seed(
    source: Path, made: Path, tmp_path: Path
) -> None:
    texts.make(source, tmp_path / "two", workers=2)
    assert content(tmp_path / "two") == content(made)
    texts.make(source, tmp_path / "seed", seed=2)
    assert all(content(tmp_path / "seed")[f"{name}.txt"] != content(made)[f"{name}.txt"] for name in TASKS)


def test_duplicated_sentences_stay_in_one_split(tmp_path: Path) -> None:
    docs = texts.documents(12, 60)
    shared = texts.documents(1, 40, seed=1)[0]
    source = texts.write(tmp_path / "t", [[*doc, *shared] for doc in docs])
    texts.make(source, tmp_path / "out")
    rows = texts.read(tmp_path / "out" / "sentence_length.txt")
    places = Counter(text for of_split in rows.values() for _, text in of_split)
    assert max(places.values()) == 1
    assert json.loads((tmp_path / "out" / "probing.json").read_text())["text"]["duplicate"] == 11 * 40


def test_existing_sets_are_refused_and_overwritten_whole(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "probing"
    out.mkdir()
    (out / "word_content.txt").write_text("tr\tx\tDownloaded.\n")
    (out / "notes.md").write_text("mine")
    with pytest.raises(UserError, match="holds data already; --overwrite replaces it"):
        texts.make(source, out)
    few = texts.write(tmp_path / "few", texts.documents(9, 30))
    summary = texts.make(few, out, overwrite=True)
    assert "word_content: left out" in str(summary)
    assert not (out / "word_content.txt").exists()  # what an earlier run made is gone
    assert (out / "notes.md").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("probing")] == ["probing"]


def test_what_the_text_does_not_give_is_said(tmp_path: Path) -> None:
    source = texts.write(tmp_path / "t", texts.documents(9, 30))
    lines = str(texts.make(source, tmp_path / "out")).split("\n")
    assert "270 of 270 sentences used; documents: tr 5, va 2, te 2" in lines[0]
    assert any("600, 150, 150 asked for: the text gives no more balanced rows" in line for line in lines)
    left_out = json.loads((tmp_path / "out" / "probing.json").read_text())["left_out"]
    assert "balanced rows for" in left_out["word_content"]
    with pytest.raises(UserError, match=r"too little text for any probing task \(60 usable sentences"):
        texts.make(texts.write(tmp_path / "less", texts.documents(6, 10)), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_one_document_is_refused_unless_split_by_sentence(tmp_path: Path) -> None:
    source = texts.write(tmp_path / "t", texts.documents(2, 500))
    with pytest.raises(UserError, match=r"only 2 document\(s\).*or --split-by sentence"):
        texts.make(source, tmp_path / "out")
    texts.make(source, tmp_path / "out", split_by="sentence")
    assert [len(rows) for rows in texts.read(tmp_path / "out" / "bigram_shift.txt").values()][1:] == [150, 150]


def test_excluded_text_is_left_out(source: Path, tmp_path: Path) -> None:
    docs = source.read_text().split("\n\n")
    (tmp_path / "seen.txt").write_text("\n\n".join(docs[:10]))
    summary = texts.make(source, tmp_path / "out", exclude=(str(tmp_path / "seen.txt"),))
    assert summary.manifest["text"]["excluded_documents"] == 10
    rows = texts.read(tmp_path / "out" / "sentence_length.txt")
    assert not {text for of_split in rows.values() for _, text in of_split} & set("\n".join(docs[:10]).split("\n"))
    with pytest.raises(UserError, match="all 40 documents share a sentence with the --exclude files"):
        texts.make(source, tmp_path / "all", exclude=(str(source),))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "prose"}, "--format prose: choose one of"),
        ({"valid": 3}, "--valid 3: give 12 rows or more"),
        ({"words": 1}, "--words 1: give 2"),
        ({"max_sentences": 899}, "--max-sentences 899: less than the 900 rows"),
        ({"split_by": "line"}, "--split-by line: choose document or sentence"),
        ({"workers": -1}, "--workers -1"),
    ],
)
def test_wrong_options_are_named(source: Path, tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        texts.make(source, tmp_path / "out", overwrite=False, **options)


def test_the_script(source: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("--train", "600", "--valid", "150", "--test", "150", "--words", "30", "--workers", "1")
    run_script("make_probing", source, "--format", "sentences", "--out", tmp_path / "out", *sizes)
    assert "bigram_shift: tr 600, va 150, te 150 (2 labels)" in capsys.readouterr().out
    assert content(tmp_path / "out") == content(made)
    with pytest.raises(UserError, match="no such file"):
        run_script("make_probing", tmp_path / "gone", "--format", "sentences", "--out", tmp_path / "x")
