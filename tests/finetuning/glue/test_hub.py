"""Heads of GLUE tasks and of pre-training through the hub interface, against the predictions of the same model."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq import hub_utils

from hmtl_plugin import HierarchicalBert
from hmtl_plugin.checkpoints import save_for_use
from hmtl_plugin.errors import UserError
from hmtl_plugin.fairseq_hub import from_hub_utils
from hmtl_plugin.finetuning.experiment import Settings
from hmtl_plugin.finetuning.glue import GlueExperiment
from hmtl_plugin.finetuning.pretrained import PretrainedCheckpoint
from hmtl_plugin.glue.prepare import prepare_glue, read_glue_manifest
from hmtl_plugin.glue.tasks import find_task
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertModel
from hmtl_plugin.tokenizers.base import Tokenizer
from tests.finetuning.conftest import WORDS
from tests.training.runs import PLUGIN, train

TINY = (
    "--arch hmtl_bert --encoder-layers 2 --encoder-embed-dim 32 --encoder-attention-heads 2 --max-positions 64 "
    "--init-std 0.2"
).split()
TOKENS = 16  # of a row: longer ones are cut
TASKS = {
    "SST-2": ["sentence", "label"],
    "RTE": ["sentence1", "sentence2", "label"],
    "STS-B": ["sentence1", "sentence2", "score"],
}
POOLING = {"SST-2": "cls", "RTE": "mean", "STS-B": "pair"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, pretrained: Path) -> Path:
    """For each of three tasks ``TASK/model.pt``, fine-tuned for a few updates, with its ``predictions``; ``glue`` is
    the data.
    """
    folder, random = tmp_path_factory.mktemp("hub"), np.random.default_rng(0)
    for task, header in TASKS.items():
        (folder / "glue" / task).mkdir(parents=True)
        for name, count in (("train", 40), ("dev", 35)):
            rows = [["index", *header]]
            for index in range(count):
                texts = [" ".join(random.choice(WORDS, random.integers(1, 20))) for _ in header[1:]]
                label = "birds" in texts[0].split()
                named = {"SST-2": str(int(label)), "RTE": f"{'not_' * label}entailment", "STS-B": str(index % 5)}
                rows.append([str(index), *texts, named[task]])
            lines = ["\t".join(row[task == "SST-2" :]) for row in rows]
            (folder / "glue" / task / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    tasks = [find_task(name) for name in TASKS]
    list(prepare_glue(tasks, folder / "glue", folder / "data", tokenizer.dictionary(), tokenizer, 1))
    start = PretrainedCheckpoint.find(pretrained)
    settings = Settings(start, "", folder / "results.jsonl", "", [1], autocast="none")
    for name in TASKS:
        manifest = read_glue_manifest(folder / "data" / name)
        assert manifest is not None
        experiment = GlueExperiment(folder / name, folder / "data" / name, manifest, TOKENS, False, settings)
        train(
            [
                *(str(folder / "data" / name), "--task", "glue", "--criterion", "glue", "--user-dir", PLUGIN, *TINY),
                *("--tokens-per-sample", str(TOKENS), "--save-dir", str(folder / name), "--no-epoch-checkpoints"),
                *"--optimizer hmtl_adamw --lr 3e-3 --lr-scheduler fixed --max-update 8 --batch-size 16".split(),
                *("--cpu", "--num-workers", "0", "--head-pooling", POOLING[name]),
            ]
        )
        save_for_use(folder / name / "checkpoint_last.pt", folder / name / "model.pt", {})
        experiment.finish(folder / name, folder / name / "model.pt")
    return folder


def columns(folder: Path, task: str) -> list[list[str]]:
    """The sentences of the validation set."""
    with (folder / "glue" / task / "dev.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [[row[name] for row in rows] for name in TASKS[task][:-1]]


@pytest.mark.parametrize("task", list(TASKS))
def test_what_a_head_says_are_the_predictions_of_its_run(folder: Path, task: str) -> None:
    texts = columns(folder, task)
    assert max(sum(len(row.split()) for row in rows) for rows in zip(*texts, strict=True)) > TOKENS
    found = HierarchicalBert.from_pretrained(folder / task).predict(task.lower(), *texts)
    logits_RC = torch.from_numpy(np.load(folder / task / "predictions" / "valid.npy"))
    assert len(found) == len(logits_RC)
    if task == "STS-B":
        assert [row.answer for row in found] == pytest.approx(logits_RC[:, 0].tolist(), abs=1e-4)
        assert all(row.probabilities == {} for row in found)
        assert logits_RC.std() > 1e-2  # rows are told apart
        return
    labels = {"SST-2": ["0", "1"], "RTE": ["entailment", "not_entailment"]}[task]
    shares_RC = torch.softmax(logits_RC, -1)
    for row, shares in zip(found, shares_RC.tolist(), strict=True):
        assert row.probabilities == pytest.approx(dict(zip(labels, shares, strict=True)), abs=1e-5)
        assert sum(row.probabilities.values()) == pytest.approx(1)
        assert row.answer == max(row.probabilities, key=lambda label: row.probabilities[label])
    assert shares_RC.std(0).max() > 1e-2


@pytest.mark.parametrize("task", list(TASKS))
def test_as_fairseqs_users_load_a_model(folder: Path, task: str) -> None:
    texts = columns(folder, task)
    expected = HierarchicalBert.from_pretrained(folder / task).predict(task, *texts)
    data = str(folder / "data" / task)
    for loaded in (
        HierarchicalBertModel.from_pretrained(str(folder / task)),
        HierarchicalBertModel.from_pretrained(str(folder / task), "checkpoint_last.pt", data),
        from_hub_utils(hub_utils.from_pretrained(str(folder / task), "model.pt", data)),
    ):
        assert loaded.predict(task, *texts) == expected
    shorter = HierarchicalBertModel.from_pretrained(str(folder / task), tokens_per_sample=TOKENS // 2)
    assert shorter.predict(task, *texts) != expected


@pytest.mark.parametrize("task", list(TASKS))
def test_one_text_as_in_a_list(folder: Path, task: str) -> None:
    hub = HierarchicalBert.from_pretrained(folder / task)
    texts = columns(folder, task)
    together = hub.predict(task, *texts)
    for number, row in enumerate(zip(*texts, strict=True)):
        alone = hub.predict(task, *row)
        assert not isinstance(alone, list)
        if alone.probabilities:
            assert alone.answer == together[number].answer
            assert alone.probabilities == pytest.approx(together[number].probabilities, abs=1e-5)
        else:
            assert isinstance(alone.answer, float)
            assert alone.answer == pytest.approx(together[number].answer, abs=1e-5)
    assert hub.predict(task, *([] for _ in texts)) == []


def test_a_head_that_compares_is_not_symmetric(folder: Path) -> None:
    hub, (first, second) = HierarchicalBert.from_pretrained(folder / "STS-B"), columns(folder, "STS-B")
    assert hub.checkpoint.config["task"]["head_pooling"] == "pair"
    there, back = hub.predict("STS-B", first, second), hub.predict("STS-B", second, first)
    assert sum(one.answer != pytest.approx(other.answer, abs=1e-3) for one, other in zip(there, back)) > len(there) / 2


def test_sentence_objectives_of_pre_training(pretrained: Path) -> None:
    hub = HierarchicalBert.from_pretrained(pretrained)
    first, second = ["a cat sat", "dogs sing while birds fly"], ["birds fly", "over old grey towns"]
    follows = hub.next_sentence(first, second)
    for number, row in enumerate(hub.predict("nsp", first, second)):
        assert row.probabilities == pytest.approx({"random": 1 - follows[number], "next": follows[number]}, abs=1e-6)
        assert row.answer == ("next" if follows[number] > 0.5 else "random")
    assert hub.predict("nsp", first[0], second[0]).answer == hub.predict("nsp", first, second)[0].answer


def test_what_a_head_cannot_say(folder: Path, pretrained: Path, tmp_path: Path) -> None:
    sst, rte, start = (
        HierarchicalBert.from_pretrained(path) for path in (folder / "SST-2", folder / "RTE", pretrained)
    )
    shutil.copy(folder / "SST-2" / "model.pt", tmp_path)
    for call, message in (
        (lambda: sst.predict("RTE", "a", "b"), "SST-2/model.pt: has the head of SST-2, not of RTE: give a checkpoint"),
        (lambda: start.predict("RTE", "a", "b"), "has no head of a GLUE task, not of RTE"),
        (lambda: sst.predict("SST-2", "a", "b"), "predict: SST-2 takes single sentences"),
        (lambda: rte.predict("RTE", "a"), "predict: RTE takes pairs"),
        (lambda: sst.predict("cats", "a"), "'cats' is no GLUE task"),
        (lambda: start.predict("sop", "a", "b"), "was not trained on sop"),
        (lambda: sst.predict("nsp", "a", "b"), "was fine-tuned on SST-2: give the pre-training checkpoint"),
        (lambda: sst.fill_mask("a <mask>"), "was fine-tuned on SST-2: give the pre-training checkpoint"),
        (lambda: sst.answer("a", "b"), "was not fine-tuned on SQuAD: run recipes/finetune_squad.sh first"),
    ):
        with pytest.raises(UserError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_sentence_objectives_take_pairs(pretrained: Path) -> None:
    with pytest.raises(UserError, match="pairs"):
        HierarchicalBert.from_pretrained(pretrained).predict("nsp", "a cat")


@pytest.mark.parametrize(("first", "second"), [(["a", "b"], ["c"]), ("a", ["b", "c"]), (["a", "b", "c"], ["d", "e"])])
def test_as_many_second_sentences_as_first_ones(folder: Path, first: list[str], second: list[str]) -> None:
    with pytest.raises(UserError, match="predict"):
        HierarchicalBert.from_pretrained(folder / "RTE").predict("RTE", first, second)
