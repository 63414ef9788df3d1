"""A placement that is learnt: what it reads, what it trains, and what becomes of its weights."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from hmtl_plugin.errors import UserError
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertModel
from hmtl_plugin.models.mix import Mix
from hmtl_plugin.models.sequences import Sequences
from hmtl_plugin.optim.adamw import adamw_groups
from hmtl_plugin.optim.marks import matrix_blocks
from tests.models.test_hierarchical_bert import TARGETS, TOKENS_BT, build, learned, loss_of


def mix_of(model: HierarchicalBertModel, name: str) -> Mix:
    mix = model.mixes[name]
    assert isinstance(mix, Mix)
    return mix


@pytest.mark.parametrize("pre_norm", [False, True])
def test_it_begins_as_the_mean_of_normalised_layers(pre_norm: bool) -> None:
    model = learned(build("nsp@mix,mlm@3", encoder_normalize_before=pre_norm)).eval()
    mix = mix_of(model, "nsp")
    with torch.no_grad():
        mix.weights.zero_()
        trunk: dict[int, torch.Tensor] = {}
        model.encoder(Sequences(TOKENS_BT), {3}, trunk=trunk, mixed={1, 2, 3})
        mean = sum(F.layer_norm(trunk[layer], (32,)) for layer in (1, 2, 3)) / 3
        head = model.heads["nsp"]
        expected = head.classify(head.transform(mean[:, 0]), model.encoder.embeddings.token.weight, None)["nsp"]
        torch.testing.assert_close(model(TOKENS_BT, TARGETS)[0]["nsp"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "hierarchy", ["mlm@mix,nsp@mix", "mlm@mix:2-3,nsp@2", "nsp@mix:1-2,mlm@3", "bigram_shift@mix,mlm@3"]
)
@pytest.mark.parametrize("pooling", ["first", "pair"])
def test_rows_that_are_not_needed_change_nothing(hierarchy: str, pooling: str) -> None:
    """The highest layer finishes only the rows that heads read; with a token objective there it finishes all."""
    few = learned(build(hierarchy, sentence_pooling=pooling)).eval()
    many = copy.deepcopy(few)
    many.plan.few_rows_at_top = False
    with torch.no_grad():
        for name, logits in few(TOKENS_BT, TARGETS)[0].items():
            torch.testing.assert_close(logits, many(TOKENS_BT, TARGETS)[0][name], atol=1e-5, rtol=1e-5)


def test_nothing_above_its_bound_learns() -> None:
    model = learned(build("nsp@mix:1-2,mlm@3", "nsp>mlm:concat", encoder_normalize_before=True))
    loss_of(model, "nsp").backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any(name.startswith("encoder.layers.1.") for name in moved)
    assert not any(name.startswith("encoder.layers.2.") for name in moved)
    assert "mixes.nsp.weights" in moved and model.mixes["nsp"].weights.grad.abs().sum() > 0
    alone = build("nsp@mix:1-2", encoder_normalize_before=True)
    frozen = {name for name, p in alone.named_parameters() if not p.requires_grad}
    assert all(name.startswith(("encoder.layers.2.", "encoder.output_norms.")) for name in frozen) and frozen


@pytest.mark.parametrize("operator", ["concat", "add", "gate", "label"])
def test_it_hands_on_upwards(operator: str) -> None:
    model = learned(build("nsp@mix:1-66.6%,mlm@2", f"nsp>mlm:{operator}"))
    assert mix_of(model, "nsp").layers == (1, 2)
    loss_of(model, "mlm").backward()
    assert model.mixes["nsp"].weights.grad.abs().sum() > 0
    with pytest.raises(UserError, match="runs downwards, from layer 3 to layer 2"):
        build("nsp@mix,mlm@2", f"nsp>mlm:{operator}")


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ("mix:", "cannot read 'nsp@mix:': write mix, or its bounds as in mix:1-8 or mix:1-66.6%"),
        ("mix:2", "cannot read"),
        ("mix:1-", "cannot read"),
        ("mix:3-2", "begins above its end"),
        ("mix:0-2", "names no layer"),
        ("mix:1-4", "names no layer of an encoder with 3"),
        ("mixed", "cannot read 'nsp@mixed'"),
    ],
)
def test_bounds_that_cannot_be(layer: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        build(f"nsp@{layer},mlm@3")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_weights_keep_fp32_and_are_not_decayed() -> None:
    model = build("nsp@mix,mlm@3").half()
    assert model.mixes["nsp"].weights.dtype == torch.float32 and model.heads["nsp"].out.weight.dtype == torch.float16
    model = build("nsp@mix,mlm@3")
    weights = model.mixes["nsp"].weights
    assert not matrix_blocks(weights)
    (group,) = (g for g in adamw_groups(list(model.parameters()), 1e-3, 0.1) if any(p is weights for p in g["params"]))
    assert group["weight_decay"] == 0


def test_weights_travel_and_other_bounds_begin_anew(caplog: pytest.LogCaptureFixture) -> None:
    model, same, other = (build(f"nsp@{layer},mlm@3") for layer in ("mix", "mix", "mix:2-3"))
    with torch.no_grad():
        model.mixes["nsp"].weights.copy_(torch.tensor([1.0, 2.0, 3.0]))
    for target in (same, other):
        state = copy.deepcopy(model.state_dict())
        target.upgrade_state_dict(state)
        target.load_state_dict(state)
    assert same.mixes["nsp"].weights.tolist() == [1, 2, 3] and other.mixes["nsp"].weights.tolist() == [0, 0]
    plain = build("nsp@3,mlm@3")
    state = copy.deepcopy(model.state_dict())
    plain.upgrade_state_dict(state)
    plain.load_state_dict(state)


def test_the_centre_of_gravity() -> None:
    mix = Mix((2, 3, 4)).requires_grad_(False)
    assert float(mix.centre()) == pytest.approx(3)
    mix.weights.copy_(torch.tensor([50.0, 0.0, 0.0]))
    assert float(mix.centre()) == pytest.approx(2) and mix.shares().sum() == pytest.approx(1)
    mix.alone = 2
    assert mix.shares().tolist() == [0, 0, 1] and float(mix.centre()) == 4


def test_packed_is_rows() -> None:
    model = learned(build("nsp@mix,bigram_shift@mix:1-2,mlm@mix")).eval()
    lengths = (TOKENS_BT != 1).sum(1)
    packed = torch.cat([row[:n] for row, n in zip(TOKENS_BT, lengths, strict=True)])
    starts = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]).int()
    place = torch.full(TOKENS_BT.shape, -1)
    place[TOKENS_BT != 1] = torch.arange(len(packed))
    targets = {
        name: {**target, "positions": target["positions"] if name == "nsp" else place.flatten()[target["positions"]]}
        for name, target in TARGETS.items()
    }
    with torch.no_grad():
        rows = model(TOKENS_BT, TARGETS)[0]
        flat = model(packed, targets, starts=starts, longest=int(lengths.max()))[0]
    for name in ("nsp", "mlm"):
        torch.testing.assert_close(rows[name], flat[name], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rows["bigram_shift"][TOKENS_BT != 1], flat["bigram_shift"], atol=1e-5, rtol=1e-5)


def test_gradients_are_measured_at_its_highest_layer() -> None:
    model = learned(build("nsp@mix:1-2,mlm@3"))
    _, extra = model(TOKENS_BT, TARGETS)
    assert set(extra["taps"]) == {"nsp", "mlm"}
    assert SimpleNamespace(**extra).taps["nsp"].shape == (*TOKENS_BT.shape, 32)
