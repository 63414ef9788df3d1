"""Fine-tuning with the task ``squad``: learning, metrics on one and two processes, what is a loss, what is refused."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hmtl_plugin.checkpoints import load_checkpoint
from hmtl_plugin.criterions.span_qa import SpanQuestionAnswering
from hmtl_plugin.squad.dataset import SquadDataset, SquadSplit
from hmtl_plugin.squad.files import read_squad
from hmtl_plugin.squad.prepare import prepare_squad
from hmtl_plugin.squad.scoring import evaluate
from hmtl_plugin.squad.windows import answer_positions
from hmtl_plugin.tokenizers.base import Tokenizer
from tests.finetuning.squad.runs import WINDOWS, Trained, arguments, experiment
from tests.finetuning.squad.texts import entry, write
from tests.training.runs import assert_same_weights, run, train, weights


def test_it_learns_to_find_the_word_that_is_asked_for(trained: Trained) -> None:
    """Any of a context's four words would be right every other time."""
    scores = [line["valid_f1"] for line in trained.lines if "valid_f1" in line]
    assert max(scores) > 85
    assert trained.metrics["score"] > 85
    state = torch.load(trained.folder / "checkpoint_best.pt", weights_only=False)["extra_state"]
    assert state["best"] == pytest.approx(max(scores))


def test_validation_is_the_official_score_of_the_predictions(trained: Trained) -> None:
    predicted = json.loads((trained.folder / "predictions.json").read_text())
    scores = evaluate(predicted, read_squad(trained.dev).questions)
    found = trained.best
    assert (found["valid_f1"], found["valid_exact"]) == pytest.approx((scores["f1"], scores["exact"]), abs=6e-4)
    assert found["valid_score"] == found["valid_f1"]
    assert found["valid_f1"] == pytest.approx(trained.metrics["best_f1" if trained.version_2 else "f1"], abs=6e-4)


def test_predictions_are_those_of_windows_read_one_at_a_time(trained: Trained, tokenizer: Tokenizer) -> None:
    """From text to the best span with nothing but the model in common."""
    model = load_checkpoint(trained.folder / "model.pt").model
    threshold = trained.metrics.get("threshold", np.inf)
    file, stride = read_squad(trained.dev), WINDOWS["doc_stride"]
    predicted = json.loads((trained.folder / "predictions.json").read_text())
    odds = json.loads((trained.folder / "null_odds.json").read_text())
    assert list(predicted) == list(odds) == [question.id for question in file.questions]
    for question in file.questions[:40]:
        asked, context = tokenizer.encode(question.text), tokenizer.encode(file.contexts[question.context])
        room = WINDOWS["tokens_per_sample"] - 3 - len(asked)
        best, no_answer = (-np.inf, ""), np.inf
        for start in range(0, max(len(context) - room, 0) + stride, stride):
            held = context[start : start + room]
            with torch.inference_mode():
                logits_T2 = model(torch.tensor([[0, *asked, 2, *held, 2]]), task_head=True)[0][0].tolist()
            no_answer = min(no_answer, sum(logits_T2[0]))
            for first in range(len(held)):
                for last in range(first, min(first + WINDOWS["max_answer_tokens"], len(held))):
                    place = len(asked) + 2
                    score = logits_T2[place + first][0] + logits_T2[place + last][1]
                    best = max(best, (score, tokenizer.decode(held[first : last + 1])))
        assert odds[question.id] == pytest.approx(no_answer - best[0], abs=1e-3)
        if abs(odds[question.id] - threshold) > 1e-3:
            assert predicted[question.id] == ("" if odds[question.id] > threshold else best[1])


def test_the_same_command_resumes_to_the_bit(models: dict[str, Trained], tmp_path: Path) -> None:
    for folder, epochs in (("whole", "2"), ("halves", "1"), ("halves", "2")):
        train(arguments(models["1.1"].data, tmp_path / folder, "--max-epoch", epochs, "--dropout", "0.1"))
    assert_same_weights(weights(tmp_path / "whole"), weights(tmp_path / "halves"))


