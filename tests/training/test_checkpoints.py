"""What a training may not go on from, and what it begins with: another dictionary, optimizer or hierarchy; parts that
are missing.
"""

from pathlib import Path

import pytest
import torch

from hmtl_plugin.checkpoints import load_checkpoint, save_for_use
from hmtl_plugin.errors import UserError
from hmtl_plugin.evaluation.held_out import evaluate
from tests.training.runs import arguments, error_of, make_data, train


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many symbols in another order: no shape tells."""
    folder = make_data(tmp_path_factory.mktemp("other"), documents=40)
    lines = (folder / "dict.txt").read_text().splitlines()
    (folder / "dict.txt").write_text("\n".join(reversed(lines)) + "\n")
    return folder


@pytest.fixture(scope="module")
def begun(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    save_dir = tmp_path_factory.mktemp("begun")
    train(arguments(data, save_dir, "--max-update", "3"))
    return save_dir


def test_another_dictionary(data: Path, other: Path, begun: Path, tmp_path: Path) -> None:
    before = (begun / "checkpoint_last.pt").read_bytes()
    message = "the dictionary is not the one that the checkpoint was trained with"
    assert message in error_of(arguments(other, begun, "--max-update", "5"))
    start = ["--finetune-from-model", str(begun / "checkpoint_last.pt")]
    assert message in error_of(arguments(other, tmp_path / "new", "--max-update", "5", *start))
    shards = arguments(f"{data}:{other}", tmp_path / "shards", "--max-epoch", "2")
    assert f"{other}/dict.txt: is another dictionary" in error_of(shards)
    with pytest.raises(UserError, match=r"dict\.txt: is another dictionary"):
        evaluate(load_checkpoint(begun), other, samples=10)
    assert (begun / "checkpoint_last.pt").read_bytes() == before


def test_another_optimizer_or_hierarchy(data: Path, begun: Path, tmp_path: Path) -> None:
    adam = ["--optimizer", "adam", "--max-update", "5"]
    assert "was trained with the optimizer HmtlAdamW, this is FairseqAdam" in error_of(arguments(data, begun, *adam))
    edge = ["--transfer", "bigram_shift>mlm:concat", "--max-update", "5"]
    message = error_of(arguments(data, begun, *edge))
    assert "is of bigram_shift nsp mlm nsp>mlm:concat, this model has bigram_shift nsp mlm bigram_shift>mlm" in message
    # a head of equal shape: it would begin with the other's moments
    swapped = ["--hierarchy", "bigram_shift@1,sop@1,mlm@2", "--transfer", "sop>mlm:concat", "--max-update", "5"]
    assert "optimizer's state is of bigram_shift nsp mlm" in error_of(arguments(data, begun, *swapped))
    resets = "--reset-optimizer --reset-lr-scheduler --reset-dataloader --reset-meters".split()
    train(arguments(data, tmp_path, *swapped, *resets, "--restore-file", str(begun / "checkpoint_last.pt")))
    save_for_use(begun / "checkpoint_last.pt", tmp_path / "use.pt", {})  # holds no optimizer's state
    train(arguments(data, tmp_path / "use", *swapped, "--restore-file", str(tmp_path / "use.pt")))


def test_parts_that_are_missing_or_of_another_task(data: Path, tmp_path: Path) -> None:
    usual = arguments(data, tmp_path, "--max-update", "1")
    at = usual.index("--optimizer")
    assert "no --optimizer: give one" in error_of(usual[:at] + usual[at + 2 :])
    message = "--task hmtl_pretraining needs --criterion hmtl, not cross_entropy"
    assert message in error_of([*usual, "--criterion", "cross_entropy"])


def test_a_gradient_that_is_not_finite(data: Path, tmp_path: Path) -> None:
    message = error_of(arguments(data, tmp_path, "--max-update", "5", "--hierarchy", "mlm@2*1e30", "--transfer", ""))
    assert "gradients are Nan/Inf: lower --lr" in message


def test_options_of_the_resumed_run_hold(data: Path, tmp_path: Path) -> None:
    train(arguments(data, tmp_path, "--max-update", "2"))
    changed = ["--adam-betas", "(0.8, 0.7)", "--adam-eps", "1e-3", "--weight-decay", "0.5"]
    train(arguments(data, tmp_path, "--max-update", "3", *changed))

    def first_group() -> dict[str, object]:
        state = torch.load(tmp_path / "checkpoint_last.pt", weights_only=True)
        return dict(state["last_optimizer_state"]["param_groups"][0])

    group = first_group()
    assert (tuple(group["betas"]), group["eps"], group["weight_decay"]) == ((0.8, 0.7), 1e-3, 0.5)  # type: ignore[arg-type]
    train(arguments(data, tmp_path, "--max-update", "4", "--optimizer-overrides", "{'weight_decay': 0.25}"))
    assert first_group()["weight_decay"] == 0.25


def test_gradient_norms_reach_down_through_layers_that_normalise_before(data: Path, tmp_path: Path) -> None:
    options = ["--encoder-normalize-before", "--log-gradient-norms", "1", "--log-interval", "1", "--max-update", "2"]
    lines = train(arguments(data, tmp_path, *options))
    values = next(line for line in lines if "gnorm_mlm@1" in line)
    assert float(values["gnorm_mlm@1"]) > 0 and float(values["gnorm_mlm@2"]) > 0


def test_a_file_of_the_user_s_stays(data: Path, tmp_path: Path) -> None:
    """fairseq removes one of this name to see whether it can write there."""
    (tmp_path / "dummy").write_text("mine")
    train(arguments(data, tmp_path, "--max-update", "1", "--disable-validation"))
    assert (tmp_path / "dummy").read_text() == "mine"


@pytest.mark.parametrize("option", ["--dropout", "--attention-dropout", "--activation-dropout"])
def test_a_dropout_that_is_no_share(data: Path, tmp_path: Path, option: str) -> None:
    assert f"{option} 5: use a share from 0 to below 1" in error_of(arguments(data, tmp_path, option, "5"))
