"""Heads' losses and metrics: sums, empty batches, histograms."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import hmtl_plugin.objectives  # noqa: F401  registers
from hmtl_plugin.objectives.base import HeadConfig, Scoring, basic_counters, build_objectives
from hmtl_plugin.objectives.measure import Seen, explained
from hmtl_plugin.objectives.mlm import aligned_linear

CONFIG = HeadConfig(hidden=8, vocabulary=20, activation=torch.nn.functional.gelu, layer_norm_eps=1e-5, dropout=0.0)
NAMES = ("mlm", "nsp", "sop", "bigram_shift")


def options(**changes: object) -> object:
    return SimpleNamespace(**changes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("granularity", ["token", "sentence", "both"])
def test_every_head_stays_in_the_graph_without_targets(name: str, granularity: str) -> None:
    (objective,) = build_objectives((name,), options(bigram_granularity=granularity)).values()
    head = objective.build_head(CONFIG)
    embedding = torch.randn(20, 8)
    shape = (3, 8) if objective.scope == "sentence" else (0, 8) if objective.sparse else (3, 5, 8)
    first_B = torch.arange(3) * 5
    logits = head.classify(head.transform(torch.randn(shape)), embedding, first_B)
    assert next(iter(logits)) == objective.target_names[0] and set(logits) == set(objective.target_names)
    loss = objective.loss(logits, {}, 10.0)
    assert loss.scaled_sum.item() == 0
    loss.scaled_sum.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.parameters())
    values = objective.metrics(loss.counters)
    assert values["loss"] != values["loss"], "no target, no value"


def test_sums_scale_by_the_tokens_a_target_stands_for() -> None:
    objectives = build_objectives(NAMES, options(mask_prob=0.2))
    logits = torch.randn(4, 2)
    labels = torch.tensor([0, 1, 1, 0])
    plain = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    target = {"positions": torch.arange(4), "labels": labels}
    assert float(objectives["nsp"].loss({"nsp": logits}, {"nsp": target}, 7.0).scaled_sum) == pytest.approx(
        7 * float(plain)
    )
    shift = objectives["bigram_shift"].loss({"bigram_shift": logits.view(2, 2, 2)}, {"bigram_shift": target}, 7.0)
    assert float(shift.scaled_sum) == pytest.approx(float(plain))
    words = torch.randn(4, 20)
    mlm = objectives["mlm"].loss({"mlm": words}, {"mlm": target}, 7.0)
    assert float(mlm.scaled_sum) == pytest.approx(
        5 * float(torch.nn.functional.cross_entropy(words, labels, reduction="sum")), rel=1e-5
    )


@pytest.mark.parametrize("words", [64, 1001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_words_that_are_none_change_nothing(words: int, dtype: torch.dtype) -> None:
    (objective,) = build_objectives(("mlm",)).values()
    labels = torch.randint(0, words, (6,), generator=torch.Generator().manual_seed(1))
    found = []
    for product in (torch.nn.functional.linear, aligned_linear):
        torch.manual_seed(0)
        values = [torch.randn(shape).to(dtype).requires_grad_() for shape in ((6, 8), (words, 8), (words,))]
        logits = product(*values)
        loss = objective.loss({"mlm": logits}, {"mlm": {"labels": labels}}, 9.0)
        loss.scaled_sum.backward()
        found.append([logits[:, :words], loss.counters["mlm"], *(value.grad for value in values)])
    assert logits.shape[1] % 64 == 0
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_metrics() -> None:
    objective = build_objectives(("bigram_shift",), options(bigram_granularity="both"))["bigram_shift"]
    scores = torch.tensor([3.0, 1.0, -1.0, -3.0, 2.0, -2.0])
    labels = torch.tensor([1, 1, 0, 0, 0, 1])
    logits = torch.stack([torch.zeros(6), scores], 1)
    tokens = {"positions": torch.arange(6), "labels": labels}
    rows = {"positions": torch.arange(2), "labels": torch.tensor([1, 0])}
    both = {"bigram_shift": logits.view(2, 3, 2), "bigram_shift_sentence": torch.tensor([[0.0, 1.0], [1.0, 0.0]])}
    loss = objective.loss(both, {"bigram_shift": tokens, "bigram_shift_sentence": rows}, 3.0)
    values = objective.metrics({name: 2 * counter for name, counter in loss.counters.items()})
    pairs = sum((p > n) for p in (3.0, 1.0, -2.0) for n in (-1.0, -3.0, 2.0))
    assert values["auc"] == pytest.approx(pairs / 9)
    assert values["accuracy"] == pytest.approx(100 * 4 / 6) and values["sentence_accuracy"] == 100
    assert values["loss"] == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, labels)) + values["sentence_loss"], abs=1e-5
    )


@pytest.mark.parametrize("columns", [1, 2, 1000])
def test_right_answers_are_those_of_torchs_argmax(columns: int) -> None:
    """With ties (the first counts), infinities and no rows too."""
    torch.manual_seed(1)
    for rows in (0, 1, 400):
        logits_MC = torch.randn(rows, columns).mul(2).round().requires_grad_()
        labels_M = torch.randint(0, columns, (rows,))
        with torch.no_grad():
            logits_MC[: rows // 8, 0] = float("-inf")
            logits_MC[rows // 8 : rows // 4, -1] = float("inf")
        wanted = (logits_MC.argmax(-1) == labels_M).sum()
        found = basic_counters(torch.tensor(1.5), logits_MC, labels_M, torch.tensor(float(rows)))
        assert found.tolist() == [1.5, rows, wanted]


class Tall(Scoring):
    """Numbers of samples."""

    name, asks = "tall", "sentence"

    def corrupt(self, batch, random) -> None:
        pass


def test_numbers_are_learnt_by_squared_error_and_measured_by_the_variance_explained() -> None:
    """Additive over micro-batches; half-precision logits; no meaning where all numbers are one."""
    torch.manual_seed(0)
    label_M, rows = torch.randn(50, dtype=torch.float64) * 3 + 1, torch.arange(50)
    logits = (label_M + torch.randn(50)).float()[:, None].half()
    error = (logits.float().squeeze(1) - label_M).square()
    wanted = 1 - float(error.sum() / (label_M - label_M.mean()).square().sum())
    objective = Tall(None)
    whole, *parts = (
        objective.loss({"tall": logits[part]}, {"tall": {"positions": rows[: len(part)], "labels": label_M[part]}}, 7.0)
        for part in (rows, rows[:20], rows[20:])
    )
    assert whole.scaled_sum.item() == pytest.approx(7 * float(error.sum()), rel=1e-5)
    assert sum(part.scaled_sum.item() for part in parts) == pytest.approx(whole.scaled_sum.item(), rel=1e-5)
    values = objective.metrics({"tall": sum(part.counters["tall"] for part in parts)})
    assert values["loss"] == pytest.approx(float(error.mean()), rel=1e-5)
    assert values["r2"] == pytest.approx(wanted, abs=1e-5)
    seen = Seen(logits.float(), label_M, rows, torch.zeros(50, 3))
    sums = objective.measure("tall").sums(seen, None)["value"].numpy()
    assert float(explained(sums.sum(0))) == pytest.approx(wanted, abs=1e-6)
    assert np.isnan(explained(np.array([2.0, 6.0, 12.0, 3.0])))  # 2, 2, 2
    assert np.isnan(objective.metrics({"tall": torch.zeros(4)})["loss"])
