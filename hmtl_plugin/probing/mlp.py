"""SentEval's MLP on every layer with its whole grid at once: the cells of a layer share one product with the features.

One hidden layer with sigmoid and dropout, Adam, rows in random order; every few epochs the accuracy on ``va`` is taken,
and a model that has not improved for some of these is done (Conneau and Kiela 2018; grid of Conneau et al. 2018).
Features are standardised by their mean and deviation on ``tr``. Not scikit-learn's `MLPClassifier`, which has no
dropout and trains one model at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmtl_plugin.probing.logistic import Features, moments
from hmtl_plugin.progress import progress_bar

_EVALUATION_ROWS = 1024


@dataclass(frozen=True)
class MlpOptions:
    """The grid, and SentEval's training schedule."""

    hidden: tuple[int, ...] = (50, 100, 200)
    dropout: tuple[float, ...] = (0.0, 0.1, 0.2)
    learning_rate: float = 1e-3
    batch_size: int = 64
    epoch_size: int = 4  # epochs between two looks at va
    tenacity: int = 5  # looks without improvement
    max_epochs: int = 200


@dataclass(frozen=True)
class MlpResult:
    """Of P = cells * L models, cell-major; cells are `cells_of` the options.

    Attributes:
        valid_P: best accuracy on va, share.
        predicted_PN: predictions for te of the weights that were best on va.
        epochs_P: when they were.
    """

    valid_P: npt.NDArray[np.float64]
    predicted_PN: npt.NDArray[np.int32]
    epochs_P: npt.NDArray[np.int64]


def cells_of(options: MlpOptions) -> list[tuple[int, float]]:
    """Width and dropout of each cell."""
    return [(width, p) for width in options.hidden for p in options.dropout]


def train(
    splits: Sequence[Features],
    labels: Sequence[npt.NDArray[np.int32]],
    classes: int,
    options: MlpOptions,
    seed: int,
    device: str = "cpu",
) -> MlpResult:
    """Train all models on ``tr``, choose each one's epoch on ``va``, predict ``te``.

    Args:
        splits: tr, va and te features, (N, L, H) each.
        labels: of tr, va, te.
        seed: of initial weights, order and dropout.
    """
    tr, va, te = splits
    generator = torch.Generator(device=device).manual_seed(seed)
    model = _Grid(tr, classes, cells_of(options), generator, device)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.learning_rate)
    best = _Best(model)
    order = np.random.default_rng(seed)
    with progress_bar("MLP", options.max_epochs, "epoch") as bar:
        for epoch in range(1, options.max_epochs + 1):
            _epoch(model, optimizer, tr, labels[0], options.batch_size, order, generator)
            bar.update(1)
            if epoch % options.epoch_size == 0:
                best.look(model.accuracy(va, labels[1]), epoch)
                if best.finished(options.tenacity):
                    break
    best.restore()
    return MlpResult(best.valid_CL.flatten(), model.predict(te), best.epoch_CL.flatten())


def _epoch(
    model: "_Grid",
    optimizer: torch.optim.Optimizer,
    features_NLH: Features,
    labels_N: npt.NDArray[np.int32],
    batch_size: int,
    order: np.random.Generator,
    generator: torch.Generator,
) -> None:
    rows_N = order.permutation(len(features_NLH))
    for start in range(0, len(rows_N), batch_size):
        rows = np.sort(rows_N[start : start + batch_size])  # in file order: the map is read forwards
        target = torch.from_numpy(labels_N[rows].astype(np.int64)).to(model.device)
        optimizer.zero_grad(set_to_none=True)
        # models are independent: the sum of their mean losses gives each the gradient it would have alone
        loss = torch.zeros((), device=model.device)
        for logits in model(torch.from_numpy(features_NLH[rows]).to(model.device), generator):
            wanted = target.expand(*logits.shape[:-2], -1).reshape(-1)
            loss = loss + F.cross_entropy(logits.flatten(0, -2), wanted, reduction="sum") / len(rows)
        loss.backward()
        optimizer.step()


