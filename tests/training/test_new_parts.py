"""What holds of a run with BERT's parts holds of one with none of them: repeated, resumed, in two processes, packed,
passed on.
"""

from pathlib import Path

import pytest
from fairseq import options as fairseq_options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from hmtl_plugin.checkpoints import load_checkpoint
from hmtl_plugin.errors import UserError
from hmtl_plugin.finetuning.pretrained import PretrainedCheckpoint
from hmtl_plugin.interop.exporting import make_plan
from hmtl_plugin.models.config import CARRIED, RECORDED, EncoderConfig
from tests.finetuning.conftest import pretrained, tokenizer  # noqa: F401  fixtures
from tests.finetuning.glue.conftest import glue, trainer  # noqa: F401  fixtures
from tests.finetuning.glue.runs import Trainer, finetune, records
from tests.training.runs import arguments, assert_same_weights, train, train_in_two_processes, weights
from tests.training.test_processes import NO_DROPOUT

PARTS = (
    "--positions rotary --norm rms --feed-forward gated --activation-fn relu2 --sentence-pooling aligned "
    "--bigram-head both --optimizer hmtl_muon --zero-init-outputs --local-init 2"
).split()
WHOLE = (*PARTS, "--max-update", "12")


def test_the_same_command_gives_the_same_weights(data: Path, whole: Path, tmp_path: Path) -> None:
    train(arguments(data, tmp_path, *WHOLE))
    assert_same_weights(weights(tmp_path), weights(whole))


def test_a_run_that_is_stopped_and_resumed_ends_as_the_whole_one(data: Path, whole: Path, tmp_path: Path) -> None:
    train(arguments(data, tmp_path, *PARTS, "--max-update", "6"))
    train(arguments(data, tmp_path, *WHOLE))
    assert_same_weights(weights(tmp_path), weights(whole))


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(data: Path, tmp_path: Path) -> None:
    options = (*PARTS, *NO_DROPOUT, "--max-update", "5", "--disable-validation")
    train(arguments(data, tmp_path / "one", *options, "--update-freq", "2"))
    train_in_two_processes(arguments(data, tmp_path / "two", *options), port=29553)
    assert_same_weights(weights(tmp_path / "two"), weights(tmp_path / "one"))


def test_packed_validation_is_that_of_padded_rows(data: Path, whole: Path, tmp_path: Path) -> None:
    """Both validate the weights of the whole run; and packed training learns."""
    found = []
    for name, extra in {"padded": [], "packed": ["--pack"]}.items():
        still = ("--lr", "1e-30", "--matrix-lr", "1e-30", "--max-update", "2")
        start = ("--finetune-from-model", str(whole / "checkpoint_last.pt"))
        lines = train(arguments(data, tmp_path / name, *PARTS, *still, *start, *extra))
        found.append([line for line in lines if "valid_loss" in line][-1])
    padded, packed = found
    names = [name for name in padded if name.endswith("_loss")]
    assert len(names) >= 4
    for name in names:
        assert packed[name] == pytest.approx(padded[name], abs=2e-4), name
    lines = train(arguments(data, tmp_path / "anew", *WHOLE, "--pack"))
    losses = [line["valid_mlm_loss"] for line in lines if "valid_mlm_loss" in line]
    assert len(losses) == 2 and losses[1] < losses[0]


def test_fine_tuning_is_told_of_the_same_encoder(whole: Path, tmp_path: Path) -> None:
    options = PretrainedCheckpoint.find(whole).options(64, False)
    parsed = fairseq_options.parse_args_and_arch(
        fairseq_options.get_training_parser(), [*arguments("data", tmp_path), *options]
    )
    wanted = load_checkpoint(whole).model.config
    built = EncoderConfig.of(convert_namespace_to_omegaconf(parsed).model, wanted.vocabulary)
    for option in EncoderConfig.options(RECORDED, CARRIED):
        assert getattr(built, option.name) == getattr(wanted, option.name) or option.name == "ffn", option.name
    assert (wanted.positions, wanted.norm, wanted.feed_forward) == ("rotary", "rms", "gated")
    longer = PretrainedCheckpoint.find(whole).options(100, False)  # no table: nothing has to be resized
    assert longer[longer.index("--max-positions") + 1] == "100"
    with pytest.raises(UserError, match=r"--resize-positions: the positions of .* are no table: leave it out"):
        PretrainedCheckpoint.find(whole).options(100, True)


def test_it_is_fine_tuned(
    pretrained: Path,  # noqa: F811
    glue: Path,  # noqa: F811
    trainer: Trainer,  # noqa: F811
    tmp_path: Path,
) -> None:
    options = (*PARTS, "--max-update", "2", "--max-tokens", "2000")
    train(arguments(pretrained.parents[1], tmp_path / "run", *options))
    start = tmp_path / "run" / "checkpoint_last.pt"
    finetune(start, glue, "RTE", "--grid", "lr=1e-3", "batch-size=16", "epochs=1", "--seeds", "1")
    assert len(trainer.runs) == 1 and len(records(start)) >= 1


def test_export_refuses_it_in_one_line(whole: Path) -> None:
    with pytest.raises(UserError, match="--positions rotary, --norm rms, --feed-forward gated") as caught:
        make_plan(load_checkpoint(whole))
    assert "--activation-fn relu2" in str(caught.value) and "\n" not in str(caught.value)
