"""Scores of fine-tuned heads are exact to fp32 whatever the precision of the encoder."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hmtl_plugin import precision
from hmtl_plugin.models.config import EncoderConfig
from hmtl_plugin.models.finetuned_heads import SentenceHead, SpanHead, head_poolings
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertModel

HEADS: dict[str, Callable[[], nn.Module]] = {"span": lambda: SpanHead(32, 0.0)} | {
    f"sentence {pooling}": lambda pooling=pooling: SentenceHead(32, 3, pooling, 0.0, 4) for pooling in head_poolings()
}
CONTEXTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "torch": lambda: torch.autocast("cpu", torch.bfloat16),
    "emulated": precision._emulated_bf16,
    "--autocast bf16": lambda: precision.autocast("bf16", "cpu"),
}
TOKENS_BT = torch.randint(5, 40, (8, 12), generator=torch.Generator().manual_seed(0))
TOKENS_BT[:, 0], TOKENS_BT[:, 5], TOKENS_BT[:, -1], TOKENS_BT[::2, -3:] = 0, 2, 2, torch.tensor([2, 1, 1])


def model_of(head: str) -> HierarchicalBertModel:
    config = EncoderConfig(
        vocabulary=40,
        hidden=32,
        layers=2,
        heads=2,
        ffn=64,
        max_positions=16,
        init_std=0.2,
        dropout=0,
        attention_dropout=0,
    )
    model = HierarchicalBertModel(config, seed=1)
    model.attach_head(HEADS[head](), head, 2, 1)
    return model


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("head", HEADS)
def test_logits_are_those_of_an_fp32_head_on_the_encoder_s_states(head: str, context: str) -> None:
    model = model_of(head)
    assert model.task_head is not None
    with CONTEXTS[context]():
        logits, _ = model(TOKENS_BT, task_head=True)
        hidden_BTH, _ = model(TOKENS_BT, features_only=True)
    exact, _ = model(TOKENS_BT, task_head=True)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, model.task_head(hidden_BTH.float(), TOKENS_BT))
    assert (logits != logits.bfloat16().float()).float().mean() > 0.9  # not rounded
    assert not torch.equal(logits, exact)  # the encoder is
    torch.testing.assert_close(logits, exact, rtol=0, atol=0.1)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("head", HEADS)
def test_gradients_reach_every_weight_in_fp32(head: str, context: str) -> None:
    def gradients(context: AbstractContextManager[Any]) -> dict[str, Tensor]:
        model = model_of(head)
        with context:
            loss = model(TOKENS_BT, task_head=True)[0].square().sum()
        loss.backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    found, expected = gradients(CONTEXTS[context]()), gradients(torch.autocast("cpu", enabled=False))
    assert found.keys() == expected.keys()
    head_weights = {f"task_head.{name}" for name, _ in HEADS[head]().named_parameters()}
    assert {"task_head.out.weight", "task_head.out.bias", "encoder.layers.0.fc1.weight", *head_weights} <= found.keys()
    assert all(bool(found[name].any()) for name in head_weights)
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32
        norm = expected[name].norm().item()
        assert (gradient - expected[name]).norm().item() <= 0.1 * norm + 1e-4
