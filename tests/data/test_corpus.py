"""Reading of binarised splits: documents, gathering, and what damaged files are told."""

import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from fairseq.data.indexed_dataset import MMapIndexedDataset
from hypothesis import given, settings
from hypothesis import strategies as st

from hmtl_plugin.data.corpus import Corpus, expand_ranges, gather_sizes
from hmtl_plugin.errors import UserError

from .corpora import write


def documents_of(corpus: Corpus) -> list[tuple[int, int]]:
    return list(zip(corpus.document_start.tolist(), corpus.document_end.tolist(), strict=True))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([3, 2, 1, 4], [(0, 2), (3, 4)]),  # last separator missing
        ([3, 2, 1, 4, 1], [(0, 2), (3, 4)]),
        (
            [1, 1, 3, 1, 1, 1, 2, 5, 1, 1],
            [(2, 3), (6, 8)],
        ),  # empty documents at start, in the middle, at the end
        ([7], [(0, 1)]),
        ([1, 2], [(1, 2)]),
    ],
)
def test_documents(tmp_path: Path, sizes: list[int], expected: list[tuple[int, int]]) -> None:
    corpus = Corpus(write(tmp_path, [[9] * (size - 1) for size in sizes]))
    assert documents_of(corpus) == expected
    assert corpus.token_count == sum(sizes) - len(sizes)
    assert corpus.sizes.tolist() == sizes


def test_documents_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    items = [[9] * int(n) for n in rng.integers(0, 4, 200)]
    prefix = write(tmp_path, items)
    whole = documents_of(Corpus(prefix))
    monkeypatch.setattr("hmtl_plugin.data.corpus._CHUNK", 7)
    assert documents_of(Corpus(prefix)) == whole


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_gather_equals_reading_item_by_item(tmp_path: Path, dtype: type) -> None:
    rng = np.random.default_rng(1)
    items = [rng.integers(4, 90, int(n)).tolist() for n in rng.integers(0, 6, 300)]
    corpus = Corpus(write(tmp_path, items, dtype))
    reference = MMapIndexedDataset(corpus.prefix)
    starts = rng.integers(0, 290, 50)
    counts = rng.integers(0, 10, 50)
    tokens, sentence_start = corpus.gather(starts, counts)
    numbers = [i for start, count in zip(starts, counts, strict=True) for i in range(start, start + count)]
    pieces = [reference[i][:-1].tolist() for i in numbers]
    assert tokens.dtype == np.int64
    assert tokens.tolist() == [token for piece in pieces for token in piece]
    assert sentence_start.tolist() == [k == 0 for piece in pieces for k in range(len(piece))]
    assert np.array_equal(corpus.lengths(np.array(numbers)), [len(piece) for piece in pieces])


def test_gather_of_nothing(tmp_path: Path) -> None:
    corpus = Corpus(write(tmp_path, [[5]]))
    tokens, sentence_start = corpus.gather(np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert len(tokens) == len(sentence_start) == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=20))
def test_expand_ranges(ranges: list[tuple[int, int]]) -> None:
    starts, counts = (np.array([r[i] for r in ranges], dtype=np.int64) for i in (0, 1))
    expected = [n for start, count in ranges for n in range(start, start + count)]
    assert expand_ranges(starts, counts).tolist() == expected


def test_gather_sizes_of_unaligned_array() -> None:
    buffer = bytes(26) + np.arange(10, dtype=np.int32).tobytes()
    sizes = np.frombuffer(buffer, dtype=np.int32, offset=26)
    assert gather_sizes(sizes, np.array([9, 0, 3])).tolist() == [9, 0, 3]


def test_survives_pickling(tmp_path: Path) -> None:
    corpus = Corpus(write(tmp_path, [[5, 6], [], [7]]))
    data = pickle.dumps(corpus)
    assert len(data) < 1000
    again = pickle.loads(data)
    assert documents_of(again) == documents_of(corpus)
    assert np.array_equal(again.tokens, corpus.tokens)


def test_nothing_is_copied(tmp_path: Path) -> None:
    corpus = Corpus(write(tmp_path, [[5, 6], [], [7]]))
    for view in (corpus.sizes, corpus.tokens):
        assert not view.flags.owndata
        assert not view.flags.writeable


def test_vocabulary_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus(write(tmp_path, [[5, 6], [99], [7]]))
    monkeypatch.setattr("hmtl_plugin.data.corpus._CHUNK", 2)
    corpus.check_vocabulary(100)
    with pytest.raises(UserError, match=r"train\.bin: token id 99 .* 99 symbols"):
        corpus.check_vocabulary(99)
    with pytest.raises(UserError, match="token id -1"):
        Corpus(write(tmp_path, [[5], [-1]], np.int32)).check_vocabulary(100)


