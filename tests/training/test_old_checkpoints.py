"""Checkpoints from before the encoder had parts to choose from: they open, train on as they did, and are told apart."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from fairseq import options as fairseq_options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from hmtl_plugin.checkpoints import load_checkpoint
from hmtl_plugin.errors import UserError
from hmtl_plugin.finetuning.pretrained import PretrainedCheckpoint
from hmtl_plugin.hub import HierarchicalBert
from hmtl_plugin.models import state
from hmtl_plugin.models.config import CARRIED, RECORDED, EncoderConfig
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertModel
from tests.models.test_hierarchical_bert import build
from tests.training.runs import arguments, error_of, make_data, train

FOLDER = Path(__file__).parents[1] / "checkpoints"
COMMIT = "2dc1455"  # wrote them, at update 12
OPTIONS = {
    "pre": "--encoder-normalize-before --init-std 0.06 --activation-fn gelu_tanh "
    "--hierarchy bigram_shift@1,nsp@1,mlm@2 --transfer nsp>mlm:concat".split(),
    "post": ["--hierarchy", "nsp@-1,mlm@-1", "--transfer", ""],
}
SHARED = (
    "--encoder-layers 2 --encoder-embed-dim 16 --encoder-attention-heads 2 --max-positions 48 "
    "--dropout 0.1 --mask-prob 0.2"
).split()
PART_OPTIONS = ("--positions", "--rotary-base", "--norm", "--feed-forward", "--zero-init-outputs")
PART_OPTIONS += ("--sentence-pooling", "--bigram-head", "--local-init")


def file_of(kind: str) -> Path:
    return FOLDER / f"{COMMIT}-{kind}.pt"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


def going_on(kind: str, data: Path, save_dir: Path, *extra: str) -> list[str]:
    """The command that trains an old checkpoint on to update 24."""
    save_dir.mkdir(exist_ok=True)
    shutil.copy(file_of(kind), save_dir / "checkpoint_last.pt")
    return arguments(data, save_dir, *SHARED, *OPTIONS[kind], "--max-update", "24", *extra)


@pytest.mark.parametrize("kind", OPTIONS)
def test_it_opens(kind: str) -> None:
    loaded = load_checkpoint(file_of(kind))
    saved = torch.load(file_of(kind), weights_only=True)["model"]
    ours = loaded.model.state_dict()
    assert all(torch.equal(value.float(), ours[key].float()) for key, value in saved.items() if "version" not in key)
    assert loaded.model.config.normalize_before == (kind == "pre")
    parts = loaded.model.config
    assert (parts.positions, parts.norm, parts.feed_forward) == ("learned", "layer", "plain")
    assert loaded.model.sentence_pooling == "first" and not loaded.model.poolings
    tokens_BT = torch.tensor([[0, 9, 8, 2, 7, 2], [0, 9, 2, 8, 6, 2]])
    assert HierarchicalBert.from_pretrained(file_of(kind)).extract_features(tokens_BT).isfinite().all()


@pytest.mark.parametrize("kind", OPTIONS)
def test_it_trains_on_as_it_would_have(kind: str, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = train(going_on(kind, data, tmp_path))
    assert "(epoch 1 @ 12 updates)" in caplog.text  # it went on, not anew
    last = [line for line in lines if "valid_loss" in line][-1]
    expected = json.loads((FOLDER / f"{COMMIT}.json").read_text())[kind]
    assert {name: last[name] for name in expected} == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("kind", OPTIONS)
def test_fine_tuning_is_told_of_the_same_encoder(kind: str, tmp_path: Path) -> None:
    start = PretrainedCheckpoint.find(file_of(kind))
    options = start.options(48, False)
    assert not set(PART_OPTIONS) & set(options)
    args = [*arguments("data", tmp_path), *options]
    parsed = fairseq_options.parse_args_and_arch(fairseq_options.get_training_parser(), args)
    task = SimpleNamespace(source_dictionary=range(53))
    built = HierarchicalBertModel.build_model(convert_namespace_to_omegaconf(parsed).model, task).config
    wanted = load_checkpoint(file_of(kind)).model.config
    for option in EncoderConfig.options(RECORDED, CARRIED):
        assert getattr(built, option.name) == getattr(wanted, option.name), option.name


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize(
    ("given", "advice"),
    [
        (("--positions", "rotary"), "give --positions learned"),
        (("--norm", "rms"), "give --norm layer"),
        (("--feed-forward", "gated"), "give --feed-forward plain"),
        (("--rotary-base", "500"), "give --rotary-base 10000.0"),
    ],
)
def test_other_parts_are_refused_by_name(
    kind: str, given: tuple[str, str], advice: str, data: Path, tmp_path: Path
) -> None:
    assert error_of(going_on(kind, data, tmp_path, *given)).endswith(advice)


def test_a_newer_record_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    saved = model.state_dict()
    monkeypatch.setattr(state, "_VERSION", state._VERSION + 1)
    saved[state.RECORD_KEY] = state.encode_record(model.config, model.objective_names)
    monkeypatch.undo()
    with pytest.raises(UserError, match="written by a newer version"):
        build().load_state_dict(saved)
