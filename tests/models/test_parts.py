"""The parts that an encoder can be made of: positions, norms, feed-forward layers, activations, in any combination."""

import logging
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor, nn

from hmtl_plugin import precision
from hmtl_plugin.errors import UserError
from hmtl_plugin.models import parts
from hmtl_plugin.models.config import EncoderConfig, option_name
from hmtl_plugin.models.encoder import Encoder
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertConfig
from hmtl_plugin.models.parts import ACTIVATIONS, FEED_FORWARDS, RotaryPositions, rotated
from hmtl_plugin.models.sequences import Sequences
from tests.models.test_encoder import CONFIG, TOKENS_BT
from tests.models.test_hierarchical_bert import build as build_model

COMBINATIONS = [
    {"positions": "rotary"},
    {"positions": "rotary", "normalize_before": True},
    {"norm": "rms", "feed_forward": "gated"},
    {"norm": "rms", "activation_fn": "relu2", "normalize_before": True},
    {"positions": "rotary", "norm": "rms", "feed_forward": "gated", "activation_fn": "relu2"},
    {
        "positions": "rotary",
        "norm": "rms",
        "feed_forward": "gated",
        "activation_fn": "relu2",
        "normalize_before": True,
    },
]
combinations = pytest.mark.parametrize(
    "options", COMBINATIONS, ids=lambda options: "-".join(map(str, options.values()))
)


def build(seed: int = 1, **changes: object) -> Encoder:
    """An encoder whose weights are large enough for every part to show, biases and scales moved too."""
    encoder = Encoder(replace(CONFIG, init_std=0.2, **changes), seed)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return encoder


def run(encoder: Encoder, tokens: Tensor | Sequences, layers=(3,), **options) -> dict[int, Tensor]:
    with torch.no_grad():
        return encoder.eval()(tokens, layers, **options)


def table(length: int, width: int, base: float = 100.0) -> Tensor:
    positions = RotaryPositions(length, 2 * width, width, base)
    return positions.rotation(Sequences(torch.zeros(1, length).long()))


def test_a_product_depends_on_the_distance_alone() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 8).unbind(0)
    turned = [rotated(x.expand(20, 1, 1, 8), table(20, 8)).view(20, 8) for x in (q, k)]
    products = turned[0] @ turned[1].T
    for distance in range(-15, 16):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=0)
    assert products[0].std() > 0.1  # and on the distance it does depend


def test_turning_is_a_product_with_rotation_matrices() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 7, 2, 4, 6)
    found = rotated(x, table(7, 6, 50.0))
    for place in range(7):
        matrix = torch.zeros(6, 6, dtype=torch.float64)
        for pair in range(3):
            angle = torch.tensor(place / 50.0 ** (2 * pair / 6), dtype=torch.float64)
            block = [[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]]
            matrix[2 * pair : 2 * pair + 2, 2 * pair : 2 * pair + 2] = torch.tensor(block)
        torch.testing.assert_close(found[:, place], (x[:, place].double() @ matrix.T).float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_compiled_path_is_the_eager_one(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 5, 2, 3, 8).to(dtype), torch.randn(2, 5, 2, 3, 8)
    results = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        leaf = x.clone().requires_grad_()
        found = rotated(leaf, table(5, 8))
        (found * weight).sum().backward()
        assert found.dtype == torch.float32 and leaf.grad.dtype == dtype
        results.append((found.detach(), leaf.grad))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)


def test_angles_stay_exact_in_half_precision_models() -> None:
    sequences = Sequences(torch.zeros(1, 3000).long())
    before = build(positions="rotary").embeddings.position.rotation(sequences)
    model = build_model(positions="rotary").half()
    found = model.encoder.embeddings.position.rotation(sequences)
    assert found.dtype == torch.float32 and torch.equal(found, before)
    place, speed = torch.arange(3000).double(), 10000.0 ** (-2 / 16)
    torch.testing.assert_close(found[:, 1, 0], (place * speed).cos().float(), atol=1e-7, rtol=0)
    assert not [key for key in model.state_dict() if "position" in key]


def test_a_table_from_inference_serves_training() -> None:
    encoder = build(positions="rotary", dropout=0.0)
    with torch.inference_mode():
        encoder.eval()(TOKENS_BT, (3,))
    encoder.train()(TOKENS_BT, (3,))[3].square().sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.layers.parameters())


