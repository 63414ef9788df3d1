"""Control transfers ('~'): the target hears another sample's source through the same operator, or nothing."""

import pytest
import torch

from hmtl_plugin.models.transfer import OPERATORS
from tests.models.test_hierarchical_bert import TARGETS, TOKENS_BT, build, learned, loss_of, touched

PAIRS = [("nsp", "mlm"), ("bigram_shift", "sop"), ("sop", "bigram_shift"), ("bigram_shift", "mlm")]
"""Sentence to few tokens, tokens to sentence, sentence to all tokens, tokens to few tokens."""


def joined(source, target, edge):
    return learned(build(f"{source}@1,{target}@3", f"{source}>{target}:{edge}")).eval()


def handed_over(source, target, edge):
    """The operator's h and z."""
    model, calls = joined(source, target, edge), []
    (operator,) = model.transfers.values()
    operator.register_forward_pre_hook(lambda module, given: calls.append(given[:2]))
    with torch.no_grad():
        model(TOKENS_BT, TARGETS)
    return calls[0]


def test_weights_are_those_of_the_transfer_it_controls():
    """The same parameters from the same draws: the two differ by what flows only."""
    plain, permuted = (build("nsp@2,mlm@3", f"nsp>mlm:concat{mark}").state_dict() for mark in ("", "~"))
    assert plain.keys() == permuted.keys()
    assert all(torch.equal(plain[key], permuted[key]) for key in plain)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(("source", "target"), PAIRS[:3])
def test_z_is_the_one_of_the_sample_before(source, target, operator):
    h, z = handed_over(source, target, operator)
    same_h, other_z = handed_over(source, target, f"{operator}~")
    assert torch.equal(same_h, h) and not torch.allclose(other_z, z)
    torch.testing.assert_close(other_z, z.roll(1, 0))  # a mean of tokens: over the words of the sample they are of


def test_masked_words_hear_the_same_places_of_another_sample():
    _, z_MH = handed_over("bigram_shift", "mlm", "add~")
    model = joined("bigram_shift", "mlm", "add~")
    with torch.no_grad():
        z_BTH = model.heads["bigram_shift"].transform(model(TOKENS_BT, layer=1)[0])
    torch.testing.assert_close(z_MH, z_BTH.roll(1, 0).flatten(0, 1)[TARGETS["mlm"]["positions"]])


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_batch_of_one_hears_nothing(source, target, operator):
    """Whatever the source's head says, the target's answer is the same."""
    ends = {name: len(TOKENS_BT[0]) if name in ("mlm", "bigram_shift") else 1 for name in TARGETS}
    targets = {
        name: {key: value[target["positions"] < ends.get(name, 1)] for key, value in target.items()}
        for name, target in TARGETS.items()
    }
    differ = []
    for mark in ("", "~"):
        model = joined(source, target, operator + mark)
        with torch.no_grad():
            before = model(TOKENS_BT[:1], targets)[0][target]
            for parameter in model.heads[source].parameters():
                parameter.add_(torch.randn_like(parameter))
            differ.append(not torch.allclose(before, model(TOKENS_BT[:1], targets)[0][target]))
    assert differ == [True, False]


@pytest.mark.parametrize("operator", OPERATORS)
def test_gradient_flows_into_the_source_unless_it_is_stopped(operator):
    for mark, flows in (("~", True), ("!~", False)):
        model = joined("nsp", "mlm", operator + mark)
        loss_of(model, "mlm").backward()
        assert (touched(model.heads["nsp"].parameters()) > 0) == flows
        assert touched(model.transfers.parameters()) > 0
