from dataclasses import replace

import pytest
import torch

from hmtl_plugin import precision
from hmtl_plugin.errors import UserError
from hmtl_plugin.models.config import EncoderConfig
from hmtl_plugin.models.cpu import add_dropout, cpu_keep_mask, dropout
from hmtl_plugin.models.encoder import Encoder, SelfAttention, _attend_packed
from hmtl_plugin.models.parts import ACTIVATIONS
from hmtl_plugin.models.sequences import Packing, Sequences, attention_mask

CONFIG = EncoderConfig(vocabulary=50, hidden=32, layers=3, heads=2, ffn=64, max_positions=16)
# rows of 6, 4 and 8 tokens
TOKENS_BT = torch.tensor([[0, 9, 8, 2, 7, 2, 1, 1], [0, 9, 8, 2, 1, 1, 1, 1], [0, 9, 2, 6, 5, 7, 8, 2]])


def build(seed=1, **changes):
    return Encoder(replace(CONFIG, **changes), seed)


def run(encoder, tokens_BT, layers=(3,), **options):
    with torch.no_grad():
        return encoder.eval()(tokens_BT, layers, **options)


def test_segments_count_the_ends_strictly_before():
    expected = [[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1]]
    assert Sequences(TOKENS_BT).segments().tolist() == expected


@pytest.mark.parametrize("pre_norm", [False, True])
def test_padding_changes_nothing(pre_norm):
    encoder = build(normalize_before=pre_norm)
    padded = run(encoder, TOKENS_BT, range(4))
    for row, length in enumerate((6, 4, 8)):
        alone = run(encoder, TOKENS_BT[row : row + 1, :length], range(4), padded=False)
        for layer in range(4):
            torch.testing.assert_close(padded[layer][row, :length], alone[layer][0], atol=1e-5, rtol=0)


def test_what_stands_at_padding_does_not_matter():
    encoder = build()
    before = run(encoder, TOKENS_BT)[3]
    with torch.no_grad():
        encoder.embeddings.token.weight[1] += 10
    after = run(encoder, TOKENS_BT)[3]
    torch.testing.assert_close(before[1, :4], after[1, :4], atol=1e-6, rtol=0)


def test_attention_in_training_is_that_of_evaluation():
    """The path with dropout is our own; with next to no dropout it must agree with torch's kernel."""
    torch.manual_seed(0)  # of some draws, fp32's rounding shows through attention as sharp as this
    encoder = build(dropout=0.0, attention_dropout=1e-6)
    for layer in encoder.layers:
        torch.nn.init.normal_(layer.attention.qkv.weight)  # far from uniform attention
    trained = encoder.train()(TOKENS_BT, (3,))[3]
    keep = TOKENS_BT.ne(1)
    torch.testing.assert_close(trained[keep], run(encoder, TOKENS_BT)[3][keep], atol=1e-3, rtol=0)


def test_a_row_of_padding_gives_finite_gradients():
    for attention_dropout in (0.0, 0.1):
        encoder = build(attention_dropout=attention_dropout).train()
        tokens_BT = torch.cat([TOKENS_BT, torch.ones(1, 8, dtype=torch.long)])
        encoder(tokens_BT, (3,))[3].square().sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in encoder.parameters())


def test_only_the_layers_needed_are_run():
    encoder = build()
    encoder.layers[2].register_forward_hook(lambda *_: pytest.fail("layer 3 ran"))
    assert list(run(encoder, TOKENS_BT, (0, 2))) == [0, 2]


def test_few_rows_at_the_top_equal_all_rows():
    rows = torch.tensor([0, 9, 17, 23])
    for pre_norm in (False, True):
        encoder = build(normalize_before=pre_norm)
        states = run(encoder, TOKENS_BT, (2, 3), top_rows_R=rows)
        dense = run(encoder, TOKENS_BT, (2, 3))
        torch.testing.assert_close(states[3], dense[3].flatten(0, 1)[rows])
        torch.testing.assert_close(states[2], dense[2])


def test_a_pre_norm_tap_sees_a_normalised_state_and_changes_nothing_above():
    encoder = build(normalize_before=True)
    states = run(encoder, TOKENS_BT, (1, 2, 3))
    for state in states.values():
        torch.testing.assert_close(state.mean(-1), torch.zeros(3, 8), atol=1e-5, rtol=0)
        torch.testing.assert_close(state.std(-1, correction=0), torch.ones(3, 8), atol=1e-3, rtol=0)
    assert torch.equal(run(encoder, TOKENS_BT, (3,))[3], states[3])


def test_initial_matrices_have_the_standard_deviation_asked_for():
    for std in (0.02, 0.06):
        weights = build(init_std=std, hidden=64, ffn=256, vocabulary=1000).state_dict()
        matrices = [value for value in weights.values() if value.ndim == 2 and value.numel() > 4000]
        assert len(matrices) > 3
        for matrix in matrices:
            assert matrix.std().item() == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize("choice", ["none", "bf16"])
