"""Logistic regression of all layers at once, against scikit-learn's one by one."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from hmtl_plugin.probing import logistic
from tests.probing.conftest import blobs

PENALTIES = (1e-1, 1e-3, 1e-5)


def solved(
    features: np.ndarray, labels: np.ndarray, classes: int
) -> dict[tuple[float, int], tuple[np.ndarray, np.ndarray]]:
    """(penalty, layer) -> raw weights and biases."""
    found = {}
    for fitted in logistic.fit(features, labels, classes, PENALTIES):
        assert bool(fitted.converged_P.all())
        for p, layer in enumerate(fitted.layer_P.tolist()):
            found[fitted.penalty_P[p], layer] = (fitted.weight_PHK[p].numpy(), fitted.bias_PK[p].numpy())
    return found


def objective(x: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: np.ndarray, l2: float) -> float:
    """As the module's docstring defines it, in float64, of weights on standardised features."""
    logits = x @ weight + bias
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], 1)
    top = logits.max(1)
    normaliser = np.log(np.exp(logits - top[:, None]).sum(1)) + top
    return float((normaliser - logits[np.arange(len(x)), labels]).mean() + l2 / 2 * np.square(weight).sum())


@pytest.mark.parametrize("classes", [2, 5])
def test_same_minimum_as_scikit_learn(classes: int) -> None:
    features, labels = blobs(1, 600, 4, 10, classes)
    found = solved(features, labels, classes)
    for (l2, layer), (weight, bias) in found.items():
        raw = features[:, layer].astype(np.float64)
        mean, deviation = raw.mean(0), raw.std(0)
        x = (raw - mean) / deviation
        peer = LogisticRegression(C=1 / (l2 * len(x)), tol=1e-8, max_iter=5000).fit(x, labels)
        best = objective(x, labels, peer.coef_.T, peer.intercept_, l2)
        ours = objective(x, labels, weight * deviation[:, None], bias + mean @ weight, l2)
        assert ours == pytest.approx(best, abs=2e-4)
        other, _ = blobs(2, 500, 4, 10, classes)
        logits = other[:, layer] @ weight + bias
        predicted = (logits[:, 0] > 0) if classes == 2 else logits.argmax(1)
        expected = peer.predict((other[:, layer] - mean) / deviation)
        assert np.mean(predicted != expected) <= 0.02  # layer 0 is noise: its classes are all but ties


@pytest.mark.parametrize("classes", [2, 7])
def test_groups_and_chunks_change_nothing(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = blobs(1, 700, 3, 6, classes)
    monkeypatch.setattr(logistic, "_TOLERANCE", 1e-7)
    whole = solved(features, labels, classes)
    monkeypatch.setattr(logistic, "_CHUNK_ELEMENTS", 1)
    monkeypatch.setattr(logistic, "_STATE_ELEMENTS", 1)
    parts = solved(features, labels, classes)
    assert parts.keys() == whole.keys()
    for key, (weight, bias) in parts.items():
        x = features[:, key[1]]
        expected = x @ whole[key][0] + whole[key][1]
        # weak penalties leave directions in which the minimum is flat
        assert np.abs(x @ weight + bias - expected).max() < 0.02 * np.abs(expected).max()


def test_prediction_is_that_of_the_weights() -> None:
    features, labels = blobs(1, 400, 3, 6, 4)
    (fitted,) = list(logistic.fit(features, labels, 4, (1e-2,)))
    predicted = logistic.predict(fitted, features)
    for p, layer in enumerate(fitted.layer_P.tolist()):
        logits = torch.from_numpy(features[:, layer]) @ fitted.weight_PHK[p] + fitted.bias_PK[p]
        assert (predicted[p] == logits.argmax(1).numpy()).all()
    accuracy = (predicted == labels).mean(1)
    assert accuracy[2] > accuracy[1] > accuracy[0]  # the layers tell more and more


def test_features_that_never_vary_or_repeat() -> None:
    features, labels = blobs(1, 300, 2, 4, 2)
    features[..., 1] = 7.0
    features[..., 2] = features[..., 3]
    for weight, bias in solved(features, labels, 2).values():
        assert np.isfinite(weight).all() and np.isfinite(bias).all()
        assert weight[1, 0] == 0


def test_labels_that_features_separate() -> None:
    features = np.linspace(-1, 1, 200, dtype=np.float32)[:, None, None] * np.ones((1, 1, 3), dtype=np.float32)
    labels = (features[:, 0, 0] > 0).astype(np.int32)
    fitted = next(iter(logistic.fit(features, labels, 2, (1e-5,))))
    assert (logistic.predict(fitted, features)[0] == labels).all()
