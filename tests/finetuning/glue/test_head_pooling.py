"""``--head-pooling`` from a pre-training checkpoint to a fine-tuned one, and in checkpoints of earlier versions."""

import json
from pathlib import Path

import pytest
import torch

from hmtl_plugin import HierarchicalBert
from hmtl_plugin.checkpoints import load_checkpoint
from hmtl_plugin.finetuning.pretrained import PretrainedCheckpoint
from hmtl_plugin.glue.tasks import find_task
from hmtl_plugin.models.finetuned_heads import default_pooling
from hmtl_plugin.models.sentence_pooling import PairPooling
from tests.finetuning.glue.runs import Trainer, finetune, records
from tests.training.runs import weights

FOLDER = Path(__file__).parents[2] / "checkpoints"
COMMIT = "cf41205"  # fine-tuned it on RTE with the mean, and computed the logits of its weights under each pooling
POOLING = "task_head.pair_pooling.compare.weight"


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_a_head_of_an_earlier_version_says_what_it_said(tmp_path: Path, pooling: str) -> None:
    state = torch.load(FOLDER / f"{COMMIT}-rte.pt", weights_only=True)
    assert state["cfg"]["task"]["head_pooling"] == "mean"
    state["cfg"]["task"]["head_pooling"] = pooling
    torch.save(state, tmp_path / "model.pt")
    expected = json.loads((FOLDER / f"{COMMIT}.json").read_text())
    model = load_checkpoint(tmp_path / "model.pt").model
    with torch.inference_mode():
        logits, _ = model(torch.tensor(expected["tokens"]), task_head=True)
    torch.testing.assert_close(logits, torch.tensor(expected["logits"][pooling]), atol=1e-5, rtol=0)


def test_a_grid_of_poolings(start: Path, glue: Path, trainer: Trainer, capsys: pytest.CaptureFixture[str]) -> None:
    """What is trained is in the checkpoint, in the record, and in what the model says."""
    grid = ["--grid", "epochs=2", "lr=1e-2", "head-pooling=cls,pair"]
    finetune(start, glue, "RTE", *grid, "--keep-models")
    found = {record["pooling"]: record for record in records(start)}
    assert set(found) == {"cls", "pair"}
    assert all(record["hyper"]["head-pooling"] == pooling for pooling, record in found.items())
    assert "head-pooling=" in capsys.readouterr().out
    out = start.parent / "glue" / "RTE"
    models = {name: next(out.glob(f"*head-pooling={name},autocast=none/seed1")) for name in found}
    assert POOLING not in weights(models["cls"], "model.pt")
    finetune(start, glue, "RTE", "--grid", "epochs=2", "lr=1e-30", "head-pooling=pair", "--keep-models")
    fresh = next(out.glob("*lr=1e-30*head-pooling=pair,autocast=none/seed1"))
    before, after = weights(fresh, "model.pt")[POOLING], weights(models["pair"], "model.pt")[POOLING]
    assert before.std() == pytest.approx(0.02, rel=0.1)
    moved = (after - before).abs()
    assert moved.median() > 1e-3  # Adam: not by weight decay alone
    hub = HierarchicalBert.from_pretrained(models["pair"])
    assert isinstance(hub.model.task_head.pair_pooling, PairPooling)  # type: ignore[union-attr]
    assert hub.model.task_head.pair_pooling.mask == hub.vocabulary.mask  # type: ignore[union-attr]
    one, other = hub.predict("RTE", "the cat", "birds fly"), hub.predict("RTE", "birds fly", "the cat")
    assert one.probabilities["entailment"] != pytest.approx(other.probabilities["entailment"], abs=1e-6)


def test_an_option_that_is_passed_on_is_recorded(start: Path, glue: Path, trainer: Trainer) -> None:
    finetune(start, glue, "RTE", "--grid", "epochs=1", "--head-pooling", "pair", "--head-layer", "1")
    (record,) = records(start)
    assert (record["pooling"], record["layer"]) == ("pair", 1)
    assert POOLING in weights(start.parent / "glue" / "RTE", "model.pt")
    finetune(start, glue, "RTE", "--grid", "epochs=1", "head-pooling=first")
    assert records(start)[-1]["pooling"] == records(start)[-1]["hyper"]["head-pooling"] == "cls"


@pytest.mark.parametrize(
    ("pre_training", "of_pairs", "of_one"),
    [("first", "cls", "cls"), ("mean", "mean", "mean"), ("pair", "pair", "mean"), ("aligned", "aligned", "mean")],
)
def test_a_head_reads_what_pre_training_read(
    pre_training: str, of_pairs: str, of_one: str, start: Path, glue: Path, trainer: Trainer, tmp_path: Path
) -> None:
    """Nothing has taught ``<s>`` of an encoder whose objectives did not read it: STS-B 25 in place of 79."""
    assert default_pooling(find_task("SST-2"), pre_training) == of_one
    state = torch.load(start, weights_only=True)
    state["cfg"]["model"]["sentence_pooling"] = pre_training
    begun = tmp_path / "begun" / "checkpoint_last.pt"
    begun.parent.mkdir()
    torch.save(state, begun)
    finetune(begun, glue, "RTE", "--grid", "epochs=1")
    (record,) = records(begun)
    assert record["pooling"] == of_pairs
    assert record["hyper"].get("head-pooling", "cls") == of_pairs  # BERT's is not named, as in earlier records
    finetune(begun, glue, "RTE", "--grid", "epochs=1", "--head-pooling", "max")
    finetune(begun, glue, "RTE", "--grid", "epochs=1", "head-pooling=cls")
    assert [record["pooling"] for record in records(begun)][1:] == ["max", "cls"]
    model = begun.parent / "glue" / "RTE" / "model.pt"
    assert PretrainedCheckpoint.find(begun).pooling == pre_training
    assert (
        PretrainedCheckpoint.find(model).pooling == load_checkpoint(model).config["task"]["head_pooling"]
    )  # its head's, not first


def test_a_run_that_compares_goes_on_where_it_was_stopped(start: Path, glue: Path, trainer: Trainer) -> None:
    command = ["RTE", "--grid", "epochs=2", "lr=1e-2", "head-pooling=pair"]
    finetune(start, glue, *command, "--out", start.parent / "whole")
    trainer.stop_after = 1
    with pytest.raises(KeyboardInterrupt):
        finetune(start, glue, *command)
    trainer.stop_after = 0
    finetune(start, glue, *command)
    assert trainer.first_epochs == [1, 1, 2]
    one, other = (weights(start.parent / name / "RTE", "model.pt") for name in ("whole", "glue"))
    assert POOLING in one and one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