@pytest.mark.slow
def test_two_processes_measure_what_one_does(models: dict[str, Trained], tmp_path: Path) -> None:
    """Windows do not share out evenly: some batch is shown twice and must be counted once."""
    trained = models["2.0"]
    options = ["--restore-file", str(trained.folder / "checkpoint_last.pt"), "--lr", "0", "--max-epoch", "1"]
    options += ["--batch-size-valid", "7", "--reset-optimizer", "--reset-dataloader", "--reset-meters", "--version-2"]
    windows = experiment(trained.data, trained.folder, True)._windows(SquadSplit(trained.data / "valid"))
    assert -(-len(windows) // 7) % 2  # batches
    one = next(line for line in train(arguments(trained.data, tmp_path / "1", *options)) if "valid_f1" in line)
    command = arguments(trained.data, tmp_path / "2", *options, "--log-format", "json")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    result = run([sys.executable, *launcher, "-m", "fairseq_cli.train", *command])
    assert result.returncode == 0, result.stderr[-3000:]
    two = json.loads(re.findall(r"\{.*valid_score.*\}", result.stdout + result.stderr)[-1])
    last = [line for line in trained.lines if "valid_f1" in line][-1]
    for name in ("valid_score", "valid_exact", "valid_f1"):
        assert float(two[name]) == one[name] == last[name]


class Told(torch.nn.Module):
    """A model with logits (windows, tokens, 2) that are given."""

    def __init__(self, logits_WT2: torch.Tensor) -> None:
        super().__init__()
        self.logits_WT2 = torch.nn.Parameter(logits_WT2)
        self.rows = torch.arange(len(logits_WT2))

    def forward(self, src_tokens: torch.Tensor, task_head: bool, **unused: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        assert task_head
        return self.logits_WT2[self.rows, : src_tokens.shape[1]], {}


@pytest.fixture
def told(models: dict[str, Trained]) -> tuple[SquadDataset, Told, SpanQuestionAnswering]:
    """Windows with labels, and logits that speak loudly for questions and padding."""
    split = SquadSplit(models["2.0"].data / "valid")
    windows = split.windows(WINDOWS["tokens_per_sample"], WINDOWS["doc_stride"], WINDOWS["max_question_tokens"])
    dataset = SquadDataset(split, windows, answer_positions(windows, split.table["begin"], split.table["end"]))
    logits_WT2 = torch.randn(len(windows), WINDOWS["tokens_per_sample"], 2, generator=torch.Generator().manual_seed(0))
    for row_T2, begin, length in zip(logits_WT2, windows.context_begin, windows.length, strict=True):
        row_T2[1:begin] += 50
        row_T2[begin + length :] += 50
    task = SimpleNamespace(cfg=SimpleNamespace(max_answer_tokens=WINDOWS["max_answer_tokens"]))
    return dataset, Told(logits_WT2), SpanQuestionAnswering(task)


def batch(dataset: SquadDataset, model: Told, rows: list[int]) -> dict[str, Any]:
    """Of windows of several lengths."""
    sample = dataset.collater(rows)
    assert sample["net_input"]["padded"]
    model.rows = sample["id"]
    return sample


ROWS = list(range(1, 120, 2))


def test_the_loss_is_over_the_context_and_its_absence(told: tuple[SquadDataset, Told, SpanQuestionAnswering]) -> None:
    dataset, model, criterion = told
    sample = batch(dataset, model, ROWS)
    loss, size, log = criterion.train()(model, sample)
    assert (size, log["ntokens"]) == (len(ROWS), int((sample["net_input"]["src_tokens"] != 1).sum()))
    assert (sample["start"] < sample["end"]).any()  # else the two columns could be exchanged
    expected, absent = 0.0, 0
    for row, window in enumerate(ROWS):
        begin, length = int(sample["context_begin"][row]), int(sample["context_length"][row])
        open_ = [0, *range(begin, begin + length)]
        for column, name in enumerate(("start", "end")):
            target = open_.index(int(sample[name][row]))
            scores = model.logits_WT2[window, open_, column].detach().double()
            expected += float(torch.logsumexp(scores, 0) - scores[target]) / 2
            absent += target == 0
    assert len(ROWS) / 4 < absent / 2 < len(ROWS)
    assert loss.item() == log["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_questions_and_padding_get_no_gradient(told: tuple[SquadDataset, Told, SpanQuestionAnswering]) -> None:
    dataset, model, criterion = told
    sample = batch(dataset, model, ROWS)
    criterion.train()(model, sample)[0].backward()
    assert model.logits_WT2.grad is not None
    moved_WT = (model.logits_WT2.grad != 0).all(-1)
    for row, window in enumerate(ROWS):
        begin, length = int(sample["context_begin"][row]), int(sample["context_length"][row])
        assert moved_WT[window].nonzero().flatten().tolist() == [0, *range(begin, begin + length)]


def test_validation_rows_hold_the_best_span_of_each_window(
    told: tuple[SquadDataset, Told, SpanQuestionAnswering],
) -> None:
    dataset, model, criterion = told
    sample = batch(dataset, model, ROWS)
    assert "_windows" not in criterion.train()(model, sample)[2]
    rows_W5 = criterion.eval()(model, sample)[2]["_windows"]
    assert rows_W5.shape == (len(dataset), 5)
    assert rows_W5[:, 0].nonzero().flatten().tolist() == ROWS
    for window in ROWS:
        begin, length = int(dataset.windows.context_begin[window]), int(dataset.windows.length[window])
        start_T, end_T = model.logits_WT2[window].detach().T.tolist()
        stop, most = begin + length, WINDOWS["max_answer_tokens"]
        best = max(
            (start_T[first] + end_T[last], first, last)
            for first in range(begin, stop)
            for last in range(first, min(first + most, stop))
        )
        shift = int(dataset.windows.start[window]) - begin
        expected = [1, start_T[0] + end_T[0], best[0], best[1] + shift, best[2] + shift]
        assert rows_W5[window].tolist() == pytest.approx(expected, abs=1e-5)


def refusal(args: list[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        train(args)
    message = str(caught.value.code)
    assert message.startswith("error: ")
    assert "\n" not in message
    return message


def test_what_cannot_work_is_refused(models: dict[str, Trained], tmp_path: Path) -> None:
    first, second = (
        arguments(models[version].data, tmp_path / "run", "--max-update", "1") for version in ("1.1", "2.0")
    )
    assert f"{models['2.0'].data}: has questions without an answer, as SQuAD 2.0: add --version-2" in refusal(second)
    assert "holds no squad.json: give a folder that recipes/finetune_squad.sh prepared" in refusal(
        arguments(tmp_path, tmp_path / "run")
    )
    for options, message in (
        ("--doc-stride 30", "--doc-stride 30 leaves gaps between windows"),
        ("--doc-stride 0", "--doc-stride 0: use 1 or more"),
        ("--max-question-tokens 0", "--max-question-tokens 0: use 1 or more"),
        ("--max-answer-tokens 0", "--max-answer-tokens 0: use 1 or more"),
        ("--tokens-per-sample 7", "--tokens-per-sample 7: use 8 or more"),
        ("--tokens-per-sample 65", "lower the one, or raise the other (for a trained model with --resize-positions)"),
        ("--head-layer 3", "--head-layer 3: use 1 to 2, or -1 to -2 from the top"),
        ("--valid-subset test", "has no split 'test', only train, valid"),
    ):
        assert message in refusal([*first, *options.split()])
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").glob("*.pt"))


def test_a_split_without_answers_is_no_validation_set(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write(tmp_path / "f.json", [[("old cat", [entry(0, [("cat", 4)])])]])
    hidden = write(tmp_path / "g.json", [[("old cat", [entry(0, [])])]])
    prepare_squad(path, path, hidden, tmp_path / "data", tokenizer.dictionary(), tokenizer, 1)
    args = arguments(tmp_path / "data", tmp_path / "run", "--max-update", "1")
    assert "test" in refusal([*args, "--valid-subset", "test"])


def test_damaged_data_is_named(models: dict[str, Trained], tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(models["1.1"].data, data)
    (data / "valid" / "questions.npy").write_bytes(b"x")
    assert f"{data / 'valid' / 'questions.npy'}: missing or damaged" in refusal(arguments(data, tmp_path / "run"))


def test_damage_within_the_files_is_named(models: dict[str, Trained], tmp_path: Path) -> None:
    """Bits that no size tells: in an index, in the table of questions, in a header of numpy, in the manifest."""
    whole = models["1.1"].data

    def refused(file: str, change: Callable[[bytearray], None]) -> str:
        data = tmp_path / "data"
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(whole, data)
        content = bytearray((data / file).read_bytes())
        change(content)
        (data / file).write_bytes(content)
        message = refusal(arguments(data, tmp_path / "run"))
        assert str(data / file).removesuffix(".idx").removesuffix(".bin") in message
        return message

    def flip(place: int, bit: int) -> Callable[[bytearray], None]:
        def change(content: bytearray) -> None:
            content[place] ^= 1 << bit

        return change

    def rename(content: bytearray) -> None:
        content[:] = content.replace(b'"labelled"', b'"labeled"')

    assert "sizes and offsets disagree" in refused("train/context.idx", flip(-16, 1))
    assert "names contexts that are not there" in refused("train/questions.npy", flip(-13, 6))
    assert "has answers outside of their contexts" in refused("train/questions.npy", flip(-3, 6))
    assert "missing or damaged" in refused("train/offsets.npy", flip(12, 1))
    assert "not in their order" in refused("train/offsets.npy", flip(-4 * 31, 5))
    assert "lacks 'labelled'" in refused("squad.json", rename)
    assert "is outside the dictionary" in refused("train/question.bin", flip(1, 7))
