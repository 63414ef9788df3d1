"""Logistic regression on every layer with every L2 penalty at once: one product with the features serves them all.

Minimises mean cross entropy + l2 / 2 * |W|^2 over features standardised by their mean and deviation on ``tr``, the bias
free, as scikit-learn's `LogisticRegression` does with ``C = 1 / (l2 * N)`` for a layer and a penalty at a time. Two
classes have one weight vector.

The features are never copied as a whole: standardising is folded into the weights, and rows are read in chunks of a
memory map. In the coordinates ``u``, where W = V (h * lambda + l2)^-1/2 u with V, lambda the eigenvectors and values of
the correlation matrix and h the curvature of the loss at W = 0, the Hessian begins as the identity whatever the layer
and penalty, so that few steps are needed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from hmtl_plugin.probing.lbfgs import minimise

_TOLERANCE = 1e-5  # nats that one more step would gain
_CHUNK_ELEMENTS = 1 << 21  # 8 MB: a chunk and what is made of it stay near the cache
_STATE_ELEMENTS = 1 << 24  # parameters solved for at once; the history holds twenty times as many
Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Fitted:
    """Classifiers of P problems, l2-major: problem ``g * L + l`` is penalty g on layer l.

    Attributes:
        weight_PHK, bias_PK: on raw features; K is 1 for two classes, else the number of classes.
        converged_P: whether the minimum was reached.
    """

    weight_PHK: Tensor
    bias_PK: Tensor
    layer_P: Tensor
    penalty_P: tuple[float, ...]
    converged_P: Tensor


@dataclass(frozen=True)
class _Scaling:
    """Mean, deviation and eigenbasis of each layer's features: (L, H), (L, H), (L, H, H), (L, H)."""

    mean_LH: Tensor
    deviation_LH: Tensor
    basis_LHH: Tensor
    variance_LH: Tensor


