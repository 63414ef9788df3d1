"""One torch optimizer for two rules: Muon for groups of hidden layers' matrices, fused AdamW for all others."""

from collections.abc import Callable, Sequence
from typing import Any, Optional

import torch
from torch import Tensor

from hmtl_plugin.optim.marks import matrix_blocks
from hmtl_plugin.optim.newton_schulz import orthogonalise, working_type

MOMENTUM = "momentum"  # a group that has it is Muon's
BUFFER = "momentum_buffer"
Group = dict[str, Any]


class MuonAdamW(torch.optim.Optimizer):
    """`torch.optim.AdamW` (fused) for groups without ``momentum``; for those with it the rule of `torch.optim.Muon`
    (nesterov, ``adjust_lr_fn="original"``), which has one momentum a parameter as its state.

    Nothing is read back from the device. With an attribute ``found_inf`` (a float on the device) of 1 a step changes
    neither weights nor state. Parameters without a gradient stay as they are.
    """

    found_inf: Optional[Tensor] = None

    def __init__(self, others: Sequence[Group], matrices: Sequence[Group], **adamw: Any) -> None:
        """
        Args:
            others: groups for AdamW; adamw: its options.
            matrices: groups with ``lr``, ``weight_decay`` and ``momentum`` whose parameters are marked
                (`marks.mark_matrix`).
        """
        self._adamw = torch.optim.AdamW([{"params": []}], fused=True, **adamw)
        self._stacks: list[_Stack] = []
        self._stacked: tuple[bool, ...] = ()
        super().__init__([*({**self._adamw.defaults, **group} for group in others), *matrices], {})
        self._share()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Optional[Callable[[], Any]] = None) -> Any:
        """One update of both rules."""
        self._adamw.found_inf = self.found_inf  # type: ignore[attr-defined]
        loss = self._adamw.step(closure)
        stacks = self._current_stacks()
        skip = None if self.found_inf is None else self.found_inf.bool()
        directions = [stack.direction(skip) for stack in stacks]
        for stack, update in zip(stacks, _orthogonal(directions), strict=True):
            stack.move(update, skip)
        return loss

    def _share(self) -> None:
        """Both rules keep their state and their groups in one place, this."""
        self._adamw.state = self.state
        self._adamw.param_groups = [group for group in self.param_groups if MOMENTUM not in group]
        self._stacks, self._stacked = [], ()

    def _current_stacks(self) -> list["_Stack"]:
        """The matrices that have gradients, stacked by group and shape; made anew only when these are others."""
        groups = [group for group in self.param_groups if MOMENTUM in group]
        present = tuple(p.grad is not None for group in groups for p in group["params"])
        if present != self._stacked:
            self._stacks, self._stacked = [], present
            for group in groups:
                shapes: dict[tuple[int, int], list[Tensor]] = {}
                for p in group["params"]:
                    if p.grad is not None:
                        shapes.setdefault((p.shape[0] // matrix_blocks(p), p.shape[1]), []).append(p)
                self._stacks += [_Stack(group, shape, same, self.state) for shape, same in shapes.items()]
        return self._stacks


class _Stack:
    """The matrices (R, C) of a group, as blocks of its parameters, and their momentum (N, R, C), of which the
    parameters' state is views.
    """

    def __init__(self, group: Group, shape: tuple[int, int], parameters: list[Tensor], state: Any) -> None:
        self.group, self.shape, self.parameters = group, shape, parameters
        self.rows = [len(p) for p in parameters]
        self.ratio = max(1.0, shape[0] / shape[1]) ** 0.5
        before = [state[p].get(BUFFER) for p in parameters]
        buffers = [torch.zeros_like(p) if b is None else b for p, b in zip(parameters, before, strict=True)]
        self.momentum_NRC = self._stacked(buffers)
        for p, buffer in zip(parameters, self._split(self.momentum_NRC), strict=True):
            state[p][BUFFER] = buffer

    def direction(self, skip: Optional[Tensor]) -> Tensor:
        """Take the gradients into the momentum; (N, R, C), where to go (not yet orthogonal)."""
        momentum = self.group[MOMENTUM]
        gradient_NRC = self._stacked([p.grad for p in self.parameters if p.grad is not None])
        if skip is not None:  # the momentum of itself and itself is itself
            torch.where(skip, self.momentum_NRC, gradient_NRC, out=gradient_NRC)
        self.momentum_NRC.lerp_(gradient_NRC, 1 - momentum)
        return gradient_NRC.lerp_(self.momentum_NRC, momentum)

    def move(self, update_NRC: Tensor, skip: Optional[Tensor]) -> None:
        """Decay the weights and move them against the update."""
        lr, weight_decay = self.group["lr"], self.group["weight_decay"]
        if skip is not None:
            update_NRC = update_NRC.masked_fill(skip, 0.0)
        if weight_decay:
            decay = lr * weight_decay
            torch._foreach_mul_(self.parameters, 1 - decay if skip is None else 1 - decay * ~skip)
        torch._foreach_add_(self.parameters, self._split(update_NRC), alpha=-lr * self.ratio)

    def _stacked(self, matrices: list[Tensor]) -> Tensor:
        return torch.cat(matrices).view(-1, *self.shape)

    def _split(self, stacked_NRC: Tensor) -> tuple[Tensor, ...]:
        return stacked_NRC.view(-1, self.shape[1]).split(self.rows)


def _orthogonal(directions: Sequence[Tensor]) -> list[Tensor]:
    """Each (N, R, C) orthogonalised, fp32; those of equal sizes, upright or not, in one batch."""
    alike: dict[tuple[torch.device, int, int], list[int]] = {}
    for number, x_NRC in enumerate(directions):
        sizes = sorted(x_NRC.shape[1:])
        alike.setdefault((x_NRC.device, sizes[0], sizes[1]), []).append(number)
    found: dict[int, Tensor] = {}
    for (device, rows, columns), numbers in alike.items():
        counts = [len(directions[number]) for number in numbers]
        batch = torch.empty(sum(counts), rows, columns, dtype=working_type(device), device=device)
        for number, part in zip(numbers, batch.split(counts), strict=True):
            part.copy_(_lying(directions[number]))
        for number, part in zip(numbers, orthogonalise(batch).split(counts), strict=True):
            result = torch.empty_like(directions[number])
            _lying(result).copy_(part)
            found[number] = result
    return [found[number] for number in range(len(directions))]


def _lying(x_NRC: Tensor) -> Tensor:
    """Transposed if it has more rows than columns."""
    return x_NRC.mT if x_NRC.shape[1] > x_NRC.shape[2] else x_NRC
