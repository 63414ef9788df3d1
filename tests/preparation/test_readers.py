"""Readers: lines, spans, formats; what is wrong is named with its place."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.preparation.readers import text as text_reader
from hmtl_plugin.preparation.readers.pairs import (
    PairColumns,
    group_rows,
    jsonl_columns,
    read_rows,
    tsv_columns,
)
from hmtl_plugin.preparation.readers.plain import TextOptions, looks_wrapped, paragraphs_of, read_span
from hmtl_plugin.preparation.readers.squad import article_units, articles
from hmtl_plugin.preparation.readers.text import check_readable, line_number, spans, tasks, tidy, tidy_lines
from hmtl_plugin.preparation.splitting import SentenceSplitter


def read(path: Path, format: str, **options: object) -> list[str]:
    """The documents of a file as the spool would join them."""
    documents = [""]
    chosen = TextOptions(format, **options)  # type: ignore[arg-type]
    for span in spans(str(path), b"\n\n" if format == "documents" else b"\n"):
        for i, part in enumerate(read_span(span, chosen, SentenceSplitter())):
            if i:
                documents.append("")
            documents[-1] += ("\n" if documents[-1] and part else "") + (part or "")
    return [document for document in documents if document]


def test_only_line_feed_ends_a_line() -> None:
    assert tidy_lines("a\u2028b\u0085c\x0bd\x0ce\x1cf\r\ng") == ["a b c d e f", "g"]
    assert tidy_lines("  a \t b\x00c\x7f\n\n\ufeffd ") == ["a b c", "", "d"]
    assert tidy_lines("already tidy\nand so on") == ["already tidy", "and so on"]
    assert tidy_lines("") == [""]
    assert tidy(" two\n lines ") == "two lines"


def test_wrapped_lines_are_told_from_paragraphs() -> None:
    sentence = "It was a bright cold day in April, and the clocks of the town were striking as they always had"
    words = f"{sentence}. ".split() * 30
    wrapped = "\n".join(" ".join(words[begin : begin + 12]) for begin in range(0, len(words), 12))
    assert looks_wrapped(wrapped)
    assert looks_wrapped("\n\n".join([wrapped, wrapped]))
    assert not looks_wrapped("\n".join([f"{sentence}."] * 50))
    assert not looks_wrapped("\n".join([f"{sentence}, {sentence.lower()}."] * 50))  # long lines are paragraphs
    assert not looks_wrapped("a\nb\n" * 5)  # too few
    assert not looks_wrapped("")


@pytest.mark.parametrize("span_bytes", [1, 2, 3, 7, 64, 10_000])
@pytest.mark.parametrize("end", ["", "\n", "\n\n\n"])
@pytest.mark.parametrize("format", ["sentences", "paragraphs"])
def test_documents_do_not_depend_on_the_spans(
    span_bytes: int, end: str, format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_reader, "SPAN_BYTES", span_bytes)
    path = tmp_path / "t.txt"
    path.write_bytes(("\ufeff\n\nfirst\r\nsecond é\n\n \t\n\nthird\n\x00\n\nlast line" + end).encode())
    assert read(path, format) == ["first\nsecond é", "third", "last line"]
    assert read(path, format, blank_line_ends_document=False) == ["first\nsecond é\nthird\nlast line"]


def test_spans_cover_the_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(b"\xef\xbb\xbf" + b"one two\n\nthree\nfour\n" * 50 + b"x" * 300_000 + b"\nend")
    for size in (1, 9, 100, 1000):
        monkeypatch.setattr(text_reader, "SPAN_BYTES", size)
        for boundary in (b"\n", b"\n\n"):
            found = list(spans(str(path), boundary))
            assert [found[0].start, found[-1].end] == [3, path.stat().st_size]
            assert all(a.end == b.start for a, b in itertools.pairwise(found))
            assert [s.first for s in found] == [True] + [False] * (len(found) - 1)
            assert [s.last for s in found] == [False] * (len(found) - 1) + [True]
            data = path.read_bytes()
            assert all(data[s.end - 1 : s.end] == b"\n" for s in found[:-1])


def test_empty_file_and_many_small_ones(tmp_path: Path) -> None:
    for i in range(600):
        (tmp_path / f"{i}").write_text("text" if i % 2 else "")
    grouped = list(tasks(span for i in range(600) for span in spans(str(tmp_path / f"{i}"))))
    assert [len(group) for group in grouped] == [256, 256, 88]
    assert read(tmp_path / "0", "sentences") == []


@pytest.mark.parametrize("span_bytes", [4, 10_000])
def test_not_utf8_names_file_and_byte(span_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_reader, "SPAN_BYTES", span_bytes)
    path = tmp_path / "latin.txt"
    path.write_bytes("good é\nline\nca".encode() + b"f\xe9 bad\n")
    for format in ("sentences", "paragraphs", "documents", "jsonl"):
        if format == "jsonl":
            path.write_bytes(b'{"text": "aaa"}\n{"text": "caf\xe9"}\n')
        place = path.read_bytes().index(b"\xe9 bad" if format != "jsonl" else b"\xe9")
        with pytest.raises(UserError, match=rf"latin.txt: not UTF-8 at byte {place} \(0xe9\)"):
            read(path, format)


def test_paragraphs_are_split_into_sentences(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("One is here. Two is there.\nThree.\n\nFour. Five!\n")
    assert read(path, "paragraphs") == ["One is here.\nTwo is there.\nThree.", "Four.\nFive!"]


def test_a_document_is_wrapped_or_a_paragraph_a_line() -> None:
    wrapped = "CHAPTER I\n\nThis sentence goes\nover two lines. And\nanother.\n\n\nNew paragraph."
    assert paragraphs_of(wrapped) == [
        "CHAPTER I",
        "This sentence goes over two lines. And another.",
        "New paragraph.",
    ]
    long = ["A long paragraph " * 8 + "ends.", "B long paragraph " * 8 + "ends."]
    assert paragraphs_of("\n".join(long)) == long


def test_a_file_is_a_document(tmp_path: Path) -> None:
    path = tmp_path / "d.txt"
    path.write_text("First paragraph\nis wrapped.\n\nSecond. It has two.\n")
    assert read(path, "documents") == ["First paragraph is wrapped.\nSecond.\nIt has two."]


def test_jsonl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "d.jsonl"
    records = [{"text": "One. Two.\n\nThree."}, {"text": ""}, {"text": "Fo\u2028ur."}]
    path.write_text("\n\n".join(json.dumps(r, ensure_ascii=False) for r in records), encoding="utf-8")
    for span_bytes in (5, 10_000):
        monkeypatch.setattr(text_reader, "SPAN_BYTES", span_bytes)
        assert read(path, "jsonl") == ["One.\nTwo.\nThree.", "Fo ur."]
    path.write_text('{"meta": {"body": "Deep."}}\n')
    assert read(path, "jsonl", text_field="meta.body") == ["Deep."]
    with pytest.raises(UserError, match=r"line 1 has no text in field 'text'; its text fields: none"):
        read(path, "jsonl")
    path.write_text('{"text": "a"}\n\n{"text": \n')
    monkeypatch.setattr(text_reader, "SPAN_BYTES", 5)
    with pytest.raises(UserError, match=r"d.jsonl: line 3 is not JSON"):
        read(path, "jsonl")
    path.write_text("[1]\n")
    with pytest.raises(UserError, match="line 1 is not a JSON object"):
        read(path, "jsonl")


def test_squad_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hmtl_plugin.preparation.readers import squad

    data = [
        {"title": "t]", "paragraphs": [{"context": f"Käse {i}.\n]", "qas": [{"question": "Why? "}]}]} for i in range(5)
    ]
    path = tmp_path / "s.json"
    for document in ({"version": "x", "data": data}, {"data": data, "version": "x"}):
        for indent in (None, 2):
            path.write_text(json.dumps(document, indent=indent, ensure_ascii=False), encoding="utf-8")
            for block in (1, 7, 1 << 20):
                monkeypatch.setattr(squad, "_BLOCK_BYTES", block)
                units = [u for article in articles(str(path)) for u in article_units(article, str(path))]
                assert units == [(f"Käse {i}. ]", ["Why?"]) for i in range(5)]
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    with pytest.raises(UserError, match=r"s\.json: .*truncated"):
        list(articles(str(path)))
    for wrong in ("[]", '{"text": 1}', "", "no json"):
        path.write_text(wrong)
        with pytest.raises(UserError, match='no "data" list'):
            list(articles(str(path)))
    path.write_text('{"data": [{"text": 1}]}')
    with pytest.raises(UserError, match='no "paragraphs" list'):
        list(articles(str(path)))
    path.write_bytes(b'{"data": [{"paragraphs": [{"context": "caf\xe9"}]}]}')
    with pytest.raises(UserError, match="not UTF-8 at byte 42"):
        list(articles(str(path)))


@pytest.mark.parametrize(
    ("header", "first", "second"),
    [
        ("index\tsentence1\tsentence2\tlabel", 1, 2),
        ("index\tquestion\tsentence\tlabel", 1, 2),
        ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", 3, 4),
        ("\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String", 3, 4),
        ("premise\thypothesis", 0, 1),
    ],
)
def test_glue_headers(header: str, first: int, second: int, tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text(header + "\r\n" + "\t".join("abcdefg"), encoding="utf-8")
    assert tsv_columns(str(path), None) == PairColumns(first, second, len(header.encode()) + 2)


def test_columns_can_be_named_or_numbered(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("left\tright\na\tb\n")
    assert tsv_columns(str(path), "right,left") == PairColumns(1, 0, 11)
    assert tsv_columns(str(path), "1,2") == PairColumns(0, 1, 0)
    for wrong in ("left", "left,left", "left,middle", "0,1", "1,3"):
        with pytest.raises(UserError, match=f"--columns {wrong}"):
            tsv_columns(str(path), wrong)
    with pytest.raises(UserError, match=r"no known pair of columns in its header \(left, right\)"):
        tsv_columns(str(path), None)


def test_rows_with_quotes_and_gaps(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes(b'premise\thypothesis\n"open quote\tno\xc2\xa0close\r\nalone\n\t\nx\t \n\na "b" c\td')
    columns = tsv_columns(str(path), None)
    [span] = spans(str(path), skip=columns.header_bytes)
    rows = read_rows(span, columns)
    assert rows.lines == b'"open quote\tno close\na "b" c\td\n'
    assert rows.lengths_R.tolist() == [21, 10]
    assert rows.incomplete == 3


def test_nli_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"sentence1": "A man.", "sentence2": "A\\tdog.", "gold_label": "-"}\n{"sentence1": "x"}\n')
    columns = jsonl_columns(str(path), None)
    [span] = spans(str(path))
    rows = read_rows(span, columns)
    assert (rows.lines, rows.incomplete) == (b"A man.\tA dog.\n", 1)
    path.write_text('{"text": "x"}')
    with pytest.raises(UserError, match="no known pair of sentence fields"):
        jsonl_columns(str(path), None)


def components(pairs: list[tuple[int, int]]) -> list[int]:
    """Groups of rows the slow way."""
    group = list(range(len(pairs)))
    changed = True
    while changed:
        changed = False
        for i, a in enumerate(pairs):
            for j, b in enumerate(pairs):
                if set(a) & set(b) and group[i] != group[j]:
                    group[i] = group[j] = min(group[i], group[j])
                    changed = True
    numbers: dict[int, int] = {}
    return [numbers.setdefault(g, len(numbers)) for g in group]


@pytest.mark.parametrize("seed", range(8))
def test_groups_are_connected_components(seed: int) -> None:
    random = np.random.default_rng(seed)
    pairs = [tuple(p) for p in random.integers(0, int(random.integers(5, 120)), (40, 2)).tolist()]
    keys = np.array(pairs, dtype=np.uint64).reshape(-1) * np.uint64(0x9E3779B97F4A7C15)
    assert group_rows(keys).tolist() == components(pairs)


def test_a_long_chain_is_one_group() -> None:
    chain = np.random.default_rng(0).permutation(20_000).astype(np.uint64)
    assert not group_rows(np.stack([chain[:-1], chain[1:]], 1).reshape(-1)).any()
    assert len(group_rows(np.empty(0, dtype=np.uint64))) == 0


def test_paths_and_line_numbers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        check_readable([str(tmp_path / "absent.txt")])
    with pytest.raises(UserError, match="is a folder"):
        check_readable([str(tmp_path)])
    (tmp_path / "t").write_text("a\nb\nc")
    assert [line_number(str(tmp_path / "t"), i) for i in (0, 1, 2, 4)] == [1, 1, 2, 3]
