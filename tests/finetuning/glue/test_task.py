"""Fine-tuning with the task ``glue``: batches, learning, metrics on one and two processes, what is refused."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hmtl_plugin.checkpoints import load_checkpoint, load_vocabulary
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.errors import UserError
from hmtl_plugin.glue.dataset import SentenceDataset
from hmtl_plugin.glue.prepare import prepare_glue
from hmtl_plugin.glue.tasks import find_task
from hmtl_plugin.tokenizers.base import Tokenizer
from tests.finetuning.conftest import WORDS
from tests.training.runs import PLUGIN, assert_same_weights, error_of, run, train, weights

TINY = (
    "--arch hmtl_bert --encoder-layers 2 --encoder-embed-dim 32 --encoder-attention-heads 2 --max-positions 64".split()
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """SST-2: does the sentence speak of birds? STS-B: how many words do the sentences share?"""
    folder, random = tmp_path_factory.mktemp("glue"), np.random.default_rng(0)

    def words() -> list[str]:
        return random.choice(WORDS, random.integers(2, 9)).tolist()

    def write(task: str, header: str, rows: dict[str, list[str]]) -> None:
        (folder / task).mkdir()
        for name, lines in rows.items():
            (folder / task / f"{name}.tsv").write_text("\n".join([header, *lines]))

    def feeling() -> str:
        sentence = words()
        if random.random() < 0.5:
            sentence[random.integers(len(sentence))] = "birds"
        return f"{' '.join(sentence)}\t{int('birds' in sentence)}"

    def likeness() -> str:
        one, other = words(), words()
        return f"0\t{' '.join(one)}\t{' '.join(other)}\t{len(set(one) & set(other))}"

    write(
        "SST-2", "sentence\tlabel", {"train": [feeling() for _ in range(400)], "dev": [feeling() for _ in range(101)]}
    )
    pairs = {"train": [likeness() for _ in range(60)], "dev": [likeness() for _ in range(31)]}
    write("STS-B", "index\tsentence1\tsentence2\tscore", pairs)
    tasks = [find_task("SST-2"), find_task("STS-B")]
    list(prepare_glue(tasks, folder, folder / "out", tokenizer.dictionary(), tokenizer, 1))
    return folder / "out"


def arguments(data: Path, save_dir: Path, *extra: str) -> list[str]:
    """A fairseq-train command line; ``extra`` options come last and win."""
    return [
        *(str(data), "--user-dir", PLUGIN, "--task", "glue", "--criterion", "glue", *TINY),
        *("--tokens-per-sample", "48"),
        *"--optimizer hmtl_adamw --lr 3e-3 --lr-scheduler fixed --seed 3 --cpu --num-workers 0 --batch-size 16".split(),
        *"--best-checkpoint-metric score --maximize-best-checkpoint-metric --no-epoch-checkpoints".split(),
        *("--save-dir", str(save_dir), "--init-std", "0.1", "--dropout", "0", "--attention-dropout", "0"),
        *extra,
    ]


@pytest.mark.parametrize(("task", "columns"), [("SST-2", 1), ("STS-B", 2)])
@pytest.mark.parametrize("longest", [10, 64])
def test_batches_hold_the_rows_cut_at_the_longer_sentence(data: Path, task: str, columns: int, longest: int) -> None:
    files = [Corpus(str(data / task / f"input{i}" / "train")) for i in range(columns)]
    dataset = SentenceDataset(files, np.arange(len(files[0])), longest, seed=1)
    rows = dataset.ordered_indices()[::7].tolist()
    batch = dataset.collater(rows)
    tokens_BT = batch["net_input"]["src_tokens"]
    assert tokens_BT.shape[1] == max(map(dataset.size, rows)) <= longest
    for row, found in zip(rows, tokens_BT.tolist(), strict=True):
        parts = [file.gather(np.array([row]), np.array([1]))[0].tolist() for file in files]
        while sum(map(len, parts)) + 1 + columns > longest:
            max(reversed(parts), key=len).pop()  # of two as long the second
        expected = [0, *(token for part in parts for token in [*part, 2])]
        assert found == expected + [1] * (tokens_BT.shape[1] - len(expected))
        assert dataset.size(row) == len(expected)
    assert batch["net_input"]["padded"] == bool((tokens_BT == 1).any())
    assert batch["target"].tolist() == batch["id"].tolist() == rows
    assert batch["ntokens"] == int((tokens_BT != 1).sum())


def test_epochs_make_other_batches_of_the_same_rows(data: Path) -> None:
    file = Corpus(str(data / "SST-2" / "input0" / "train"))
    dataset = SentenceDataset([file], None, 64, seed=1)
    orders = []
    for epoch in (1, 2, 1):
        dataset.set_epoch(epoch)
        orders.append(dataset.ordered_indices().tolist())
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(len(dataset)))
    batches = dataset.batch_by_size(
        np.array(orders[0]), max_sentences=16, max_tokens=300, required_batch_size_multiple=8
    )
    assert np.concatenate(batches).tolist() == orders[0]  # fairseq's own leave out the last


@pytest.mark.parametrize("pooling", ["cls", "max"])
def test_it_learns(data: Path, tmp_path: Path, pooling: str) -> None:
    lines = train(arguments(data / "SST-2", tmp_path, "--max-epoch", "6", "--head-pooling", pooling))
    scores = [line["valid_score"] for line in lines if "valid_score" in line]
    assert max(scores) > 95
    best = torch.load(tmp_path / "checkpoint_best.pt", weights_only=False)["extra_state"]
    assert best["best"] == pytest.approx(max(scores))  # chosen by the task's metric


@pytest.mark.parametrize("pooling", ["cls", "pair"])
def test_the_same_command_resumes_to_the_bit(data: Path, tmp_path: Path, pooling: str) -> None:
    options = ["--dropout", "0.1", "--head-pooling", pooling]
    for folder, epochs in (("whole", "2"), ("halves", "1"), ("halves", "2")):
        train(arguments(data / "STS-B", tmp_path / folder, "--max-epoch", epochs, *options))
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert_same_weights(one, other)
    assert any("task_head.pair_pooling." in key for key in one) == (pooling == "pair")


def test_other_rates_for_matrices_and_for_every_layer(data: Path, tmp_path: Path) -> None:
    """The embeddings are frozen, the matrices of the head and of the layers learn by Muon, each layer's at half the
    rate of what is above it.
    """
    choices = ["--optimizer", "hmtl_muon", "--layer-decay", "0.5", "--freeze-up-to", "0"]
    for updates in ("1", "4"):
        train(arguments(data / "SST-2", tmp_path, "--max-update", updates, *choices))
    state = torch.load(tmp_path / "checkpoint_last.pt", weights_only=True)["last_optimizer_state"]
    rates = [group["lr"] for group in state["param_groups"] if "momentum" in group]
    assert rates == pytest.approx([0.02, 0.02 * 0.5, 0.02 * 0.5**2])


def test_a_head_below_the_top_leaves_what_is_above_alone(data: Path, tmp_path: Path) -> None:
    for updates in ("1", "6"):
        options = ["--max-update", updates, "--head-layer", "1", "--weight-decay", "0.1"]
        train(arguments(data / "STS-B", tmp_path / updates, *options))
    early, late = weights(tmp_path / "1"), weights(tmp_path / "6")
    same = {key for key in early if torch.equal(early[key], late[key])}
    layers = {key.split(".")[2] for key in same if key.startswith("encoder.layers.")}
    assert layers == {"1"}
    assert {key for key in early if key.startswith("encoder.layers.1.")} <= same
    assert not any(key.startswith("task_head.") for key in same)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["SST-2", "STS-B"])
def test_two_processes_measure_what_one_does(data: Path, tmp_path: Path, task: str) -> None:
    """31 and 101 rows do not share out evenly: some batch is shown twice and must be counted once."""
    train(arguments(data / task, tmp_path, "--max-update", "8"))
    options = ["--max-update", "8", "--restore-file", str(tmp_path / "checkpoint_last.pt"), "--lr", "0"]
    found = []
    for processes in (1, 2):
        command = arguments(
            data / task, tmp_path / str(processes), *options, "--max-update", "9", "--log-format", "json"
        )
        command += ["--batch-size-valid", "7", "--reset-optimizer", "--reset-dataloader", "--reset-meters"]
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        result = run([sys.executable, *(launcher if processes == 2 else []), "-m", "fairseq_cli.train", *command])
        assert result.returncode == 0, result.stderr[-3000:]
        lines = re.findall(r"\{.*valid_score.*\}", result.stdout + result.stderr)
        found.append({key: float(value) for key, value in json.loads(lines[-1]).items() if key.startswith("valid_")})
    metrics = ["valid_score", *(f"valid_{name}" for name in find_task(task).metrics)]
    assert [found[0][name] for name in metrics] == [found[1][name] for name in metrics]
    assert np.isfinite(found[0]["valid_score"])


def test_a_fine_tuned_checkpoint_is_no_pre_trained_one_but_has_its_vocabulary(data: Path, tmp_path: Path) -> None:
    train(arguments(data / "STS-B", tmp_path, "--max-update", "1"))
    with pytest.raises(UserError, match="was fine-tuned on STS-B: give the pre-training checkpoint"):
        _ = load_checkpoint(tmp_path).hierarchy
    dictionary, tokenizer = load_vocabulary(tmp_path)
    assert len(dictionary) == len(tokenizer)


def refusal(args: list[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        train(args)
    message = str(caught.value.code)
    assert message.startswith("error: ")
    assert "\n" not in message
    return message


def test_what_cannot_work_is_refused(data: Path, tmp_path: Path) -> None:
    assert "holds no glue.json: give the folder of a task" in refusal(arguments(data, tmp_path))
    sst = arguments(data / "SST-2", tmp_path, "--max-update", "1")
    assert "--head-layer 3: use 1 to 2, or -1 to -2" in refusal([*sst, "--head-layer", "3"])
    assert "--head-pooling pair: is for pairs of sentences, SST-2 has single ones: use mean, cls, max" in refusal(
        [*sst, "--head-pooling", "pair"]
    )
    assert "--tokens-per-sample 128 is more than the model's --max-positions 64" in refusal(
        [*sst, "--tokens-per-sample", "128"]
    )
    assert "has no split 'valid_mm', only train, valid" in refusal([*sst, "--valid-subset", "valid_mm"])


def test_damaged_data_is_named(data: Path, tmp_path: Path) -> None:
    """Bits that no size tells: a label, a token, an offset, a score, a key of the manifest."""

    def refused(task: str, file: str, change: Callable[[bytes], bytes]) -> str:
        folder = tmp_path / task
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(data / task, folder)
        (folder / file).write_bytes(change((folder / file).read_bytes()))
        return error_of(arguments(folder, tmp_path / "run", "--max-update", "1"))

    def flip(place: int, bit: int) -> Callable[[bytes], bytes]:
        return lambda content: content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]

    assert "label/train.bin: holds labels that SST-2 has not" in refused("SST-2", "label/train.bin", flip(0, 6))
    assert "input0/train.bin: token id" in refused("SST-2", "input0/train.bin", flip(1, 7))
    assert "input0/train.idx: sizes and offsets disagree" in refused("SST-2", "input0/train.idx", flip(-20, 2))
    assert "label/train.label: missing or damaged" in refused("STS-B", "label/train.label", flip(0, 6))
    without = refused("STS-B", "label/train.label", lambda content: content[content.index(b"\n") + 1 :])
    assert "texts and labels of 'train' have 59, 60 rows" in without
    message = refused("SST-2", "glue.json", lambda content: content.replace(b'"rows"', b'"row"'))
    assert "glue.json: damaged or of another version ('splits.train' lacks 'rows')" in message
