"""What the head of a fine-tuned task reads, ``--head-pooling``."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hmtl_plugin.models.finetuned_heads import SentenceHead, head_poolings, needs_pairs
from hmtl_plugin.models.initialisation import generator_for, initialise
from hmtl_plugin.models.pooling import POOLINGS, pool
from hmtl_plugin.models.sentence_pooling import SENTENCE_POOLINGS
from tests.models.test_sentence_pooling import MASK, ROWS, slow_means

HIDDEN = 8
FOR_PAIRS = [name for name in head_poolings() if needs_pairs(name)]


def head_of(pooling: str, seed: int = 1) -> SentenceHead:
    head = SentenceHead(HIDDEN, 3, pooling, 0.0, MASK)
    initialise(head, generator_for(seed, "task_head"), 0.5)
    return head.eval()


def states(seed: int = 0) -> Tensor:
    return torch.randn(*ROWS.shape, HIDDEN, generator=torch.Generator().manual_seed(seed))


def logits_of(head: SentenceHead, pooled_BH: Tensor) -> Tensor:
    return head.out(torch.tanh(head.dense(pooled_BH)))


def test_every_pooling_of_pre_training_is_there_and_the_old_ones() -> None:
    assert set(head_poolings()) == {"mean", "cls", "max", *SENTENCE_POOLINGS}
    assert set(FOR_PAIRS) == set(SENTENCE_POOLINGS) - {"first", "mean"}


def test_pair_compares_the_means_of_both_segments() -> None:
    head, state_BTH = head_of("pair"), states()
    layer = head.pair_pooling.compare  # type: ignore[union-attr]
    u, v = slow_means(state_BTH, ROWS).unbind(1)
    compared_BH = F.gelu(F.linear(torch.cat([u, v, u - v, u * v], 1), layer.weight, layer.bias))
    torch.testing.assert_close(head(state_BTH, ROWS), logits_of(head, compared_BH))


@torch.no_grad()
def test_the_order_of_the_sentences_counts() -> None:
    """Each word keeps its state, so that nothing but the pooling can tell."""
    rows_BT = torch.tensor([[0, 9, 8, 2, 7, 6, 2, 1], [0, 9, 8, 2, 7, 6, 2, 1]])
    order_BT = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7], [0, 4, 5, 3, 1, 2, 6, 7]])
    state_BTH = states()[:1, :8].expand(2, -1, -1).gather(1, order_BT[..., None].expand(-1, -1, HIDDEN))
    for pooling in (*POOLINGS, "pair"):
        one, other = head_of(pooling)(state_BTH, rows_BT.gather(1, order_BT))
        assert torch.allclose(one, other, atol=1e-5) == (pooling != "pair"), pooling
    head, read = head_of("pair"), []
    compare = head.pair_pooling.compare  # type: ignore[union-attr]
    compare.weight[:, : 2 * HIDDEN].zero_()  # of u - v alone, before the activation: the other way round
    compare.weight[:, 3 * HIDDEN :].zero_()
    compare.register_forward_hook(lambda module, given, found: read.append(found))
    head(state_BTH, rows_BT)
    torch.testing.assert_close(read[0][0], -read[0][1])
    assert read[0].abs().max() > 0.1


def test_specials_and_masks_do_not_count() -> None:
    head, state_BTH = head_of("pair"), states()
    other = state_BTH.where(~(ROWS.le(2) | ROWS.eq(MASK))[..., None], states(1))
    assert torch.equal(head(other, ROWS), head(state_BTH, ROWS))
    assert not torch.allclose(head(states(1), ROWS)[:2], head(state_BTH, ROWS)[:2])


def test_the_mean_is_over_the_whole_text_as_ever() -> None:
    """Not of the segments' means, as in pre-training, which would halve that of a single sentence."""
    single, state_BTH = torch.tensor([[0, 9, MASK, 8, 2, 1], [0, 9, 2, 8, 7, 2]]), states()[:2, :6]
    head = head_of("mean")
    pooled_BH = torch.stack([state_BTH[0, 1:4].mean(0), state_BTH[1, [1, 3, 4]].mean(0)])
    torch.testing.assert_close(head(state_BTH, single), logits_of(head, pooled_BH))


def test_first_is_another_name_of_cls() -> None:
    first, cls = head_of("first"), head_of("cls")
    assert first.pooling == cls.pooling == "cls"
    assert torch.equal(first(states(), ROWS), cls(states(), ROWS))


@pytest.mark.parametrize("pooling", head_poolings())
def test_weights_depend_on_the_seed_and_the_other_layers_on_nothing_else(pooling: str) -> None:
    """So that the cells of a grid differ in the pooling alone, and older heads have the weights they always had."""
    found, cls = head_of(pooling).state_dict(), head_of("cls").state_dict()
    assert all(torch.equal(found[key], value) for key, value in cls.items())
    own = found.keys() - cls.keys()
    assert own if pooling == "pair" else pooling in FOR_PAIRS or not own
    assert all(key.startswith("pair_pooling.") for key in own)
    again, other = head_of(pooling).state_dict(), head_of(pooling, seed=2).state_dict()
    for key in own:
        assert torch.equal(found[key], again[key])
        assert found[key].ndim < 2 or not torch.equal(found[key], other[key])


def test_what_needs_weights_is_no_function_of_states() -> None:
    for name in ("first", "pair", "median"):
        with pytest.raises(ValueError, match=f"no pooling of {', '.join(POOLINGS)}: {name}"):
            pool(states(), ROWS, name)