@pytest.mark.parametrize("native", [True, False])
def test_checkpointing_gives_the_same_gradients(monkeypatch, choice, native):
    """Also where bfloat16 is emulated, which ends before the layers are computed again."""
    monkeypatch.setattr(precision, "computes_in_bf16", lambda device: native)
    gradients = []
    for checkpoint_activations in (False, True):
        torch.manual_seed(3)
        encoder = build(checkpoint_activations=checkpoint_activations).train()
        with precision.autocast(choice, "cpu"):
            loss = encoder(TOKENS_BT, (3,))[3].float().square().sum()
        loss.backward()
        gradients.append([p.grad for p in encoder.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    first = build(seed=1).state_dict()
    state = torch.get_rng_state()
    again = build(seed=1).state_dict()
    assert torch.equal(state, torch.get_rng_state())  # no draw from the global generator
    other = build(seed=2).state_dict()
    deeper = build(seed=1, layers=4).state_dict()
    assert all(torch.equal(value, again[key]) and torch.equal(value, deeper[key]) for key, value in first.items())
    key = "layers.1.fc1.weight"
    assert not torch.equal(first[key], other[key])
    assert not torch.equal(first[key], first["layers.0.fc1.weight"])
    assert first[key].std() == pytest.approx(0.02, rel=0.1)


def test_a_long_sequence_is_refused_with_the_mend():
    with pytest.raises(UserError, match=r"17 tokens .* 16 positions.*--max-positions 17 --resize-positions"):
        run(build(), torch.full((1, 17), 5))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    assert run(build(activation_fn=name), TOKENS_BT)[3].isfinite().all()


def test_half_precision_runs():
    state = run(build().to(torch.bfloat16), TOKENS_BT)[3]
    assert state.dtype == torch.bfloat16
    assert state.isfinite().all()


@pytest.mark.parametrize("p", [0.1, 0.5, 1e-6])
def test_dropout_keeps_share_and_mean(p):
    torch.manual_seed(0)
    x = torch.ones(1_000_003)
    result = dropout(x, p, training=True)
    assert (result == 0).float().mean() == pytest.approx(max(p, 1 / 65536), abs=2e-3)
    assert result.mean() == pytest.approx(1, abs=3e-3)
    assert set(result.unique().tolist()) <= {0.0, result.max().item()}


def test_dropout_is_a_function_of_the_global_generator():
    x = torch.randn(4, 5, 7)
    torch.manual_seed(3)
    first, second = dropout(x, 0.5, True), dropout(x, 0.5, True)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.5, True), first)
    assert not torch.equal(first, second)
    assert dropout(x, 0.5, training=False) is x


def test_dropout_with_residual_and_gradient():
    x, residual = torch.randn(30, 7, requires_grad=True), torch.randn(30, 7)
    torch.manual_seed(3)
    mask, scale = cpu_keep_mask(x, 0.3)
    torch.manual_seed(3)
    result = add_dropout(residual, x, 0.3, True)
    torch.testing.assert_close(result, residual + x * mask * scale)
    result.sum().backward()
    torch.testing.assert_close(x.grad, mask * scale)
    assert add_dropout(residual, x.bfloat16(), 0.3, True).dtype == torch.float32
    assert dropout(x.detach(), 1.0, True).abs().sum() == 0


def test_dropout_of_neighbours_is_independent():
    """16-bit pieces of one draw decide four neighbours; no pair of them may be correlated."""
    torch.manual_seed(0)
    keep, _ = cpu_keep_mask(torch.empty(400_000), 0.5)
    lanes = keep.view(-1, 4) - 0.5
    assert (lanes.T @ lanes / len(lanes) * 4 - torch.eye(4)).abs().max() < 0.015


def test_attention_in_bf16_on_cpu_is_exact_but_for_rounding_what_it_is_given():
    """Output and gradients within bfloat16's own rounding (2**-8 at most) of fp32 on the same values."""
    generator = torch.Generator().manual_seed(0)
    qkv_BT3 = (3 * torch.randn(2, 64, 3 * 32, generator=generator)).bfloat16()  # sharp attention
    keep_BT = torch.arange(64) < torch.tensor([[64], [50]])
    attention = SelfAttention(32, 2, 0.0)

    def run(values: torch.Tensor) -> list[torch.Tensor]:
        values = values.clone().requires_grad_()
        attention.qkv = torch.nn.Identity()
        context = attention.context(values, attention_mask(keep_BT))
        context.float().square().sum().backward()
        return [context.detach().float(), values.grad.float()]

    for found, expected in zip(run(qkv_BT3), run(qkv_BT3.float()), strict=True):
        assert (found - expected).norm() < 2**-8 * expected.norm()


def test_the_packed_kernel_takes_what_it_is_given():
    """On a GPU alone it computes; here its shapes and that it has a gradient are checked, on tensors without data."""
    starts, number_N = (
        torch.empty(6, dtype=torch.int32, device="meta"),
        torch.empty(100, dtype=torch.long, device="meta"),
    )
    qkv_N3AD = torch.empty(100, 3, 4, 64, device="meta", dtype=torch.bfloat16, requires_grad=True)
    context_NH = _attend_packed(qkv_N3AD, Packing(starts, number_N, number_N, number_N, 30), 0.1)
    assert context_NH.shape == (100, 256)
    assert context_NH.dtype == torch.bfloat16
    context_NH.sum().backward()
    assert qkv_N3AD.grad.shape == qkv_N3AD.shape
