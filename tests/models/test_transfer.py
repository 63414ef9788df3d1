import pytest
import torch

from hmtl_plugin.models.initialisation import generator_for
from hmtl_plugin.models.sequences import Sequences
from hmtl_plugin.models.transfer import OPERATORS, Rows, another_sample, shape_source

H, C = 16, 3
TOKENS_BT = torch.tensor([[0, 5, 6, 2, 7, 2], [0, 8, 2, 1, 1, 1]])
POSITIONS_M = torch.tensor([1, 4, 7])


def operator(name):
    return OPERATORS[name](H, C, generator_for(1, name))


def source(name, *rows):
    return torch.rand(*rows, C).softmax(-1) if name == "label" else torch.randn(*rows, H)


def apply(op, h, z, scope, rows):
    z, expand = shape_source(z, scope, rows, Sequences(TOKENS_BT))
    return op(h, z, expand)


def learned(op):
    """The operator with weights as after training: every edge has an effect."""
    with torch.no_grad():
        for parameter in op.parameters():
            parameter.normal_()
    return op


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("scope", ["token", "sentence"])
def test_identity_at_initialisation(name, scope):
    shape = (2, 6) if scope == "token" else (2,)
    for rows, h in [
        (Rows("tokens"), torch.randn(2, 6, H)),
        (Rows("sparse", POSITIONS_M), torch.randn(3, H)),
        (Rows("sentence"), torch.randn(2, H)),
    ]:
        assert torch.equal(apply(operator(name), h, source(name, *shape), scope, rows), h)


@pytest.mark.parametrize("name", OPERATORS)
def test_every_weight_can_leave_the_identity(name):
    """At the start only the zero matrix learns; with it moved, all weights and both inputs do."""
    op, h, z = operator(name), torch.randn(2, 6, H), source(name, 2, 6)
    apply(op, h, z, "token", Rows("tokens")).square().sum().backward()
    assert op.last().weight.grad.abs().sum() > 0
    torch.nn.init.normal_(op.last().weight)
    op.zero_grad()
    z.requires_grad_()
    apply(op, h, z, "token", Rows("tokens")).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in op.parameters())
    assert z.grad.abs().sum() > 0


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("scope", ["token", "sentence"])
def test_sparse_rows_equal_the_dense_ones(name, scope):
    op, h = learned(operator(name)), torch.randn(2, 6, H)
    z = source(name, *((2, 6) if scope == "token" else (2,)))
    dense = apply(op, h, z, scope, Rows("tokens")).flatten(0, 1)[POSITIONS_M]
    sparse = apply(op, h.flatten(0, 1)[POSITIONS_M], z, scope, Rows("sparse", POSITIONS_M))
    torch.testing.assert_close(sparse, dense)


def test_a_sentence_reaches_the_tokens_of_its_own_sample_only():
    op, h, z = learned(operator("add")), torch.zeros(2, 6, H), torch.zeros(2, H)
    z[1] = 1
    result = apply(op, h, z, "sentence", Rows("tokens"))
    assert result[0].abs().sum() == 0
    assert (result[1].abs().sum(-1) > 0).all()
    sparse = apply(op, torch.zeros(3, H), z, "sentence", Rows("sparse", POSITIONS_M))
    assert (sparse.abs().sum(-1) > 0).tolist() == [False, False, True]


def test_tokens_reach_a_sentence_as_the_mean_of_its_words():
    z = torch.randn(2, 6, H)
    pooled, _ = shape_source(z, "token", Rows("sentence"), Sequences(TOKENS_BT))
    torch.testing.assert_close(pooled[0], (z[0, 1] + z[0, 2] + z[0, 4]) / 3)
    torch.testing.assert_close(pooled[1], z[1, 1])
    empty = Sequences(torch.tensor([[0, 2, 1, 1, 1, 1]]))
    nothing, _ = shape_source(z[:1], "token", Rows("sentence"), empty)
    assert nothing.abs().sum() == 0


def test_concat_is_a_projection_of_both():
    op, h, z = learned(operator("concat")), torch.randn(2, 6, H), torch.randn(2, 6, H)
    expected = h + op.projection(torch.cat([h, z], -1))
    torch.testing.assert_close(apply(op, h, z, "token", Rows("tokens")), expected)


def test_gate_is_what_the_formula_says():
    op, h, z = learned(operator("gate")), torch.randn(2, 6, H), torch.randn(2, 6, H)
    expected = h + torch.sigmoid(op.gate(torch.cat([h, z], -1))) * op.projection(z)
    torch.testing.assert_close(apply(op, h, z, "token", Rows("tokens")), expected)


@pytest.mark.parametrize("batch", range(2, 6))
def test_another_sample_is_never_ones_own(batch):
    """Every sample gets one, and every sample is given to one."""
    z = torch.arange(batch)[:, None].expand(batch, H).float()
    given = another_sample(z)[:, 0].int().tolist()
    assert all(number != own for own, number in enumerate(given)) and sorted(given) == list(range(batch))
    tokens = torch.randn(batch, 6, H)
    assert torch.equal(another_sample(tokens), tokens[given])  # whole rows, tokens in their order


def test_a_batch_of_one_has_no_other_sample():
    assert torch.equal(another_sample(torch.randn(1, 6, H)), torch.zeros(1, 6, H))
