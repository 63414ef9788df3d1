"""Binarised SQuAD data: what stock fairseq reads is what the files hold, and answers are found again by their tokens."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fairseq.data import Dictionary, data_utils
from hypothesis import given, settings
from hypothesis import strategies as st

from hmtl_plugin.errors import UserError
from hmtl_plugin.squad.answers import answer_tokens
from hmtl_plugin.squad.dataset import SquadSplit
from hmtl_plugin.squad.files import Question, SquadFile, read_squad
from hmtl_plugin.squad.prepare import PreparedSquad, prepare_squad, read_squad_manifest
from hmtl_plugin.tokenizers.base import Tokenizer
from hmtl_plugin.tokenizers.offsets import encode_with_offsets
from hmtl_plugin.tokenizers.sentencepiece import SentencePieceTokenizer
from hmtl_plugin.tokenizers.training import train_tokenizer
from tests.finetuning.squad.texts import entry, random_squad, write


def prepare(
    out: Path, tokenizer: Tokenizer, workers: int = 1, overwrite: bool = False, **files: Path | None
) -> PreparedSquad:
    paths = [files.get(split) for split in ("train", "valid", "test")]
    return prepare_squad(*paths, out, tokenizer.dictionary(), tokenizer, workers, overwrite)


def spans(file: SquadFile, split: SquadSplit) -> list[str | None]:
    """Text between each question's first and last answer token."""
    begin, end = split.offsets.T
    first = split.offset_start[split.table["context"]]
    return [
        file.contexts[question.context][begin[start + row["begin"]] : end[start + row["end"]]]
        if row["begin"] >= 0
        else None
        for question, row, start in zip(file.questions, split.table, first.tolist(), strict=True)
    ]


def test_a_full_disk(tmp_path: Path, tokenizer: Tokenizer, file_limit: Callable[[int], None]) -> None:
    path = random_squad(tmp_path / "train.json", 1, 300)
    for limit in (200, 2_000, 20_000):
        file_limit(limit)
        with pytest.raises(UserError, match=r"out: cannot be written \(.*\); nothing new was kept: make room"):
            prepare(tmp_path / "out", tokenizer, train=path)
        assert [path.name for path in tmp_path.iterdir()] == ["train.json"]


