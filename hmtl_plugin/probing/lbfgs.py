"""Limited-memory BFGS (Liu and Nocedal 1989) for many independent smooth convex problems at once, one a row.

Not torch's or SciPy's, which minimise one function: here each problem has steps of its own, and all share a pass over
the data.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_HISTORY = 10
_SUFFICIENT = 1e-4  # of the decrease that the gradient promises (Armijo)
_TRIALS = 20

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""``objective(x_PD, rows_P)``: values (P,) in float64 and gradients (P, D) of the problems that ``rows_P`` numbers."""


class Solution(NamedTuple):
    """Minimisers x (P, D), whether each is one as far as the tolerance tells, iterations run."""

    x_PD: Tensor
    converged_P: Tensor
    iterations: int


def minimise(objective: Objective, x_PD: Tensor, tolerance: float, max_iterations: int = 500) -> Solution:
    """Minimise every row from ``x_PD`` until what a Newton step promises to gain is at most ``tolerance``.

    The gain is estimated from the inverse Hessian that the last steps tell. Rows are expected to be scaled such that
    their Hessian is near the identity; the first step has length one. A row that is finished, or that no step improves
    any more, is not evaluated again.
    """
    x_PD = x_PD.clone()
    rows = torch.arange(len(x_PD), device=x_PD.device)
    value_P, gradient_PD = objective(x_PD, rows)
    steps = _Steps(x_PD)
    converged_P = torch.zeros(len(x_PD), dtype=torch.bool, device=x_PD.device)
    iteration = 0
    while iteration < max_iterations:
        direction = steps.direction(gradient_PD[rows], rows)
        gain = -(direction.double() * gradient_PD[rows].double()).sum(1) / 2
        converged_P[rows] = gain <= tolerance
        rows, direction = rows[gain > tolerance], direction[gain > tolerance]
        if not len(rows):
            break
        iteration += 1
        moved, value, gradient = _search(objective, rows, x_PD[rows], value_P[rows], gradient_PD[rows], direction)
        steps.add(rows, moved - x_PD[rows], gradient - gradient_PD[rows])
        stuck = (moved == x_PD[rows]).all(1)
        x_PD[rows], value_P[rows], gradient_PD[rows] = moved, value, gradient
        rows = rows[~stuck]
    return Solution(x_PD, converged_P, iteration)


def _search(
    objective: Objective, rows: Tensor, x: Tensor, value: Tensor, gradient: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Halve each row's step from one until its value decreases enough; rows that never do stay where they are."""
    slope = (gradient.double() * direction.double()).sum(1)
    best_x, best_value, best_gradient = x.clone(), value.clone(), gradient.clone()
    left, step = torch.arange(len(x), device=x.device), 1.0
    for _ in range(_TRIALS):
        trial = x[left] + step * direction[left]
        trial_value, trial_gradient = objective(trial, rows[left])
        good = trial_value <= value[left] + _SUFFICIENT * step * slope[left]
        done = left[good]
        best_x[done], best_value[done], best_gradient[done] = trial[good], trial_value[good], trial_gradient[good]
        left, step = left[~good], step / 2
        if not len(left):
            break
    return best_x, best_value, best_gradient


class _Steps:
    """The last steps and changes of gradient of every row, oldest first in a ring."""

    def __init__(self, x_PD: Tensor) -> None:
        self.s: list[Tensor] = []
        self.y: list[Tensor] = []
        self.rho: list[Tensor] = []
        self.like = x_PD

    def add(self, rows: Tensor, s: Tensor, y: Tensor) -> None:
        """Remember a step; a row without curvature in it (or not in ``rows``) gets weight 0."""
        curvature = (s.double() * y.double()).sum(1)
        good = curvature > 1e-10 * y.double().square().sum(1)
        full_s, full_y = torch.zeros_like(self.like), torch.zeros_like(self.like)
        rho = torch.zeros(len(self.like), device=self.like.device)
        full_s[rows], full_y[rows] = s, y
        rho[rows] = torch.where(good, 1 / curvature.clamp(min=1e-300), torch.zeros_like(curvature)).float()
        self.s, self.y, self.rho = [
            [*kept, new][-_HISTORY:] for kept, new in ((self.s, full_s), (self.y, full_y), (self.rho, rho))
        ]

    def direction(self, gradient_RD: Tensor, rows: Tensor) -> Tensor:
        """Minus the inverse Hessian's estimate times the gradients of the rows."""
        q = gradient_RD.clone()
        alphas = []
        for s, y, rho in zip(reversed(self.s), reversed(self.y), reversed(self.rho), strict=True):
            alpha = rho[rows] * (s[rows] * q).sum(1)
            q -= alpha[:, None] * y[rows]
            alphas.append(alpha)
        if self.s:
            q *= self._scale(rows)[:, None]
        for s, y, rho, alpha in zip(self.s, self.y, self.rho, reversed(alphas), strict=True):
            beta = rho[rows] * (y[rows] * q).sum(1)
            q += (alpha - beta)[:, None] * s[rows]
        return -q

    def _scale(self, rows: Tensor) -> Tensor:
        """(s.y) / (y.y) of the last step, 1 for rows without."""
        y, rho = self.y[-1][rows], self.rho[-1][rows]
        return torch.where(rho > 0, 1 / (rho * y.square().sum(1)).clamp(min=1e-30), torch.ones_like(rho))
