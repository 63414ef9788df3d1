"""The parts that an encoder is made of, by the names of their options: norms, activations, feed-forward layers, positions.

Code of one's own adds to these tables by `register_part` (docs/extending.md).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from hmtl_plugin.errors import UserError
from hmtl_plugin.models.positions import LearnedPositions, Positions, RotaryPositions
from hmtl_plugin.user_dir import how_to_find

Activation = Callable[[Tensor], Tensor]


def register_part(table: dict[str, Any], name: str, part: Any) -> None:
    """Make a part known by a name.

    Args:
        table: `ACTIVATIONS`, `NORMS`, `FEED_FORWARDS` or `POSITIONS`; `transfer.OPERATORS` or
            `sentence_pooling.SENTENCE_POOLINGS`.

    Raises:
        ValueError: if another part has it, or if the part is of another kind than those of the table.
    """
    _check_kind(next(iter(table.values())), name, part)
    if table.setdefault(name, part) is not part:
        raise ValueError(f"part '{name}' is registered twice: give yours another name")


def _check_kind(example: Any, name: str, part: Any) -> None:
    """Raise ValueError if the part cannot stand where an example of its table does."""
    if isinstance(example, type):
        base = example.__mro__[1]
        if not isinstance(part, type) or not issubclass(part, base):
            raise ValueError(f"part '{name}' is {_kind(part)}: write a class of {base.__name__}, and give the class")
        missing = ", ".join(sorted(getattr(part, "__abstractmethods__", ())))
        if missing:
            raise ValueError(f"part '{name}' lacks {missing}: see {base.__name__}")
    elif isinstance(example, FeedForward) != isinstance(part, FeedForward):
        raise ValueError(f"part '{name}' is {_kind(part)}: give FeedForward(blocks, combine)")
    elif (not callable(part) or isinstance(part, (type, nn.Module))) and not isinstance(example, FeedForward):
        raise ValueError(f"part '{name}' is {_kind(part)}: give a function of a tensor, without weights")


def _kind(part: Any) -> str:
    return f"the class {part.__name__}" if isinstance(part, type) else f"a {type(part).__name__}"


def check_dropout(flag: str, share: float) -> None:
    """Raise `UserError` for a dropout that is no share of what there is."""
    if not 0 <= share < 1:
        raise UserError(f"{flag} {share:g}: use a share from 0 to below 1, as in 0.1")


def check_part(table: Mapping[str, Any], flag: str, name: str) -> None:
    """Raise `UserError` if an option names a part that is not known."""
    if name not in table:
        raise UserError(f"{flag} {name}: known are {', '.join(table)}; for one of your own {how_to_find()}")


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


def _relu_squared(x: Tensor) -> Tensor:
    return F.relu(x).square()


ACTIVATIONS: dict[str, Activation] = {"gelu": F.gelu, "gelu_tanh": _gelu_tanh, "relu": F.relu, "relu2": _relu_squared}
"""``--activation-fn``: ``gelu`` is the exact one, ``relu2`` the square of ReLU (So et al. 2021)."""


NORMS: dict[str, Callable[..., nn.Module]] = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}
"""``--norm``: called with the width and ``eps``. RMS norm is Zhang and Sennrich's (2019): no mean taken off, no bias."""


@dataclass(frozen=True)
class FeedForward:
    """What happens between the two matrices of a feed-forward layer.

    Attributes:
        blocks: how many times the inner width the first matrix gives.
        combine: its product (..., blocks * F), and the activation, to (..., F).
    """

    blocks: int
    combine: Callable[[Tensor, Activation], Tensor]


def _plain(inner: Tensor, activation: Activation) -> Tensor:
    return activation(inner)


def _gated(inner: Tensor, activation: Activation) -> Tensor:
    gate, value = inner.chunk(2, dim=-1)
    return activation(gate) * value


FEED_FORWARDS: dict[str, FeedForward] = {"plain": FeedForward(1, _plain), "gated": FeedForward(2, _gated)}
"""``--feed-forward``: ``gated`` is the activation of one product times another (Shazeer 2020)."""


POSITIONS: dict[str, type[Positions]] = {"learned": LearnedPositions, "rotary": RotaryPositions}
"""``--positions``."""
