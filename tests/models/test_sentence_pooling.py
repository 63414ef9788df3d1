"""What objectives that ask about pairs of sentences read, ``--sentence-pooling``."""

import pytest
import torch
from torch import Tensor

from hmtl_plugin.errors import UserError
from hmtl_plugin.models.sentence_pooling import SENTENCE_POOLINGS, AlignedPooling
from hmtl_plugin.models.sequences import Sequences
from tests.models.test_hierarchical_bert import TARGETS, TOKENS_BT, VOCABULARY, build, learned, loss_of, touched

MASK = 4
WITH_WEIGHTS = ("pair", "aligned")
# a masked word in each segment; a second segment of nothing but <mask>; none at all
ROWS = torch.tensor(
    [[0, 9, 4, 8, 2, 7, 4, 6, 2, 1], [0, 9, 8, 7, 2, 4, 2, 1, 1, 1], [0, 9, 8, 2, 1, 1, 1, 1, 1, 1]],
)


def slow_means(state_BTH: Tensor, rows_BT: Tensor) -> Tensor:
    """(B, 2, H), word by word."""
    result = torch.zeros(len(rows_BT), 2, state_BTH.shape[2])
    for row, tokens in enumerate(rows_BT.tolist()):
        chosen: tuple[list[Tensor], list[Tensor]] = ([], [])
        segment = 0
        for place, token in enumerate(tokens):
            if token == 2:
                segment = 1
            elif token not in (0, 1, MASK):
                chosen[segment].append(state_BTH[row, place])
        for number, states in enumerate(chosen):
            if states:
                result[row, number] = torch.stack(states).mean(0)
    return result


def packed(rows_BT: Tensor) -> Sequences:
    keep_BT = rows_BT.ne(1)
    starts = torch.cat([torch.zeros(1), keep_BT.sum(1).cumsum(0)]).int()
    return Sequences.packed(rows_BT[keep_BT], starts, rows_BT.shape[1])


def test_means_are_of_the_words_of_each_segment() -> None:
    torch.manual_seed(0)
    state_BTH = torch.randn(3, 10, 8)
    expected = slow_means(state_BTH, ROWS)
    torch.testing.assert_close(Sequences(ROWS).means_of_segments(state_BTH, MASK), expected)
    found = SENTENCE_POOLINGS["mean"](8, MASK)(state_BTH, Sequences(ROWS))
    torch.testing.assert_close(found, expected.mean(1))
    other = state_BTH.masked_fill((ROWS.le(2) | ROWS.eq(MASK))[..., None], 1e4)
    assert torch.equal(SENTENCE_POOLINGS["mean"](8, MASK)(other, Sequences(ROWS)), found)


def test_pairs_are_compared() -> None:
    """Against the formula, and the order of the segments counts."""
    torch.manual_seed(0)
    state_BTH, pooling = torch.randn(3, 10, 8), SENTENCE_POOLINGS["pair"](8, MASK)
    with torch.no_grad():
        for parameter in pooling.parameters():
            parameter.normal_()
        found = pooling(state_BTH, Sequences(ROWS))
        means = slow_means(state_BTH, ROWS)
        u, v = means[:, 0], means[:, 1]
        expected = torch.nn.functional.gelu(pooling.compare(torch.cat([u, v, u - v, u * v], 1)))
        torch.testing.assert_close(found, expected)


def slow_alignment(pooling: AlignedPooling, state_BTH: Tensor, rows_BT: Tensor) -> Tensor:
    """(B, H), word by word."""
    result = torch.zeros(len(rows_BT), state_BTH.shape[2])
    for row, tokens in enumerate(rows_BT.tolist()):
        end = tokens.index(2)
        words = [place for place, token in enumerate(tokens) if token not in (0, 1, 2, MASK)]
        sides = [place for place in words if place < end], [place for place in words if place > end]
        if not all(sides):
            continue
        compared = []
        for own, other in (sides, sides[::-1]):
            candidates_NH = state_BTH[row, other]
            for place in own:
                word_H = state_BTH[row, place]
                cosine_N = torch.cosine_similarity(pooling.match(candidates_NH), pooling.match(word_H)[None])
                found_H = (16 * cosine_N).softmax(0) @ candidates_NH
                features = torch.cat([word_H - found_H, word_H * found_H])
                compared.append(torch.nn.functional.gelu(pooling.compare(features)))
        result[row] = torch.stack(compared).mean(0)
    return result