def test_stock_fairseq_reads_the_texts(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = random_squad(tmp_path / "train.json", 1, 300)
    prepared = prepare(tmp_path / "out", tokenizer, train=path)
    file = read_squad(path)
    dictionary = Dictionary.load(str(prepared.folder / "dict.txt"))
    questions = [question.text for question in file.questions]
    for name, texts in (("context", file.contexts), ("question", questions)):
        dataset = data_utils.load_indexed_dataset(str(prepared.folder / "train" / name), dictionary)
        assert [item.tolist() for item in dataset] == [[*tokenizer.encode(text), 2] for text in texts]
    assert (prepared.folder / "train" / "source.json").read_bytes() == path.read_bytes()
    split = SquadSplit(prepared.folder / "train")
    counts = prepared.manifest["splits"]["train"]
    assert counts["context_tokens"] == len(split.offsets) == split.context_lengths.sum()
    assert (counts["contexts"], counts["questions"]) == (300, len(file.questions))
    assert counts["labelled"] and not counts["impossible"] and not prepared.manifest["version_2"]
    assert read_squad_manifest(prepared.folder) == prepared.manifest


def test_answers_are_found_again_by_their_tokens(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = random_squad(tmp_path / "train.json", 2, 200, impossible=0.3)
    prepared = prepare(tmp_path / "out", tokenizer, valid=path)
    file, split = read_squad(path), SquadSplit(prepared.folder / "valid")
    assert prepared.manifest["version_2"]
    for question, span, row in zip(file.questions, spans(file, split), split.table, strict=True):
        assert span == (question.answers[0][0] if question.answers else None)  # words are whole tokens here
        assert (row["context"], bool(row["impossible"])) == (question.context, question.impossible)
    assert prepared.manifest["splits"]["valid"]["impossible"] == sum(q.impossible for q in file.questions) > 0


CONTEXTS = st.lists(
    st.sampled_from(
        ["the", "cat", " ", "  ", "\t", "\u4e2d", "\u00e9", "e\u0301", "\ufb01", "\ufdfa", "\u2026", ".", "\U0001f680"]
    ),
    min_size=1,
    max_size=20,
).map("".join)


@given(contexts=st.lists(CONTEXTS, min_size=1, max_size=4), data=st.data())
@settings(deadline=None, max_examples=150)
def test_the_answer_s_tokens_are_those_that_share_a_character_with_it(
    tokenizer: Tokenizer, contexts: list[str], data: st.DataObject
) -> None:
    questions = []
    for number, context in enumerate(contexts):
        start = data.draw(st.integers(0, len(context) - 1))
        text = context[start : data.draw(st.integers(start + 1, len(context)))]
        questions.append(Question(str(number), "", number, ((text, start),), False))
    file = SquadFile("", contexts, [0] * len(contexts), questions, True)
    _, lengths, offsets_N2 = encode_with_offsets(tokenizer, contexts)
    table = answer_tokens(file, lengths, offsets_N2)
    bounds = np.append(0, np.cumsum(lengths))
    for number, question in enumerate(questions):
        text, start = question.answers[0]
        offsets = offsets_N2[bounds[number] : bounds[number + 1]].tolist()
        stop = start + len(text)
        touched = [i for i, (begin, end) in enumerate(offsets) if begin < stop and end > start and begin < end]
        first, last = table[number]["begin"], table[number]["end"]
        if touched:
            assert first <= touched[0] and last >= touched[-1]
            assert (
                not set(range(first, last + 1))
                - set(touched)
                - {i for i, pair in enumerate(offsets) if pair[0] == pair[1]}
            )
            assert text.strip() in contexts[number][offsets[first][0] : offsets[last][1]]
        else:
            assert not text.strip() and (first == last == -1 or offsets[first][0] == offsets[last][1])


def test_workers_change_no_byte(tmp_path: Path, tokenizer: Tokenizer) -> None:
    files = {split: random_squad(tmp_path / f"{split}.json", i, 290) for i, split in enumerate(("train", "valid"))}
    one, two = (prepare(tmp_path / str(n), tokenizer, n, **files).folder for n in (1, 2))
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(names) == 3 + 2 * 7
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)


def test_what_is_prepared_is_kept_until_something_changes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    out = tmp_path / "out"
    path = random_squad(tmp_path / "train.json", 1, 9)
    assert not prepare(out, tokenizer, train=path).known
    assert prepare(out, tokenizer, train=path).known
    assert not prepare(out, tokenizer, train=path, overwrite=True).known
    with pytest.raises(UserError, match="holds data already; --overwrite replaces it"):
        prepare(out, tokenizer, valid=path)
    (out / "notes.txt").write_text("mine")
    prepared = prepare(out, tokenizer, valid=path, overwrite=True)
    assert list(prepared.manifest["splits"]) == ["valid"]
    assert sorted(p.name for p in out.iterdir()) == sorted(
        ["dict.txt", "notes.txt", "sentencepiece.bpe.model", "squad.json", "valid"]
    )
    other = SentencePieceTokenizer(train_tokenizer(["some other words"] * 20, 16))
    with pytest.raises(UserError, match="holds data already"):
        prepare(out, other, valid=path)


def test_nothing_is_written_when_a_file_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    good = random_squad(tmp_path / "train.json", 1, 9)
    bad = write(tmp_path / "dev.json", [[("the cat", [entry(0, [("cat", 3)])])]])
    with pytest.raises(UserError, match=r"dev\.json: question q0: the answer"):
        prepare(tmp_path / "out", tokenizer, train=good, valid=bad)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dev.json", "train.json"]


def test_hidden_answers(tmp_path: Path, tokenizer: Tokenizer) -> None:
    hidden = write(tmp_path / "test.json", [[("the cat", [entry(0, [])])]])
    prepared = prepare(tmp_path / "out", tokenizer, test=hidden)
    assert not prepared.manifest["splits"]["test"]["labelled"]
    assert SquadSplit(prepared.folder / "test").table["begin"].tolist() == [-1]
    for split in ("train", "valid"):
        with pytest.raises(UserError, match=r"test\.json: its questions have no answers; only as --test"):
            prepare(tmp_path / split, tokenizer, **{split: hidden})
    with pytest.raises(UserError, match="give --train, --valid or --test"):
        prepare(tmp_path / "none", tokenizer)


def test_damage_is_named(tmp_path: Path, tokenizer: Tokenizer) -> None:
    folder = prepare(tmp_path / "out", tokenizer, train=random_squad(tmp_path / "train.json", 1, 9)).folder
    assert read_squad_manifest(tmp_path) is None
    (folder / "squad.json").write_text("{")
    with pytest.raises(UserError, match=r"squad\.json: damaged or of another version"):
        read_squad_manifest(folder)
    np.save(folder / "train" / "offsets.npy", np.zeros((3, 2), np.int32))
    with pytest.raises(UserError, match=r"offsets\.npy: does not belong to the texts beside it"):
        SquadSplit(folder / "train")
    (folder / "train" / "offsets.npy").write_bytes(b"")
    with pytest.raises(UserError, match=r"offsets\.npy: missing or damaged"):
        SquadSplit(folder / "train")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squad_v1/dev-v1.1.json", "squad_v2/dev_subset.json", "xquad/xquad.en.json"])
def test_every_real_answer_is_found_again(real_data: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    path = real_data(name)
    file = read_squad(path)
    tokenizer = SentencePieceTokenizer(
        train_tokenizer((c for context in file.contexts[::4] for c in context.split(". ")), 1000)
    )
    split = SquadSplit(prepare(tmp_path / "out", tokenizer, valid=path).folder / "valid")
    for question, span in zip(file.questions, spans(file, split), strict=True):
        if not question.answers:
            assert span is None
            continue
        answer = question.answers[0][0].strip()
        assert span is not None and answer in span
        assert len(span) <= len(answer) + 60  # within the words it stands in


def test_a_question_without_an_answer_is_refused_in_1_1_before_anything_is_written(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    path = write(tmp_path / "f.json", [[("old cat", [entry(0, [("cat", 4)]), entry(1, [], is_impossible=True)])]])
    with pytest.raises(UserError, match=r"f\.json: has questions without an answer, as in SQuAD 2\.0: add --version-2"):
        prepare_squad(
            path, path, None, tmp_path / "data", tokenizer.dictionary(), tokenizer, workers=1, version_2=False
        )
    assert sorted(tmp_path.iterdir()) == [path]
