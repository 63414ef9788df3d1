"""Batches of windows against sequences built one by one, and labels that point at the answer's tokens."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hmtl_plugin.squad.dataset import SquadDataset, SquadSplit
from hmtl_plugin.squad.files import SquadFile, read_squad
from hmtl_plugin.squad.prepare import prepare_squad
from hmtl_plugin.squad.windows import answer_positions
from hmtl_plugin.tokenizers.base import Tokenizer
from tests.finetuning.squad.texts import entry, random_squad, write


def open_split(path: Path, tokenizer: Tokenizer) -> SquadSplit:
    out = path.parent / f"{path.stem}-out"
    prepare_squad(path, None, None, out, tokenizer.dictionary(), tokenizer, 1)
    return SquadSplit(out / "train")


def labelled(split: SquadSplit, tokens: int = 48, stride: int = 11, seed: int | None = None) -> SquadDataset:
    windows = split.windows(tokens, stride, 12)
    return SquadDataset(split, windows, answer_positions(windows, split.table["begin"], split.table["end"]), seed)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return random_squad(tmp_path / "train.json", 5, 60, longest=40, impossible=0.2)


def batches_of(dataset: SquadDataset, size: int = 7) -> list[dict[str, Any]]:
    order = dataset.ordered_indices()
    return [dataset.collater(order[begin : begin + size].tolist()) for begin in range(0, len(order), size)]


def slow_sequence(file: SquadFile, tokenizer: Tokenizer, dataset: SquadDataset, window: int) -> list[int]:
    question = file.questions[dataset.windows.question[window]]
    start = int(dataset.windows.start[window])
    context = tokenizer.encode(file.contexts[question.context])
    asked = tokenizer.encode(question.text)[:12]
    return [0, *asked, 2, *context[start : start + 48 - 3 - len(asked)], 2]


def test_batches_are_the_sequences_built_one_by_one(path: Path, tokenizer: Tokenizer) -> None:
    file, dataset = read_squad(path), labelled(open_split(path, tokenizer))
    assert len(dataset) > len(file.questions)  # some have several windows
    assert 0 < dataset.windows.cut_questions < len(file.questions)
    seen = []
    for batch in batches_of(dataset):
        tokens_BT = batch["net_input"]["src_tokens"]
        assert tokens_BT.dtype == torch.int64
        expected = [slow_sequence(file, tokenizer, dataset, window) for window in batch["id"].tolist()]
        width = max(map(len, expected))
        assert tokens_BT.tolist() == [row + [1] * (width - len(row)) for row in expected]
        assert batch["net_input"]["padded"] == (min(map(len, expected)) < width)
        assert batch["ntokens"] == sum(map(len, expected)) == int((tokens_BT != 1).sum())
        assert (batch["nsentences"], batch["set_size"]) == (len(expected), len(dataset))
        for row, window in enumerate(batch["id"].tolist()):
            begin, length = int(batch["context_begin"][row]), int(batch["context_length"][row])
            assert tokens_BT[row, begin - 1] == 2
            assert len(expected[row]) == begin + length + 1
            assert batch["window_start"][row] == dataset.windows.start[window]
        seen += batch["id"].tolist()
    assert sorted(seen) == list(range(len(dataset)))


def test_labels_point_at_the_answer_s_tokens(path: Path, tokenizer: Tokenizer) -> None:
    file, dataset = read_squad(path), labelled(open_split(path, tokenizer))
    answered = set()
    for batch in batches_of(dataset):
        for row, window in enumerate(batch["id"].tolist()):
            question = file.questions[dataset.windows.question[window]]
            start, end = int(batch["start"][row]), int(batch["end"][row])
            if (start, end) != (0, 0):
                answer = batch["net_input"]["src_tokens"][row, start : end + 1]
                assert tokenizer.decode(answer.tolist()) == " ".join(question.answers[0][0].split())
                context = tokenizer.encode(file.contexts[question.context])
                first = start - int(batch["context_begin"][row]) + int(batch["window_start"][row])
                before = file.contexts[question.context][: question.answers[0][1]]  # it is this one of equal words
                assert "".join(tokenizer.decode(context[:first]).split()) == "".join(before.split())
                answered.add(question.id)
    lost = dataset.labels.lost if dataset.labels else 0
    assert len(answered) + lost == sum(bool(question.answers) for question in file.questions)
    assert lost < 5 < len(answered)


def test_first_and_last_word_of_a_window(tmp_path: Path, tokenizer: Tokenizer) -> None:
    context = "the cat sat on the mat"
    path = write(tmp_path / "f.json", [[(context, [entry(0, [("the", 0)], "a"), entry(1, [("mat", 19)], "a")])]])
    split = open_split(path, tokenizer)
    dataset = labelled(split)
    batch = dataset.collater([0, 1])
    tokens = batch["net_input"]["src_tokens"][0].tolist()
    begin = 2 + len(tokenizer.encode("a"))
    assert batch["context_begin"].tolist() == [begin, begin]
    assert tokenizer.encode("the") == tokens[begin : int(batch["end"][0]) + 1]
    assert batch["start"][0] == begin + 1  # behind the tokenizer's space, which is a token of its own here
    assert batch["end"][1] == len(tokens) - 2 and tokens[-1] == 2
    assert tokenizer.decode(tokens[batch["start"][1] : -1]) == "mat"


def test_an_empty_context_or_question(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write(tmp_path / "f.json", [[("  ", [entry(0, [])]), ("a cat", [entry(1, [], "")])]])
    out = tmp_path / "out"
    prepare_squad(None, None, path, out, tokenizer.dictionary(), tokenizer, 1)
    split = SquadSplit(out / "test")
    batch = SquadDataset(split, split.windows(48, 11, 12)).collater([0, 1])
    rows = [[0, *tokenizer.encode("who ?"), 2, 2], [0, 2, *tokenizer.encode("a cat"), 2]]
    width = max(map(len, rows))
    assert batch["net_input"]["src_tokens"].tolist() == [row + [1] * (width - len(row)) for row in rows]
    assert batch["context_length"].tolist() == [0, len(tokenizer.encode("a cat"))]
    assert batch["context_begin"].tolist() == [len(tokenizer.encode("who ?")) + 2, 2]
    assert "start" not in batch and "end" not in batch


def test_order(path: Path, tokenizer: Tokenizer) -> None:
    split = open_split(path, tokenizer)
    valid, train = labelled(split), labelled(split, seed=3)
    order = valid.ordered_indices()
    assert (np.diff(valid.sizes[order]) >= 0).all()
    assert all(a < b for a, b in itertools.pairwise(order) if valid.sizes[a] == valid.sizes[b])
    train.set_epoch(1)
    first = train.ordered_indices()
    assert first.tolist() == train.ordered_indices().tolist()
    train.set_epoch(2)
    assert first.tolist() != train.ordered_indices().tolist()
    assert sorted(first.tolist()) == list(range(len(train)))
    assert train.collater([]) == {}


def test_worker_processes_give_the_same_batches(path: Path, tokenizer: Tokenizer) -> None:
    import pickle

    dataset = labelled(open_split(path, tokenizer))
    other = pickle.loads(pickle.dumps(dataset))
    for mine, theirs in zip(batches_of(dataset), batches_of(other), strict=True):
        assert torch.equal(mine["net_input"]["src_tokens"], theirs["net_input"]["src_tokens"])
        assert torch.equal(mine["start"], theirs["start"])
