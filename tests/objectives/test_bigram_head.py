"""What stands before bigram shift's scores of words, ``--bigram-head``."""

import pytest
import torch

from hmtl_plugin.errors import UserError
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertModel
from hmtl_plugin.objectives.bigram_shift import HEADS, READ_OUT
from tests.models.test_hierarchical_bert import TARGETS, TOKENS_BT, build, learned, loss_of

HIERARCHY = "bigram_shift@2,mlm@3"


def shift_model(head: str, granularity: str = "token", **options: object) -> HierarchicalBertModel:
    return learned(build(HIERARCHY, bigram_head=head, granularity=granularity, **options))


def test_a_linear_head_is_a_linear_function_of_its_layers_states() -> None:
    """So its mean over words can be read off the mean of the states, which a probe is given."""
    model = shift_model("linear", encoder_normalize_before=True).eval()
    with torch.no_grad():
        logits_BT2 = model(TOKENS_BT, TARGETS)[0]["bigram_shift"]
        states_BTH = model.encoder(TOKENS_BT, {2})[2]
        out = model.heads["bigram_shift"].out
        torch.testing.assert_close(logits_BT2.mean(1), out(states_BTH.mean(1)), atol=1e-5, rtol=1e-5)
    assert {key for key in model.state_dict() if key.startswith("heads.bigram_shift")} == {
        "heads.bigram_shift.out.weight",
        "heads.bigram_shift.out.bias",
    }


def test_a_hidden_layer_is_none() -> None:
    model = shift_model("hidden", encoder_normalize_before=True).eval()
    with torch.no_grad():
        logits_BT2 = model(TOKENS_BT, TARGETS)[0]["bigram_shift"]
        out = model.heads["bigram_shift"].out
        assert not torch.allclose(logits_BT2, out(model.encoder(TOKENS_BT, {2})[2]), atol=1e-3)


def test_a_linear_head_beside_a_hidden_one_scores_nothing_and_shapes_the_states() -> None:
    """Its loss is added, the counters, and so all that is logged, are of the hidden one alone."""
    one, two = (shift_model(head, encoder_normalize_before=True).eval() for head in ("hidden", "both"))
    state = one.state_dict()
    two.load_state_dict(state | {key: value for key, value in two.state_dict().items() if ".linear." in key})
    logits, _ = two(TOKENS_BT, TARGETS)
    torch.testing.assert_close(logits["bigram_shift"], one(TOKENS_BT, TARGETS)[0]["bigram_shift"])
    loss = two.objectives["bigram_shift"].loss
    whole = loss(logits, TARGETS, 6.0)
    scored = loss({"bigram_shift": logits["bigram_shift"]}, TARGETS, 6.0)
    read_out = loss({"bigram_shift": logits[READ_OUT]}, TARGETS, 6.0)
    torch.testing.assert_close(whole.scaled_sum, scored.scaled_sum + read_out.scaled_sum)
    assert whole.counters.keys() == scored.counters.keys()
    assert all(torch.equal(value, scored.counters[name]) for name, value in whole.counters.items())
    states_BTH = two.encoder(TOKENS_BT, {2})[2]
    torch.testing.assert_close(logits[READ_OUT], two.heads["bigram_shift"].linear(states_BTH))


@pytest.mark.parametrize("head", ["linear", "both"])
@pytest.mark.parametrize("granularity", ["token", "both"])
@pytest.mark.parametrize("operator", ["concat", "add", "gate", "label"])
def test_every_part_learns_and_hands_on(head: str, granularity: str, operator: str) -> None:
    model = learned(
        build(HIERARCHY, f"bigram_shift>mlm:{operator}", bigram_head=head, granularity=granularity, dropout=0.0)
    )
    (loss_of(model, "mlm") + loss_of(model, "bigram_shift")).backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if name.startswith(("heads", "transf"))}
    assert len(gradients) > 4
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients.values())


@pytest.mark.parametrize("mine", HEADS)
@pytest.mark.parametrize("theirs", HEADS)
def test_a_checkpoint_of_the_other_head_is_never_half_loaded(theirs: str, mine: str) -> None:
    """Its last layer would read states that it was not trained on."""
    state, model = shift_model(theirs).state_dict(), shift_model(mine)
    if theirs != mine:
        with pytest.raises(UserError, match=f"^the checkpoint was trained with --bigram-head {theirs}: give that$"):
            model.upgrade_state_dict(state)
        return
    model.upgrade_state_dict(state)
    model.load_state_dict(state)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("head", HEADS)
def test_a_checkpoint_without_bigram_shift_takes_either(head: str) -> None:
    state = learned(build("mlm@3")).state_dict()
    shift_model(head).upgrade_state_dict(state)