class _Grid(nn.Module):
    """All cells of all layers. Cells of one width are one batched product in the second layer."""

    def __init__(
        self, tr: Features, classes: int, cells: list[tuple[int, float]], generator: torch.Generator, device: str
    ) -> None:
        super().__init__()
        self.device, self.cells = device, cells
        self.layers, hidden = tr.shape[1:]
        self.widths = sorted({width for width, _ in cells}, key=[width for width, _ in cells].index)
        mean_LH, deviation_LH = moments(tr, device)
        self.shift_LH, self.scale_LH = mean_LH.float(), 1 / deviation_LH.float()
        total = sum(width for width, _ in cells)

        def uniform(*shape: int, fan_in: int) -> nn.Parameter:  # as nn.Linear begins
            values = torch.rand(*shape, generator=generator, device=device)
            return nn.Parameter((2 * values - 1) / fan_in**0.5)

        self.first, self.first_bias = (
            uniform(self.layers, hidden, total, fan_in=hidden),
            uniform(self.layers, 1, total, fan_in=hidden),
        )
        counts = [self._of(width) for width in self.widths]
        self.second = nn.ParameterList(
            uniform(self.layers, len(of), width, classes, fan_in=width)
            for width, of in zip(self.widths, counts, strict=True)
        )
        self.second_bias = nn.ParameterList(
            uniform(self.layers, len(of), 1, classes, fan_in=width)
            for width, of in zip(self.widths, counts, strict=True)
        )
        self.keep = torch.cat([torch.full((width,), 1 - p) for width, p in cells]).to(device)

    def _of(self, width: int) -> list[int]:
        return [number for number, cell in enumerate(self.cells) if cell[0] == width]

    def forward(self, x_BLH: Tensor, generator: torch.Generator | None = None) -> list[Tensor]:
        """Logits (L, cells of the width, B, classes) for each width; dropout only with a generator."""
        x_LBH = ((x_BLH - self.shift_LH) * self.scale_LH).transpose(0, 1)
        inner = torch.sigmoid(torch.baddbmm(self.first_bias, x_LBH, self.first))
        if generator is not None and bool(self.keep.min() < 1):
            inner = inner * (torch.rand(inner.shape, generator=generator, device=self.device) < self.keep) / self.keep
        logits, start = [], 0
        for width, second, bias in zip(self.widths, self.second, self.second_bias, strict=True):
            count = second.shape[1]
            part = inner[..., start : start + count * width].unflatten(-1, (count, width)).transpose(1, 2)
            logits.append(part @ second + bias)
            start += count * width
        return logits

    @torch.inference_mode()
    def predict(self, features_NLH: Features) -> npt.NDArray[np.int32]:
        """(cells * L, N), cell-major."""
        found = []
        for start in range(0, len(features_NLH), _EVALUATION_ROWS):
            part = torch.from_numpy(features_NLH[start : start + _EVALUATION_ROWS]).to(self.device)
            found.append(torch.cat([logits.argmax(-1) for logits in self(part)], 1).transpose(0, 1).flatten(0, 1))
        return torch.cat(found, 1).int().cpu().numpy()

    def accuracy(self, features_NLH: Features, labels_N: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        """(cells, L) shares of right answers."""
        right: npt.NDArray[np.float64] = (self.predict(features_NLH) == labels_N).mean(1)
        return right.reshape(len(self.cells), self.layers)


class _Best:
    """The weights of each model when it was best on va. A model that is done takes no later ones."""

    def __init__(self, model: _Grid) -> None:
        self.model = model
        shape = (len(model.cells), model.layers)
        self.valid_CL, self.epoch_CL = np.full(shape, -1.0), np.zeros(shape, dtype=np.int64)
        self.waiting_CL = np.zeros(shape, dtype=np.int64)
        self.done_CL = np.zeros(shape, dtype=bool)
        self.saved = {name: value.detach().clone() for name, value in model.named_parameters()}

    def look(self, accuracy_CL: npt.NDArray[np.float64], epoch: int) -> None:
        """Take over what improved."""
        better = (accuracy_CL > self.valid_CL) & ~self.done_CL
        self.valid_CL[better], self.epoch_CL[better] = accuracy_CL[better], epoch
        self.waiting_CL = np.where(better, 0, self.waiting_CL + 1)
        self._copy(torch.from_numpy(better).to(self.model.device))

    def finished(self, tenacity: int) -> bool:
        """Whether every model is done."""
        self.done_CL |= self.waiting_CL >= tenacity
        return bool(self.done_CL.all())

    def restore(self) -> None:
        """Put the best weights back."""
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                value.copy_(self.saved[name])

    @torch.no_grad()
    def _copy(self, better_CL: Tensor) -> None:
        sizes = torch.tensor([width for width, _ in self.model.cells], device=better_CL.device)
        columns = better_CL.repeat_interleave(sizes, 0).T[:, None]  # (L, 1, all units)
        for name, value in self.model.named_parameters():
            if name.startswith("first"):
                chosen = columns
            else:
                width = self.model.widths[int(name.rsplit(".", 1)[1])]
                chosen = better_CL[self.model._of(width)].T[:, :, None, None]
            self.saved[name] = torch.where(chosen, value, self.saved[name])