def test_words_are_aligned_with_those_of_the_other_segment() -> None:
    """Against the formula; without a second segment there is nothing to find."""
    torch.manual_seed(0)
    state_BTH, pooling = torch.randn(3, 10, 8), AlignedPooling(8, MASK)
    with torch.no_grad():
        for parameter in pooling.parameters():
            parameter.normal_()
        found = pooling(state_BTH, Sequences(ROWS))
        assert found[0].abs().sum() > 0 and not found[1:].any()
        torch.testing.assert_close(found, slow_alignment(pooling, state_BTH, ROWS))
        other = state_BTH.masked_fill((ROWS.le(2) | ROWS.eq(MASK))[..., None], 1e2)
        torch.testing.assert_close(pooling(other, Sequences(ROWS)), found)


@pytest.mark.parametrize("name", SENTENCE_POOLINGS)
def test_packed_is_rows(name: str) -> None:
    torch.manual_seed(0)
    state_BTH, pooling = torch.randn(3, 10, 8), SENTENCE_POOLINGS[name](8, MASK)
    with torch.no_grad():
        for parameter in pooling.parameters():
            parameter.normal_()
        found = pooling(state_BTH[ROWS.ne(1)], packed(ROWS))
        torch.testing.assert_close(found, pooling(state_BTH, Sequences(ROWS)))


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("name", SENTENCE_POOLINGS)
def test_its_loss_reaches_no_layer_above(name: str, pre_norm: bool) -> None:
    model = learned(build("nsp@2,mlm@3", sentence_pooling=name, encoder_normalize_before=pre_norm))
    loss_of(model, "nsp").backward()
    assert [touched(layer.parameters()) > 0 for layer in model.encoder.layers] == [True, True, False]
    assert (touched(model.poolings.parameters()) > 0) == (name in WITH_WEIGHTS)
    model.zero_grad()
    loss_of(model, "mlm").backward()
    assert touched(model.poolings.parameters()) == 0


@pytest.mark.parametrize("hierarchy", ["nsp@2,mlm@3", "nsp@3,mlm@3"])
@pytest.mark.parametrize("name", SENTENCE_POOLINGS)
def test_the_head_reads_what_is_pooled(name: str, hierarchy: str) -> None:
    """``first``: the state of ``<s>``, as ever."""
    model = learned(build(hierarchy, sentence_pooling=name)).eval()
    tokens_BT = TOKENS_BT.clone()
    tokens_BT[0, 2] = MASK
    with torch.no_grad():
        state_BTH = model(tokens_BT, layer=model.plan.layers["nsp"])[0]
        if name == "first":
            read_BH = state_BTH[:, 0]
        elif name == "mean":
            read_BH = slow_means(state_BTH, tokens_BT).mean(1)
        else:
            read_BH = model.poolings["nsp"](state_BTH, Sequences(tokens_BT))
        head, embedding_VH = model.heads["nsp"], model.encoder.embeddings.token.weight
        expected = head.classify(head.transform(read_BH), embedding_VH, torch.zeros(0).long())["nsp"]
        logits = model(tokens_BT, TARGETS)[0]
        torch.testing.assert_close(logits["nsp"], expected)
        # the other objectives' answers do not depend on it
        first = learned(build(hierarchy)).eval()
        first.load_state_dict(model.state_dict())
        torch.testing.assert_close(first(tokens_BT, TARGETS)[0]["mlm"], logits["mlm"])


def test_few_rows_are_computed_at_the_top_where_they_are_enough() -> None:
    few = {
        (name, hierarchy): build(hierarchy, sentence_pooling=name).plan.few_rows_at_top
        for name in SENTENCE_POOLINGS
        for hierarchy in ("nsp@2,mlm@3", "nsp@3,mlm@3")
    }
    read_all = [key for key, value in few.items() if not value]
    assert read_all == [(name, "nsp@3,mlm@3") for name in SENTENCE_POOLINGS if name != "first"]
    model = build("nsp@2,mlm@3", sentence_pooling="pair")
    _, extra = model(TOKENS_BT, TARGETS)
    assert extra["taps"]["mlm"].shape == (len(TARGETS["mlm"]["positions"]), 32)


