"""Text of several formats becomes one file of documents, less what is excluded."""

import json
from pathlib import Path

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.preparation.mixture import Gathered, write_mixture
from hmtl_plugin.preparation.options import PrepareOptions

ROWS = [
    ("A man walks.", "He moves."),
    ("Dogs bark.", "It is loud."),
    ("A man walks.", "He sits."),
    ("A man walks.", "He moves."),
    ("It is loud.", "Cats sleep."),
]


def pairs(path: Path, rows: list[tuple[str, str]]) -> str:
    path.write_text("sentence1\tsentence2\n" + "".join(f"{a}\t{b}\n" for a, b in rows), encoding="utf-8")
    return str(path)


def jsonl(path: Path, rows: list[tuple[str, str]]) -> str:
    path.write_text("".join(json.dumps({"sentence1": a, "sentence2": b}) + "\n" for a, b in rows), encoding="utf-8")
    return str(path)


def squad(path: Path, *articles: list[str]) -> str:
    data = [{"paragraphs": [{"context": c, "qas": [{"question": "Who?"}]} for c in contexts]} for contexts in articles]
    path.write_text(json.dumps({"data": data}), encoding="utf-8")
    return str(path)


def write(tmp_path: Path, sources: dict[str, list[str]], **options: object) -> list[Gathered]:
    return write_mixture(sources, tmp_path / "out" / "text.txt", PrepareOptions("sentences", workers=1, **options))  # type: ignore[arg-type]


def documents(tmp_path: Path) -> list[list[str]]:
    text = (tmp_path / "out" / "text.txt").read_text(encoding="utf-8")
    assert text.endswith("\n") and not text.endswith("\n\n") and "\n\n\n" not in text
    return [document.split("\n") for document in text.removesuffix("\n").split("\n\n")]


def test_pairs_that_share_a_sentence_are_a_document_each_sentence_once(tmp_path: Path) -> None:
    (gathered,) = write(tmp_path, {"pairs": [pairs(tmp_path / "a.tsv", ROWS)]})
    assert documents(tmp_path) == [
        ["A man walks.", "He moves.", "He sits."],
        ["Dogs bark.", "It is loud.", "Cats sleep."],
    ]
    assert (gathered.documents, gathered.sentences, gathered.duplicates, gathered.excluded) == (2, 6, 1, 0)


def test_formats_follow_each_other(tmp_path: Path) -> None:
    """Files of one format are one text: a sentence that two of them share joins their rows."""
    sources = {
        "pairs": [pairs(tmp_path / "a.tsv", ROWS[:2]), pairs(tmp_path / "b.tsv", [("He moves.", "She moves.")])],
        "nli-jsonl": [jsonl(tmp_path / "c.jsonl", [("Ein Bär.", "Kein Bär.")])],
        "squad": [squad(tmp_path / "d.json", ["One is. Two is.", "Three is."], ["Four is."])],
        "sentences": [str(tmp_path / "e.txt")],
    }
    (tmp_path / "e.txt").write_text("A b.\nC d.\n\nE f.\n\nA b.\nC d.\n")
    gathered = write(tmp_path, sources)
    assert documents(tmp_path) == [
        ["A man walks.", "He moves.", "She moves."],
        ["Dogs bark.", "It is loud."],
        ["Ein Bär.", "Kein Bär."],
        ["One is.", "Two is.", "Three is."],
        ["Four is."],
        ["A b.", "C d."],
        ["E f."],
    ]
    assert [(g.format, g.documents, g.sentences, g.duplicates) for g in gathered] == [
        ("pairs", 2, 5, 0),
        ("nli-jsonl", 1, 2, 0),
        ("squad", 2, 4, 0),
        ("sentences", 2, 3, 1),
    ]
    assert gathered[0].as_dict()["files"] == ["a.tsv", "b.tsv"]  # no folder of the machine


def test_documents_that_share_a_sentence_with_evaluation_are_left_out(tmp_path: Path) -> None:
    evaluation = pairs(tmp_path / "dev.tsv", [("dogs bark", "Two is a number.")])
    sources = {
        "pairs": [pairs(tmp_path / "a.tsv", ROWS)],
        "squad": [squad(tmp_path / "d.json", ["One is a number.", "So. Two is a number."], ["Four is."])],
    }
    gathered = write(tmp_path, sources, exclude=(evaluation,))
    assert documents(tmp_path) == [["A man walks.", "He moves.", "He sits."], ["Four is."]]
    assert [(g.documents, g.excluded) for g in gathered] == [(1, 1), (1, 1)]
    gathered = write(tmp_path, sources, exclude=(evaluation,), exclude_minimum_words=4)
    assert [(g.documents, g.excluded) for g in gathered] == [(2, 0), (1, 1)]  # two words are too few to exclude


def test_a_format_that_gave_nothing_leaves_no_gap(tmp_path: Path) -> None:
    evaluation = pairs(tmp_path / "dev.tsv", ROWS)
    sources = {
        "pairs": [pairs(tmp_path / "a.tsv", ROWS)],
        "sentences": [str(tmp_path / "e.txt")],
        "squad": [squad(tmp_path / "d.json", ["Four is."])],
    }
    (tmp_path / "e.txt").write_text("A b.\n")
    assert [g.documents for g in write(tmp_path, sources, exclude=(evaluation,))] == [0, 1, 1]
    assert documents(tmp_path) == [["A b."], ["Four is."]]


def test_nothing_left_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    source = pairs(tmp_path / "a.tsv", ROWS)
    with pytest.raises(UserError, match=r"text.txt: no document is left: 2 share a sentence with the --exclude files"):
        write(tmp_path, {"pairs": [source]}, exclude=(source,))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failure_keeps_what_was_there(tmp_path: Path) -> None:
    write(tmp_path, {"pairs": [pairs(tmp_path / "a.tsv", ROWS[:1])]})
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match=r"bad\.json"):
        write(tmp_path, {"pairs": [pairs(tmp_path / "a.tsv", ROWS)], "squad": [str(tmp_path / "bad.json")]})
    assert documents(tmp_path) == [["A man walks.", "He moves."]]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["text.txt"]
    with pytest.raises(UserError, match=r"none\.tsv"):
        write(tmp_path, {"pairs": [str(tmp_path / "none.tsv")]})
    with pytest.raises(UserError, match=r"none\.tsv"):
        write(tmp_path, {"pairs": [str(tmp_path / "a.tsv")]}, exclude=(str(tmp_path / "none.tsv"),))