def fit(
    features_NLH: Features,
    labels_N: npt.NDArray[np.int32],
    classes: int,
    penalties: tuple[float, ...],
    device: str = "cpu",
) -> Iterator[Fitted]:
    """Classifiers of all layers and penalties, in groups that fit memory; a later group begins where the one before
    ended.

    Many classes are solved a penalty at a time, from the strongest; few, all at once.

    Args:
        features_NLH: (N, L, H) of the training rows, finite; may be a memory map.
        labels_N: (N,) from 0 to ``classes - 1``.
        penalties: values of l2, positive.
        device: where products run.
    """
    problem = _Problem(features_NLH, torch.from_numpy(np.ascontiguousarray(labels_N)).long(), classes, device)
    layers, size = features_NLH.shape[1], (features_NLH.shape[2] + 1) * problem.columns
    for group in _layer_groups(layers, size):
        start: Tensor | None = None
        at_once = max(1, _STATE_ELEMENTS // (8 * size * len(group)))
        ordered = sorted(penalties, reverse=True)
        for first in range(0, len(ordered), at_once):
            chosen = ordered[first : first + at_once]
            fitted, last = problem.solve(group, chosen, start)
            start = last
            yield fitted


def _layer_groups(layers: int, size: int) -> list[list[int]]:
    width = max(1, _STATE_ELEMENTS // size)
    return [list(range(start, min(layers, start + width))) for start in range(0, layers, width)]


def predict(fitted: Fitted, features_NLH: Features) -> npt.NDArray[np.int32]:
    """(P, N) predicted labels."""
    device = fitted.weight_PHK.device
    result = np.empty((len(fitted.layer_P), len(features_NLH)), dtype=np.int32)
    layers = fitted.layer_P.tolist()
    for rows, x_LNH in _chunks(features_NLH, sorted(set(layers)), fitted.weight_PHK.shape[-1] * len(layers), device):
        place = {layer: i for i, layer in enumerate(sorted(set(layers)))}
        for p, layer in enumerate(layers):
            logits_NK = torch.addmm(fitted.bias_PK[p], x_LNH[place[layer]], fitted.weight_PHK[p])
            found = (logits_NK[:, 0] > 0) if logits_NK.shape[1] == 1 else logits_NK.argmax(1)
            result[p, rows] = found.cpu().numpy()
    return result


def _chunks(
    features_NLH: Features, layers: list[int], columns: int, device: torch.device | str
) -> Iterator[tuple[slice, Tensor]]:
    """Rows and their features, layer first (a view where the layers are all)."""
    step = max(256, _CHUNK_ELEMENTS // max(1, max(columns, len(layers) * features_NLH.shape[2])))
    every = len(layers) == features_NLH.shape[1]
    for start in range(0, len(features_NLH), step):
        rows = slice(start, min(len(features_NLH), start + step))
        part = features_NLH[rows] if every else features_NLH[rows][:, layers]
        yield rows, torch.from_numpy(part).to(device).transpose(0, 1)


class _Problem:
    """The loss over one task's training rows, for any layers and penalties."""

    def __init__(self, features_NLH: Features, labels_N: Tensor, classes: int, device: str) -> None:
        self.features, self.device = features_NLH, device
        self.labels_N = labels_N.to(device)
        self.columns = 1 if classes == 2 else classes
        self.curvature = (classes - 1) / classes**2
        self.scaling = _scaling(features_NLH, device)

    def solve(self, layers: list[int], penalties: list[float], start: Tensor | None) -> tuple[Fitted, Tensor]:
        """Also the weights of the last penalty, (L, H+1, K) in standardised coordinates, for the next group to begin
        at.
        """
        width, hidden = len(layers), self.features.shape[2]
        layer_P = torch.tensor(layers * len(penalties), device=self.device)
        l2_P = torch.tensor(penalties, device=self.device).repeat_interleave(width)
        scale_PD = self._scale(layer_P, l2_P)
        x_PD = torch.zeros(len(layer_P), (hidden + 1) * self.columns, device=self.device)
        if start is not None:
            x_PD = self._to_u(start.repeat(len(penalties), 1, 1), layer_P, scale_PD)

        def objective(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            return self._value(x, layer_P[rows], l2_P[rows], scale_PD[rows])

        solution = minimise(objective, x_PD, _TOLERANCE)
        standard = self._from_u(solution.x_PD, layer_P, scale_PD)
        weight, bias = self._raw(standard, layer_P)
        strength_P = tuple(penalty for penalty in penalties for _ in layers)
        return Fitted(weight, bias, layer_P, strength_P, solution.converged_P), standard[-width:]

    def _scale(self, layer_P: Tensor, l2_P: Tensor) -> Tensor:
        """(P, H+1): what a unit of u is in the eigenbasis, and for the bias."""
        h = self.curvature
        inner = (self.scaling.variance_LH[layer_P] * h + l2_P[:, None]).rsqrt()
        return torch.cat([inner, torch.full_like(inner[:, :1], h**-0.5)], 1)

    def _from_u(self, x_PD: Tensor, layer_P: Tensor, scale_PD: Tensor) -> Tensor:
        u = x_PD.view(len(x_PD), -1, self.columns) * scale_PD[..., None]
        return torch.cat([torch.bmm(self.scaling.basis_LHH[layer_P], u[:, :-1]), u[:, -1:]], 1)

    def _to_u(self, standard: Tensor, layer_P: Tensor, scale_PD: Tensor) -> Tensor:
        inner = torch.bmm(self.scaling.basis_LHH[layer_P].mT, standard[:, :-1])
        return (torch.cat([inner, standard[:, -1:]], 1) / scale_PD[..., None]).flatten(1)

    def _raw(self, standard: Tensor, layer_P: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (P, H, K) and biases (P, K) that act on features as they are."""
        weight = standard[:, :-1] / self.scaling.deviation_LH[layer_P][..., None]
        return weight, standard[:, -1] - torch.bmm(self.scaling.mean_LH[layer_P][:, None], weight)[:, 0]

    def _value(self, x_PD: Tensor, layer_P: Tensor, l2_P: Tensor, scale_PD: Tensor) -> tuple[Tensor, Tensor]:
        """Objective (P,) and its gradient in u, over all rows."""
        standard = self._from_u(x_PD, layer_P, scale_PD)
        weight_PHK, bias_PK = self._raw(standard, layer_P)
        loss_P = torch.zeros(len(x_PD), dtype=torch.float64, device=self.device)
        raw_PHK, sum_PK = torch.zeros_like(weight_PHK), torch.zeros_like(bias_PK)
        layers, place_P = torch.unique(layer_P, return_inverse=True)
        groups = [(place_P == number).nonzero()[:, 0] for number in range(len(layers))]
        for rows, x_LNH in _chunks(self.features, layers.tolist(), self.columns * len(x_PD), self.device):
            labels_N = self.labels_N[rows]
            for x_NH, chosen in zip(x_LNH, groups, strict=True):
                loss, residual_NPK = self._residual(x_NH, weight_PHK[chosen], bias_PK[chosen], labels_N)
                loss_P[chosen] += loss
                product = (x_NH.T @ residual_NPK.flatten(1)).view(x_NH.shape[1], len(chosen), -1)
                raw_PHK[chosen] += product.transpose(0, 1)
                sum_PK[chosen] += residual_NPK.sum(0)
        return self._finish(standard, loss_P, raw_PHK, sum_PK, layer_P, l2_P, scale_PD)

    def _residual(self, x_NH: Tensor, weight: Tensor, bias: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        """Summed loss (P,) and derivative by the logits (N, P, K), of problems on one layer."""
        count, hidden, columns = weight.shape
        logits = torch.addmm(bias.flatten(), x_NH, weight.transpose(0, 1).reshape(hidden, -1)).view(-1, count, columns)
        if columns == 1:
            sign_N = (1 - 2 * labels_N).float()[:, None]
            margin = logits[..., 0] * sign_N
            return F.softplus(margin).sum(0, dtype=torch.float64), (torch.sigmoid(margin) * sign_N)[..., None]
        index = labels_N[:, None, None].expand(-1, count, 1)
        probability = torch.softmax(logits, -1)
        log_normaliser = torch.logsumexp(logits, -1)
        loss = (log_normaliser - logits.gather(-1, index)[..., 0]).sum(0, dtype=torch.float64)
        return loss, probability.scatter_add_(-1, index, torch.full_like(index, -1, dtype=torch.float32))

    def _finish(
        self,
        standard: Tensor,
        loss_P: Tensor,
        raw_PHK: Tensor,
        sum_PK: Tensor,
        layer_P: Tensor,
        l2_P: Tensor,
        scale_PD: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Means, the penalty, and the chain rule back to u."""
        rows = len(self.features)
        centred = raw_PHK - self.scaling.mean_LH[layer_P][..., None] * sum_PK[:, None]
        gradient = (
            centred / self.scaling.deviation_LH[layer_P][..., None] / rows + l2_P[:, None, None] * standard[:, :-1]
        )
        inner = torch.bmm(self.scaling.basis_LHH[layer_P].mT, gradient)
        full = torch.cat([inner, sum_PK[:, None] / rows], 1) * scale_PD[..., None]
        penalty = standard[:, :-1].double().square().sum((1, 2)) * l2_P.double() / 2
        return loss_P / rows + penalty, full.flatten(1)


def moments(features_NLH: Features, device: str) -> tuple[Tensor, Tensor]:
    """Mean and deviation of every feature, (L, H) in float64; that of one which does not vary is infinite, so that
    it is standardised to 0 and gets no weight."""
    mean_LH = _mean(features_NLH, device)
    square_LH = torch.zeros_like(mean_LH)
    for _, x_LNH in _chunks(features_NLH, list(range(features_NLH.shape[1])), 0, device):
        square_LH += (x_LNH - mean_LH.float()[:, None]).square().sum(1, dtype=torch.float64)
    return mean_LH, _varying((square_LH / len(features_NLH)).sqrt(), mean_LH)


def _mean(features_NLH: Features, device: str) -> Tensor:
    _, layers, hidden = features_NLH.shape
    mean_LH = torch.zeros(layers, hidden, dtype=torch.float64, device=device)
    for _, x_LNH in _chunks(features_NLH, list(range(layers)), 0, device):
        mean_LH += x_LNH.sum(1, dtype=torch.float64)
    return mean_LH / len(features_NLH)


def _varying(deviation_LH: Tensor, mean_LH: Tensor) -> Tensor:
    varies = deviation_LH > 1e-6 * mean_LH.abs()
    return torch.where(varies, deviation_LH, torch.full_like(deviation_LH, torch.inf))


def _scaling(features_NLH: Features, device: str) -> _Scaling:
    """Moments in float64 from one pass for the mean and one for the centred products."""
    rows, layers, hidden = features_NLH.shape
    mean_LH = _mean(features_NLH, device)
    product_LHH = torch.zeros(layers, hidden, hidden, dtype=torch.float64, device=device)
    for _, x_LNH in _chunks(features_NLH, list(range(layers)), 0, device):
        centred = x_LNH - mean_LH.float()[:, None]
        product_LHH += torch.bmm(centred.mT, centred).double()
    product_LHH /= rows
    deviation_LH = _varying(product_LHH.diagonal(dim1=1, dim2=2).sqrt(), mean_LH)
    correlation = product_LHH / deviation_LH[:, :, None] / deviation_LH[:, None]
    variance_LH, basis_LHH = torch.linalg.eigh(correlation)
    return _Scaling(mean_LH.float(), deviation_LH.float(), basis_LHH.float(), variance_LH.clamp(min=0).float())
