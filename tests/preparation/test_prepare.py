"""What corpus preparation makes of each format: documents, splits, duplicates, excluded text."""

import json
from pathlib import Path

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.preparation import gather
from hmtl_plugin.preparation.options import PrepareOptions
from hmtl_plugin.preparation.readers import text as text_reader
from hmtl_plugin.preparation.sources import gather_sources
from tests.preparation.texts import documents, read_documents, write_sentences
from tests.preparation.texts import prepare as run

DOCS = documents(60)


def test_every_document_arrives_in_order(tmp_path: Path, tokenizer: str) -> None:
    summary = run([write_sentences(tmp_path / "t", DOCS)], tmp_path / "d", tokenizer=tokenizer)
    assert read_documents(summary.folder) == DOCS
    assert summary.manifest["splits"]["train"]["documents"] == len(DOCS)
    assert sorted(p.name for p in summary.folder.iterdir()) == [
        "corpus.json",
        "dict.txt",
        "sentencepiece.bpe.model",
        "train.bin",
        "train.idx",
    ]
    assert f"train {len(DOCS)} documents" in str(summary)


@pytest.mark.parametrize("span_bytes", [50, 700])
@pytest.mark.parametrize("workers", [1, 2])
def test_result_depends_on_neither_workers_nor_spans(
    workers: int, span_bytes: int, tmp_path: Path, tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = [*DOCS[:30], DOCS[3], *DOCS[30:], DOCS[0], DOCS[59]]  # repeated ones also span pieces of the file
    source = write_sentences(tmp_path / "t", docs)
    plain = run([source], tmp_path / "plain", tokenizer=tokenizer, valid_fraction=0.2)
    for module in (text_reader, gather):
        monkeypatch.setattr(module, "SPAN_BYTES", span_bytes)
    other = run([source], tmp_path / "other", tokenizer=tokenizer, valid_fraction=0.2, workers=workers)
    for name in ("train.bin", "train.idx", "valid.bin", "valid.idx", "dict.txt", "corpus.json"):
        assert (plain.folder / name).read_bytes() == (other.folder / name).read_bytes()
    assert other.manifest["duplicate_documents"] == 3
    assert read_documents(other.folder) + read_documents(other.folder, "valid") != DOCS
    both = read_documents(other.folder) + read_documents(other.folder, "valid")
    assert sorted(both) == sorted(DOCS)


def test_a_dropped_document_leaves_no_trace_in_the_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than a span, it was written before its end showed it to be a duplicate."""
    for module in (text_reader, gather):
        monkeypatch.setattr(module, "SPAN_BYTES", 40)
    docs = [*DOCS[:5], *documents(1, seed=4, length=1), DOCS[1] * 3, DOCS[1] * 3]
    source = write_sentences(tmp_path / "t", docs)
    spool = gather_sources([str(source)], tmp_path, PrepareOptions("sentences"), workers=1)
    assert spool.text.read_bytes() == write_sentences(tmp_path / "kept", docs[:-1]).read_bytes()
    assert spool.size == spool.text.stat().st_size
    assert spool.keys.stat().st_size == 8 * spool.documents == 8 * len(docs[:-1])
    assert max(place for place, _ in spool.starts) <= spool.size


def test_duplicates_are_found_through_case_and_breaks(tmp_path: Path, tokenizer: str) -> None:
    text = "One line here.\nTwo lines here.\n\nONE LINE HERE.  Two lines -- here\n\nOther.\n"
    (tmp_path / "t").write_text(text)
    summary = run([tmp_path / "t"], tmp_path / "d", tokenizer=tokenizer)
    assert read_documents(summary.folder) == [["One line here.", "Two lines here."], ["Other."]]
    assert summary.manifest["duplicate_documents"] == 1


def test_split_is_by_document_and_stable(tmp_path: Path, tokenizer: str) -> None:
    def valid(docs: list[list[str]], out: str, seed: int = 1) -> list[list[str]]:
        source = write_sentences(tmp_path / f"{out}.txt", docs)
        folder = run([source], tmp_path / out, tokenizer=tokenizer, valid_fraction=0.2, seed=seed).folder
        held_out, train = read_documents(folder, "valid"), read_documents(folder)
        assert sorted(held_out + train) == sorted(docs)
        return held_out

    first = valid(DOCS, "a")
    assert 3 <= len(first) <= 25
    assert [doc for doc in valid(DOCS[20:] + DOCS[:20], "b") if doc in first] != []
    assert sorted(valid(DOCS[20:] + DOCS[:20], "c")) == sorted(first)
    more = valid(DOCS + documents(30, seed=9), "e")
    assert all(doc in more for doc in first)
    assert sorted(valid(DOCS, "f", seed=2)) != sorted(first)


def test_exclude_drops_documents_that_share_a_sentence(tmp_path: Path, tokenizer: str) -> None:
    source = write_sentences(tmp_path / "t", DOCS)
    evaluation = tmp_path / "dev.tsv"
    shared = [DOCS[4][0], DOCS[9][-1]]
    rows = [f"{shared[0].upper()}\tunseen thing", f"a b\t Before it. {shared[1]} After it."]
    evaluation.write_text("index\tsentence1\tsentence2\n" + "".join(f"{i}\t{row}\n" for i, row in enumerate(rows)))
    summary = run([source], tmp_path / "d", tokenizer=tokenizer, exclude=(str(evaluation),))
    expected = [doc for doc in DOCS if not set(doc) & set(shared)]
    assert len(expected) < len(DOCS)
    assert read_documents(summary.folder) == expected
    assert summary.manifest["excluded_documents"] == len(DOCS) - len(expected)
    assert "2 excluded documents" in str(summary)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dev.tsv", "sentence\tlabel\n{}\t1\n"),  # SST-2
        ("cola.tsv", "gj04\t1\t\t{}\n"),
        ("dev.jsonl", '{{"sentence1": "x", "sentence2": "{}"}}\n'),
        ("docs.jsonl", '{{"id": 3, "body": "First. {} Last."}}\n'),
        ("dev.json", '{{"data": [{{"paragraphs": [{{"context": "Yes. {}", "qas": []}}]}}]}}'),
        ("question.json", '{{"data": [{{"paragraphs": [{{"context": "Yes.", "qas": [{{"question": "{}"}}]}}]}}]}}'),
        ("dev.txt", "Some paragraph. {} And more.\n"),
    ],
)
def test_formats_of_excluded_files(name: str, content: str, tmp_path: Path, tokenizer: str) -> None:
    evaluation = tmp_path / name
    evaluation.write_text(content.format(DOCS[7][0]))
    source = write_sentences(tmp_path / "t", DOCS[5:12])
    summary = run([source], tmp_path / "d", tokenizer=tokenizer, exclude=(str(evaluation),))
    assert read_documents(summary.folder) == [doc for doc in DOCS[5:12] if DOCS[7][0] not in doc]


def test_short_sentences_may_pass(tmp_path: Path, tokenizer: str) -> None:
    source = write_sentences(tmp_path / "t", [["Yes.", "A one."], ["Yes.", "B two."]])
    (tmp_path / "dev.txt").write_text("Yes.\n")
    exclude = (str(tmp_path / "dev.txt"),)
    with pytest.raises(UserError, match=r"no documents left: all 2 share .*--exclude-min-words"):
        run([source], tmp_path / "d", tokenizer=tokenizer, exclude=exclude)
    summary = run([source], tmp_path / "d", tokenizer=tokenizer, exclude=exclude, exclude_minimum_words=2)
    assert len(read_documents(summary.folder)) == 2


def test_pairs_are_groups_of_rows(tmp_path: Path, tokenizer: str) -> None:
    rows = [("P one.", "h a."), ("P two.", "h b."), ("p one", "h c."), ("x.", "H B."), ("P one.", "h a."), ("y.", "")]
    source = tmp_path / "t.tsv"
    source.write_text("premise\thypothesis\n" + "".join(f"{a}\t{b}\n" for a, b in rows))
    summary = run([source], tmp_path / "d", format="pairs", tokenizer=tokenizer)
    assert read_documents(summary.folder) == [["P one.", "h a.", "p one", "h c."], ["P two.", "h b.", "x.", "H B."]]
    manifest = summary.manifest
    assert manifest["layout"] == "rows"
    assert (manifest["duplicate_rows"], manifest["incomplete_rows"]) == (1, 1)
    assert manifest["splits"]["train"]["documents"] == 2


def test_rows_split_and_exclude_by_group(tmp_path: Path, tokenizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_reader, "SPAN_BYTES", 300)
    lines = [{"sentence1": f"premise {i // 3} here", "sentence2": f"guess {i} here"} for i in range(90)]
    source = tmp_path / "t.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "dev.txt").write_text("Guess 31 here.")
    summary = run(
        [source],
        tmp_path / "d",
        format="nli-jsonl",
        tokenizer=tokenizer,
        valid_documents=5,
        exclude=(str(tmp_path / "dev.txt"),),
        workers=2,
    )
    train, valid = read_documents(summary.folder), read_documents(summary.folder, "valid")
    assert (len(train), len(valid), summary.manifest["excluded_documents"]) == (24, 5, 1)
    groups = [[s for i in range(3 * g, 3 * g + 3) for s in (f"premise {g} here", f"guess {i} here")] for g in range(30)]
    assert sorted(train + valid) == sorted(group for g, group in enumerate(groups) if g != 10)


def test_squad_paragraph_once(tmp_path: Path, tokenizer: str) -> None:
    def article(*contexts: str) -> dict[str, object]:
        return {"paragraphs": [{"context": c, "qas": [{"question": f"Why {c[:3]}?"}]} for c in contexts]}

    source = tmp_path / "s.json"
    source.write_text(json.dumps({"data": [article("One. Two.", "One. Two.", "Three."), article("Three.", "Four.")]}))
    summary = run([source], tmp_path / "d", format="squad", tokenizer=tokenizer)
    assert read_documents(summary.folder) == [["One.", "Two.", "Three."], ["Four."]]
    summary = run([source], tmp_path / "q", format="squad", tokenizer=tokenizer, with_questions=True)
    assert read_documents(summary.folder)[1] == ["Why Thr?", "Four.", "Why Fou?"]