def test_rotary_positions_go_on_beyond_the_longest_and_say_so_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    encoder = build(positions="rotary")
    long_BT = torch.arange(5, 45)[None]
    states = [run(encoder, long_BT[:, :length])[3] for length in (16, 40, 30)]
    assert states[1].shape == (1, 40, 32) and states[1].isfinite().all()
    lines = [record.message for record in caplog.records if "longer than" in record.message]
    assert len(lines) == 1 and "sequences of 40 tokens are longer than the 16" in lines[0]
    # the same as if it had been built for them
    other = build(positions="rotary", max_positions=64)
    torch.testing.assert_close(run(other, long_BT)[3], states[1])
    with pytest.raises(UserError, match="40 tokens is longer than the model's 16 positions"):
        run(build(), long_BT)


@combinations
def test_padding_changes_nothing(options: dict[str, object]) -> None:
    encoder = build(**options)
    padded = run(encoder, TOKENS_BT, range(4))
    for row, length in enumerate((6, 4, 8)):
        alone = run(encoder, TOKENS_BT[row : row + 1, :length], range(4), padded=False)
        for layer in range(4):
            torch.testing.assert_close(padded[layer][row, :length], alone[layer][0], atol=1e-5, rtol=1e-5)


@combinations
def test_few_rows_at_the_top_are_those_of_all(options: dict[str, object]) -> None:
    rows = torch.tensor([0, 9, 17, 23])
    encoder = build(**options)
    few, dense = run(encoder, TOKENS_BT, (2, 3), top_rows_R=rows), run(encoder, TOKENS_BT, (2, 3))
    torch.testing.assert_close(few[3], dense[3].flatten(0, 1)[rows], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(few[2], dense[2])


@combinations
@pytest.mark.parametrize("choice", ["none", "bf16"])
def test_checkpointing_gives_the_same_gradients(options: dict[str, object], choice: str) -> None:
    gradients = []
    for checkpoint_activations in (False, True):
        encoder = build(checkpoint_activations=checkpoint_activations, **options).train()
        torch.manual_seed(3)
        with precision.autocast(choice, "cpu"):
            loss = encoder(TOKENS_BT, (3,))[3].float().pow(3).sum()
        loss.backward()
        gradients.append([p.grad for p in encoder.parameters() if p.grad is not None])
    assert len(gradients[0]) > 20
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@combinations
def test_packed_is_rows(options: dict[str, object]) -> None:
    """States and gradients."""
    keep_BT = TOKENS_BT.ne(1)
    starts = torch.tensor([0, 6, 10, 18], dtype=torch.int32)
    encoder = build(dropout=0.0, attention_dropout=0.0, **options).train()
    found = []
    for tokens in (Sequences(TOKENS_BT), Sequences.packed(TOKENS_BT[keep_BT], starts, 8)):
        encoder.zero_grad()
        state = encoder(tokens, (3,))[3]
        state = state if tokens.packing is not None else state[keep_BT]
        state.pow(3).sum().backward()
        found.append(
            {"state": state.detach()} | {n: p.grad for n, p in encoder.named_parameters() if p.grad is not None}
        )
    rows, packed = found
    for name, value in rows.items():
        scale = float(value.abs().max())
        torch.testing.assert_close(packed[name], value, atol=1e-5 * max(scale, 1), rtol=1e-4)


@combinations
def test_word_order_matters(options: dict[str, object]) -> None:
    """Without positions the state of <s> would not see which of two words stands first."""
    encoder = build(**options)
    swapped_BT = TOKENS_BT[2:, [0, 1, 2, 3, 5, 4, 6, 7]]
    before, after = run(encoder, TOKENS_BT[2:])[3][0, 0], run(encoder, swapped_BT)[3][0, 0]
    assert (before - after).abs().max() > 1e-3


def test_a_base_changes_how_far_words_turn() -> None:
    fast, slow = (run(build(positions="rotary", rotary_base=base), TOKENS_BT)[3] for base in (10.0, 10000.0))
    assert not torch.allclose(fast, slow, atol=1e-3)


def test_a_norm_of_another_class_starts_with_scales_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Scale(nn.Module):
        def __init__(self, hidden: int, eps: float) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(hidden).fill_(float("nan")))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight

    monkeypatch.setitem(parts.NORMS, "scale", Scale)
    encoder = Encoder(replace(CONFIG, norm="scale", normalize_before=True), 1)
    scales = [p for name, p in encoder.named_parameters() if "norm" in name]
    assert len(scales) == 1 + 3 * 2 + 3
    assert all(torch.equal(scale, torch.ones(32)) for scale in scales)


