"""Binarised data equals what the real fairseq-preprocess writes, and ids never wrap."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from fairseq.data.indexed_dataset import best_fitting_int_dtype

from hmtl_plugin.errors import UserError
from hmtl_plugin.preparation import gather
from hmtl_plugin.preparation.binarise import Encoder, IndexedWriter, Items, encode_block, item_dtype, narrow
from hmtl_plugin.preparation.readers import text as text_reader
from hmtl_plugin.tokenizers.loading import tokenizer_from_bytes
from hmtl_plugin.tokenizers.training import train_tokenizer
from tests.preparation.texts import documents, prepare, read_documents, read_items, write_sentences

ODD = ["na\u00efve \u4e2d\u6587 \u2581 caf\u00e9", "a <mask> </s> b", "\U0001f600 \ufb01sh \u00bd", "\u200bx \u00ad"]


def preprocess(text: Path, dictionary: Path, out: Path) -> None:
    """The real fairseq-preprocess on pieces, in a process of its own."""
    command = [sys.executable, "-m", "fairseq_cli.preprocess", "--only-source", "--srcdict", str(dictionary)]
    subprocess.run(
        [*command, "--trainpref", str(text), "--destdir", str(out), "--workers", "2"],
        check=True,
        capture_output=True,
    )


def test_bytes_are_those_of_fairseq_preprocess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_reader, "SPAN_BYTES", 3000)
    monkeypatch.setattr(gather, "SPAN_BYTES", 2000)
    docs = [*documents(120), ODD]
    source = write_sentences(tmp_path / "text.txt", docs)
    summary = prepare([source], tmp_path / "ours", workers=2)
    model = sentencepiece.SentencePieceProcessor(model_file=str(summary.folder / "sentencepiece.bpe.model"))
    lines = source.read_text(encoding="utf-8").split("\n")[:-1]
    pieces = "".join(" ".join(model.encode(line, out_type=str)) + "\n" for line in lines)
    (tmp_path / "pieces").write_text(pieces, encoding="utf-8")
    preprocess(tmp_path / "pieces", summary.folder / "dict.txt", tmp_path / "theirs")
    assert (summary.folder / "dict.txt").read_bytes() == (tmp_path / "theirs" / "dict.txt").read_bytes()
    for suffix in ("bin", "idx"):
        ours = (summary.folder / f"train.{suffix}").read_bytes()
        assert ours == (tmp_path / "theirs" / f"train.{suffix}").read_bytes()
    assert len(read_documents(summary.folder)) == len(docs)


def test_dtype_is_fairseqs() -> None:
    for size in (1, 255, 65_499, 65_500, 65_536, 1_000_000):
        assert item_dtype(size) == np.dtype(best_fitting_int_dtype(size))


@pytest.mark.parametrize("wrong", [-1, 100, 65_536 + 5, 2**40])
def test_ids_never_wrap(wrong: int) -> None:
    assert narrow(np.array([0, 99]), 100).tolist() == [0, 99]
    with pytest.raises(UserError, match=f"token id {wrong} is outside the vocabulary of 100"):
        narrow(np.array([5, wrong, 7]), 100)


def test_a_vocabulary_of_four_bytes(tmp_path: Path) -> None:
    writer = IndexedWriter(tmp_path / "train", 70_000)
    ids = narrow(np.array([69_999, 2, 5, 6, 2]), 70_000)
    writer.add(Items(ids.tobytes(), np.array([2, 3], dtype=np.int32), 0))
    counts = writer.finish()
    assert read_items(tmp_path / "train") == [[69_999, 2], [5, 6, 2]]
    assert (counts["documents"], counts["sentences"], counts["tokens"]) == (1, 2, 3)


def test_separators_stand_between_documents_only(tmp_path: Path) -> None:
    writer = IndexedWriter(tmp_path / "train", 100)

    def add(*items: list[int]) -> None:
        sizes = np.array([len(item) for item in items], dtype=np.int32)
        data = np.array([i for item in items for i in item], dtype="<u2").tobytes()
        writer.add(Items(data, sizes, sum(item == [2] for item in items)))

    for items in ([[2]], [[2], [5, 2]], [], [[2]], [[2], [6, 2], [2]], [[2], [7, 2], [2]], [[2]]):
        add(*items)
    counts = writer.finish()
    assert read_items(tmp_path / "train") == [[5, 2], [2], [6, 2], [2], [7, 2]]
    assert (counts["documents"], counts["sentences"], counts["tokens"]) == (3, 3, 3)


class Letters:
    """Stands in for a tokenizer: ``.`` has no piece, other letters one each."""

    def __len__(self) -> int:
        return 300

    def encode_flat(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        ids = [[ord(c) for c in text if c not in ". "] for text in texts]
        return np.array([i for part in ids for i in part], dtype=np.int64), np.array([len(p) for p in ids])


def block(lines: list[str], rows: bool, valid: list[bool], document: int = 0) -> list[list[str]]:
    """What `encode_block` makes of lines, as text: an empty string for a separator."""
    encoder = Encoder(Letters(), "", rows, np.array(valid, dtype=np.bool_), np.ones(200, dtype=np.bool_))  # type: ignore[arg-type]
    result = []
    for items in encode_block(encoder, lines, document):
        ids = np.frombuffer(items.data, dtype="<u2").tolist()
        ends = np.cumsum(items.sizes_I).tolist()
        parts = [ids[end - size : end] for size, end in zip(items.sizes_I.tolist(), ends)]
        assert all(part[-1] == 2 for part in parts)
        assert items.separators == sum(part == [2] for part in parts)
        result.append(["".join(map(chr, part[:-1])) for part in parts])
    return result


def test_sentences_without_pieces_vanish() -> None:
    assert block(["a", "..", "b", "", "..", "", "c"], False, []) == [["a", "b", "", "c"], []]
    assert block([".."], False, []) == [[], []]


def test_rows_vanish_whole() -> None:
    lines = ["a\tb", "c\t..", "..\td", "", "e\tf", "", "..\t..", "", "g\th"]
    assert block(lines, True, []) == [["a", "b", "", "e", "f", "", "g", "h"], []]


def test_documents_go_to_their_split() -> None:
    lines = ["a", "b", "", "c", "", "d", "e"]
    assert block(lines, False, [True, False, True]) == [["", "c"], ["a", "b", "", "d", "e"]]
    assert block(["", "c", "", "d"], False, [False, False, False, True], 1) == [["", "c"], ["", "d"]]


def test_range_is_checked_before_writing() -> None:
    class Wrong(Letters):
        def __len__(self) -> int:
            return 98

    encoder = Encoder(Wrong(), "", False, np.empty(0, dtype=np.bool_), np.ones(200, dtype=np.bool_))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="token id 98 is outside the vocabulary of 98"):
        encode_block(encoder, ["ab"], 0)


def test_training_sample_is_the_training_documents(tmp_path: Path) -> None:
    spool = gather.Spool(tmp_path / "s", tmp_path / "k", documents=3, sentences=5)
    spool.text.write_text("a\nb\n\nc\n\nd\te\n")
    valid = np.array([False, True, False])
    assert list(gather.sample_sentences(spool, valid, 99, 1)) == ["a", "b", "d", "e"]
    spool.text.write_text("x\n" * 10_000)
    spool.sentences = 10_000
    drawn = list(gather.sample_sentences(spool, valid[:0], 1000, 1))
    assert 850 < len(drawn) < 1150


def test_tokenizer_bytes_decide_ids(tmp_path: Path) -> None:
    sentences = [s for doc in documents(60) for s in doc]
    tokenizer = tokenizer_from_bytes("m", train_tokenizer(sentences, 90))
    (tmp_path / "m.model").write_bytes(tokenizer.to_bytes())
    summary = prepare(
        [write_sentences(tmp_path / "t", [sentences[:3]])], tmp_path / "d", tokenizer=str(tmp_path / "m.model")
    )
    assert [item[:-1] for item in read_items(summary.folder / "train")] == tokenizer.encode_batch(sentences[:3])
