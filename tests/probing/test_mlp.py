"""The MLP's grid: each model as it would be alone."""

import numpy as np
import pytest
import torch
from torch import nn

from hmtl_plugin.probing import mlp
from tests.probing.conftest import blobs

FAST = mlp.MlpOptions(
    hidden=(8, 16), dropout=(0.0, 0.3), learning_rate=0.02, batch_size=32, epoch_size=1, tenacity=3, max_epochs=25
)


def data(classes: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    parts = [blobs(seed, rows, 3, 6, classes) for seed, rows in ((1, 400), (2, 200), (3, 200))]
    return [x for x, _ in parts], [y for _, y in parts]


def test_it_learns_what_is_there() -> None:
    features, labels = data(4)
    result = mlp.train(features, labels, 4, FAST, 1)
    accuracy = (result.predicted_PN == labels[2]).mean(1).reshape(4, 3)
    assert (accuracy[:, 2] > 0.7).all() and (accuracy[:, 0] < 0.45).all()
    assert np.abs(result.valid_P.reshape(4, 3)[:, 2] - accuracy[:, 2]).max() < 0.15


def test_seeds_decide_everything() -> None:
    features, labels = data(2)
    first, again, other = (mlp.train(features, labels, 2, FAST, seed) for seed in (1, 1, 2))
    assert (first.predicted_PN == again.predicted_PN).all() and (first.valid_P == again.valid_P).all()
    assert (first.predicted_PN != other.predicted_PN).any()


def test_a_model_of_the_grid_is_a_plain_mlp() -> None:
    """Forward pass and gradients of every cell against nn.Linear layers with the same weights."""
    features, labels = data(3)
    cells = [(4, 0.0), (6, 0.0), (4, 0.0)]
    grid = mlp._Grid(features[0], 3, cells, torch.Generator().manual_seed(0), "cpu")
    x, target = torch.from_numpy(features[0][:50]), torch.from_numpy(labels[0][:50]).long()
    # cells of one width stand together, so the first layer's columns follow the order of cells by width
    assert grid.widths == [4, 6]
    grid_cells = mlp.cells_of(mlp.MlpOptions(hidden=(4, 6), dropout=(0.0, 0.1)))
    assert grid_cells == [(4, 0.0), (4, 0.1), (6, 0.0), (6, 0.1)]
    grid = mlp._Grid(features[0], 3, grid_cells, torch.Generator().manual_seed(0), "cpu")
    logits = torch.cat(grid(x), 1)
    loss = sum(
        nn.functional.cross_entropy(part.flatten(0, 2), target.expand(*part.shape[:2], -1).reshape(-1), reduction="sum")
        / 50
        for part in grid(x)
    )
    loss.backward()
    start = 0
    for number, (width, _) in enumerate(grid_cells):
        group, place = (
            grid.widths.index(width),
            [c for c, cell in enumerate(grid_cells) if cell[0] == width].index(number),
        )
        for layer in range(3):
            plain = nn.Sequential(nn.Linear(6, width), nn.Sigmoid(), nn.Linear(width, 3))
            with torch.no_grad():
                plain[0].weight.copy_(grid.first[layer, :, start : start + width].T)
                plain[0].bias.copy_(grid.first_bias[layer, 0, start : start + width])
                plain[2].weight.copy_(grid.second[group][layer, place].T)
                plain[2].bias.copy_(grid.second_bias[group][layer, place, 0])
            inputs = (x[:, layer] - grid.shift_LH[layer]) * grid.scale_LH[layer]
            expected = plain(inputs)
            assert torch.allclose(logits[layer, number], expected, atol=1e-5)
            nn.functional.cross_entropy(expected, target).backward()
            assert torch.allclose(grid.first.grad[layer, :, start : start + width].T, plain[0].weight.grad, atol=1e-5)
            assert torch.allclose(grid.second[group].grad[layer, place].T, plain[2].weight.grad, atol=1e-5)
        start += width


def test_each_model_keeps_the_epoch_that_was_best_on_va(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = data(2)
    seen: list[np.ndarray] = []
    original = mlp._Grid.accuracy

    def accuracy(self: mlp._Grid, *arguments: np.ndarray) -> np.ndarray:
        seen.append(original(self, *arguments))
        return seen[-1]

    monkeypatch.setattr(mlp._Grid, "accuracy", accuracy)
    result = mlp.train([features[0], features[1], features[1]], [labels[0], labels[1], labels[1]], 2, FAST, 1)
    # te is va here: what the kept weights score must be the accuracy that was recorded
    assert (result.predicted_PN == labels[1]).mean(1) == pytest.approx(result.valid_P)
    history = np.array(seen)
    for model, (cell, layer) in enumerate(np.ndindex(4, 3)):
        assert history[result.epochs_P[model] - 1, cell, layer] == result.valid_P[model]
        waited = history[: result.epochs_P[model] + FAST.tenacity, cell, layer]
        assert waited.max() == result.valid_P[model]