@pytest.mark.parametrize("operator", ["concat", "gate", "add~", "label", "concat~"])
@pytest.mark.parametrize("name", SENTENCE_POOLINGS)
def test_transfers_start_as_the_identity_and_hand_it_on(name: str, operator: str) -> None:
    plain = build("nsp@2,mlm@3", sentence_pooling=name).eval()
    joined = build("nsp@2,mlm@3", f"nsp>mlm:{operator}", sentence_pooling=name).eval()
    with torch.no_grad():
        before, after = plain(TOKENS_BT, TARGETS)[0], joined(TOKENS_BT, TARGETS)[0]
        assert all(torch.equal(before[key], after[key]) for key in before)
    logits = learned(joined)(TOKENS_BT, TARGETS)[0]
    joined.objectives["mlm"].loss(logits, TARGETS, 6.0).scaled_sum.backward()
    assert touched(joined.heads["nsp"].parameters()) > 0
    assert (touched(joined.poolings.parameters()) > 0) == (name in WITH_WEIGHTS)


@pytest.mark.parametrize("name", SENTENCE_POOLINGS)
def test_word_order_of_a_sentence_still_reads_the_first_token(name: str) -> None:
    """Its question is about one text, not about two."""
    model = learned(build("bigram_shift@2,mlm@3", granularity="sentence", sentence_pooling=name)).eval()
    assert not model.poolings
    read: list[Tensor] = []
    model.heads["bigram_shift"].register_forward_pre_hook(lambda module, given: read.append(given[0]))
    with torch.no_grad():
        first_BH = model(TOKENS_BT, layer=2)[0][:, 0]
        head = model.heads["bigram_shift"]
        expected = head.classify(head.transform(first_BH), model.encoder.embeddings.token.weight, torch.zeros(0).long())
        found = model(TOKENS_BT, TARGETS)[0]
        assert set(expected) <= set(found)
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value)


@pytest.mark.parametrize("name", SENTENCE_POOLINGS)
def test_the_model_gives_packed_what_it_gives_rows(name: str) -> None:
    model = learned(build("nsp@3,mlm@3", sentence_pooling=name, tokens=VOCABULARY)).eval()
    sequences = packed(ROWS)
    targets = {"nsp": TARGETS["nsp"]}
    with torch.no_grad():
        rows = model(ROWS, targets)[0]["nsp"]
        found = model(sequences.tokens, targets, starts=sequences.packing.starts, longest=10)[0]["nsp"]
    torch.testing.assert_close(found, rows, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mine", SENTENCE_POOLINGS)
@pytest.mark.parametrize("theirs", SENTENCE_POOLINGS)
def test_a_checkpoint_of_another_pooling_is_never_half_loaded(theirs: str, mine: str) -> None:
    """Where both have weights, the head would read noise and nobody would know."""
    state = learned(build("nsp@2,mlm@3", sentence_pooling=theirs)).state_dict()
    model = build("nsp@2,mlm@3", sentence_pooling=mine)
    if theirs != mine and {theirs, mine} <= set(WITH_WEIGHTS):
        with pytest.raises(UserError, match=r"pooling of nsp has other weights .* give the --sentence-pooling"):
            model.upgrade_state_dict(state)
        return
    model.upgrade_state_dict(state)
    model.load_state_dict(state)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_a_pooling_of_an_older_version_is_refused() -> None:
    """``pair`` once projected the means."""
    model = build("nsp@2,mlm@3", sentence_pooling="pair")
    state = model.state_dict() | {"poolings.nsp.project.weight": torch.zeros(32, 32)}
    with pytest.raises(UserError, match="or use the version that wrote it"):
        model.upgrade_state_dict(state)
    without_objectives = build(objectives=False)
    without_objectives.upgrade_state_dict(state)  # its encoder is as good as before
    without_objectives.load_state_dict(state)