def cut(path: str, keep: int) -> None:
    with open(path, "r+b") as stream:
        stream.truncate(keep)


@pytest.mark.parametrize(("keep", "message"), [(15, "truncated or not .* expected 16 bytes, found 15"), (0, "found 0")])
def test_truncated_bin(tmp_path: Path, keep: int, message: str) -> None:
    prefix = write(tmp_path, [[5, 6], [], [7, 8, 9]])
    cut(prefix + ".bin", keep)
    with pytest.raises(UserError, match=rf"train\.bin: .*{message}"):
        Corpus(prefix)


@pytest.mark.parametrize(
    ("keep", "message"), [(60, "expected 62 bytes, found 60"), (20, "found 20"), (0, "not an index")]
)
def test_truncated_idx(tmp_path: Path, keep: int, message: str) -> None:
    prefix = write(tmp_path, [[5, 6], [], [7, 8, 9]])
    cut(prefix + ".idx", keep)
    with pytest.raises(UserError, match=rf"train\.idx: .*{message}"):
        Corpus(prefix)


def test_missing_file(tmp_path: Path) -> None:
    prefix = write(tmp_path, [[5]])
    Path(prefix + ".bin").unlink()
    with pytest.raises(UserError, match=r"train\.bin: no such file"):
        Corpus(prefix)


def test_files_of_two_corpora(tmp_path: Path) -> None:
    for name, items in (("one", [[5, 6], [7]]), ("two", [[5], [6, 7, 8]])):
        (tmp_path / name).mkdir()
        write(tmp_path / name, items)
    shutil.copy(tmp_path / "one/train.bin", tmp_path / "two/train.bin")
    with pytest.raises(UserError, match=r"expected 12 bytes, found 10"):
        Corpus(str(tmp_path / "two/train"))


@pytest.mark.parametrize(("items", "message"), [([], "empty"), ([[], [], []], "no sentence"), ([[]], "no sentence")])
def test_empty_corpus_is_refused(tmp_path: Path, items: list[list[int]], message: str) -> None:
    prefix = write(tmp_path, items)
    with pytest.raises(UserError, match=message):
        Corpus(prefix)


def test_items_without_eos(tmp_path: Path) -> None:
    prefix = write(tmp_path, [[5, 6], [7], [8, 9]])
    with pytest.raises(UserError, match=r"item 0 does not end in </s> \(id 3\)"):
        Corpus(prefix, eos=3)


@pytest.mark.parametrize("size", [0, -4])
def test_impossible_size(tmp_path: Path, size: int) -> None:
    prefix = write(tmp_path, [[5, 6], [7], [8, 9]])
    with open(prefix + ".idx", "r+b") as stream:
        stream.seek(26 + 4)
        stream.write(struct.pack("<i", size))
    with pytest.raises(UserError, match=rf"train\.idx: item 1 has size {size}"):
        Corpus(prefix)


def test_every_flipped_bit_of_an_index_is_refused_or_harmless(tmp_path: Path) -> None:
    """Sizes and offsets say the same twice; one that trusted either would train on other text."""
    prefix = write(tmp_path, [[5, 6], [7], [], [8, 9], [], [4, 5, 6], [7]])
    whole = Corpus(prefix)
    expected = [part.tolist() for part in whole.gather(np.zeros(1, np.int64), np.array([len(whole)]))]
    path = Path(prefix + ".idx")
    content = path.read_bytes()
    refused = 0
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            corpus = Corpus(prefix)
            corpus.check_vocabulary(10)
        except UserError:
            refused += 1
            continue
        found = corpus.gather(np.zeros(1, np.int64), np.array([len(corpus)]))
        assert [part.tolist() for part in found] == expected, f"bit {bit}"
    assert refused > 0.9 * 8 * len(content)


def test_an_offset_in_the_middle_of_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [[5] * (number % 4) for number in range(40)]
    prefix = write(tmp_path, items)
    monkeypatch.setattr("hmtl_plugin.data.corpus._CHUNK", 7)
    Corpus(prefix)
    with open(prefix + ".idx", "r+b") as stream:
        stream.seek(26 + 4 * 40 + 8 * 31)
        stream.write(struct.pack("<q", 2))
    with pytest.raises(UserError, match=r"train\.idx: sizes and offsets disagree at item 31; copy the file again"):
        Corpus(prefix)