def test_outputs_start_at_zero_on_request() -> None:
    zero, plain = (
        Encoder(replace(CONFIG, zero_init_outputs=choice, normalize_before=True), 1) for choice in (True, False)
    )
    ours, theirs = zero.state_dict(), plain.state_dict()
    silent = [key for key in ours if key.endswith(("attention.out.weight", "fc2.weight"))]
    assert len(silent) == 6
    assert all(not ours[key].any() and theirs[key].any() for key in silent)
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items() if key not in silent)
    embedded, trunk = run(zero, TOKENS_BT, (0, 3), trunk=(found := {}))[0], found
    assert torch.equal(trunk[3], embedded)  # every block adds nothing


@pytest.mark.parametrize(("hidden", "heads", "base"), [(128, 2, 1e4), (96, 3, 1e4), (64, 1, 100.0), (32, 4, 1000.0)])
def test_attention_begins_at_the_token_before_or_after(hidden: int, heads: int, base: float) -> None:
    size, length, width = 2.0, 40, hidden // heads
    shape = replace(CONFIG, hidden=hidden, heads=heads, positions="rotary", rotary_base=base)
    encoder = Encoder(replace(shape, local_init=size), 1)
    speed = torch.tensor([base ** (-2 * pair / width) for pair in range(width // 2)])
    away = torch.arange(length) - torch.arange(length)[:, None]  # of a key from its query
    for layer in encoder.layers:
        qkv = layer.attention.qkv.bias.expand(length, -1).unflatten(-1, (3, heads, width))
        turned = rotated(qkv[:, :2], table(length, width, base))
        score = torch.einsum("qad,kad->aqk", turned[:, 0], turned[:, 1]) / width**0.5
        for head in range(heads):
            offset = 1 if head % 2 else -1
            expected = size**2 / width**0.5 * torch.cos((away[..., None] - offset) * speed).sum(-1)
            torch.testing.assert_close(score[head], expected, atol=1e-3, rtol=1e-3)
            inner = slice(1, -1)
            assert torch.equal(score[head].argmax(-1)[inner], torch.arange(length)[inner] + offset)
        assert not qkv[:, 2].any()
    plain = Encoder(shape, 1).state_dict()
    ours = {key for key, value in encoder.state_dict().items() if not torch.equal(value, plain[key])}
    assert ours == {key for key in plain if key.endswith("qkv.bias")}


def test_attention_of_learned_positions_begins_as_ever() -> None:
    local, plain = Encoder(replace(CONFIG, local_init=2.0), 1).state_dict(), Encoder(CONFIG, 1).state_dict()
    assert all(torch.equal(value, plain[key]) for key, value in local.items())


@pytest.mark.parametrize("size", [-1.0, 11.0, float("nan")])
def test_a_first_attention_that_cannot_be_is_named(size: float) -> None:
    with pytest.raises(UserError, match=r"--local-init .*: use a number from 0"):
        EncoderConfig.of(
            HierarchicalBertConfig(local_init=size, encoder_attention_heads=12, encoder_ffn_embed_dim=8), 100
        )


def test_every_option_is_one_of_fairseqs_with_the_same_default() -> None:
    theirs = {}
    for option in fields(HierarchicalBertConfig):
        assert option.name not in theirs
        theirs[option.name] = option
    for option in EncoderConfig.options():
        found = theirs[option_name(option)]
        assert found.default == option.metadata["given"], option.name
        assert option.metadata["given"] in (option.default, 0), option.name
        assert found.metadata["help"] == option.metadata["help"]
        assert found.metadata["choices"] is option.metadata["choices"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder_embed_dim": 30}, "heads are 15 wide: give --encoder-embed-dim and --encoder-attention-heads"),
        ({"rotary_base": 1.0}, "--rotary-base 1: use a number above 1"),
        ({"rotary_base": float("nan")}, "--rotary-base nan: use a number above 1"),
        ({"resize_positions": True}, "--resize-positions: rotary positions have no table: leave it out"),
    ],
)
def test_what_rotary_positions_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_model(positions="rotary", **options)
    assert "\n" not in str(caught.value)


def test_a_gated_feed_forward_multiplies_the_activation_of_one_half_by_the_other() -> None:
    inner, gated = torch.tensor([[-1.0, 2.0, 5.0, 3.0]]), FEED_FORWARDS["gated"]
    assert gated.combine(inner, ACTIVATIONS["relu2"]).tolist() == [[0.0, 12.0]]
    assert FEED_FORWARDS["plain"].combine(inner, ACTIVATIONS["relu2"]).tolist() == [[0.0, 4.0, 25.0, 9.0]]
