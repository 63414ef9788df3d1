"""The parts that an encoder is made of, by the names of their options: positions, norms, activations, feed-forward
layers.

Code of one's own adds to these tables by `register_part` (docs/extending.md).
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hmtl_plugin.errors import UserError
from hmtl_plugin.models.sequences import Sequences
from hmtl_plugin.user_dir import how_to_find

logger = logging.getLogger(__name__)


class Positions(nn.Module, ABC):
    """One way. An encoder asks for both: what is added to its embeddings, and how attention turns; either may be None.

    Attributes:
        has_table: whether sequences can be no longer than the model's ``max_positions``.
    """

    has_table: ClassVar[bool]

    def __init__(self, longest: int, hidden: int, head_width: int, base: float) -> None:
        """``longest``: ``max_positions``; ``base``: of rotary positions."""
        super().__init__()
        self.longest = longest

    @classmethod
    def check(cls, head_width: int, base: float) -> None:
        """Raise `UserError` if attention heads of this width cannot have such positions."""

    def check_length(self, length: int) -> None:
        """Called with the tokens of the longest sequence of a batch, (it may be more, never less).

        Raises:
            UserError: if that is more than there can be.
        """

    def local_biases(self, heads: int, size: float) -> Tensor | None:
        """(2, heads, D) first biases of queries and keys for attention that begins at neighbours; None: there are none.

        Args:
            size: of the biases, more for sharper attention.
        """
        return None

    @abstractmethod
    def added(self, sequences: Sequences) -> Tensor | None:
        """What broadcasts over the embeddings (B, T, H), packed (N, H), and is added to them."""

    @abstractmethod
    def rotation(self, sequences: Sequences) -> Tensor | None:
        """(T, D/2, 2) cosine and sine for each place of the longest sequence, in fp32; D is the width of a head."""


class LearnedPositions(Positions):
    """A table with a row for each place (Devlin et al. 2019)."""

    has_table = True

    def __init__(self, longest: int, hidden: int, head_width: int, base: float) -> None:
        super().__init__(longest, hidden, head_width, base)
        self.weight = nn.Parameter(torch.empty(longest, hidden))

    def check_length(self, length: int) -> None:
        if length > self.longest:
            raise UserError(
                f"a sequence of {length} tokens is longer than the model's {self.longest} "
                f"positions: shorten the input, or continue training "
                f"with --max-positions {length} --resize-positions"
            )

    def added(self, sequences: Sequences) -> Tensor:
        return sequences.at_positions(self.weight)

    def rotation(self, sequences: Sequences) -> None:
        return None


class RotaryPositions(Positions):
    """Neighbouring numbers of queries and keys are pairs, and pair i of the token at place t is turned by t /
    base^(2i/D).

    So the product of a query and a key depends on how far apart they stand (Su et al. 2021; interleaved pairs, as
    there).
    """

    has_table = False

    def __init__(self, longest: int, hidden: int, head_width: int, base: float) -> None:
        super().__init__(longest, hidden, head_width, base)
        self.head_width, self.base = head_width, base
        self._said_longer = False
        self._tables: dict[torch.device, Tensor] = {}  # no buffer: half precision would round the angles

    @classmethod
    def check(cls, head_width: int, base: float) -> None:
        if head_width % 2:
            raise UserError(
                f"--positions rotary turns pairs of numbers, and attention heads are {head_width} wide: "
                "give --encoder-embed-dim and --encoder-attention-heads whose quotient is even"
            )
        if not base > 1:
            raise UserError(f"--rotary-base {base:g}: use a number above 1, as in 10000")

    def check_length(self, length: int) -> None:
        if length > self.longest and not self._said_longer:
            self._said_longer = True
            logger.info(
                f"sequences of {length} tokens are longer than the {self.longest} that the model was trained for "
                "(--max-positions): rotary positions go on beyond them"
            )

    def local_biases(self, heads: int, size: float) -> Tensor:
        """Under them a head scores the token before (even heads) or after (odd heads) highest.

        With all else zero the score of a token s places further is ``size``^2 / sqrt(D) times the sum over pairs i of
        cos((s - o) / base^(2i/D)), o being -1 or 1: highest at o, and falling slowly. So training begins from attention
        to a window, which it would otherwise have to find. (This project's; docs/recipe.md has what it gains.)
        """
        offset_A = torch.ones(heads)
        offset_A[::2] = -1
        cos, sin = _angles(2, self.head_width, self.base)[1].unbind(-1)  # of one place, for each pair
        query_AD = torch.stack([cos.expand(heads, -1), offset_A[:, None] * sin], -1).flatten(1)
        key_AD = torch.tensor([1.0, 0.0]).repeat(heads, self.head_width // 2)
        return size * torch.stack([query_AD, key_AD])

    def added(self, sequences: Sequences) -> None:
        return None

    def rotation(self, sequences: Sequences) -> Tensor:
        device, length = sequences.tokens.device, sequences.width
        known = self._tables.get(device)
        if known is None or known.shape[0] < length:
            with torch.inference_mode(False):  # a table made in inference could not serve training afterwards
                known = _angles(max(length, self.longest), self.head_width, self.base).to(device)
            self._tables[device] = known
        return known[:length]


def _angles(length: int, width: int, base: float) -> Tensor:
    """(length, width/2, 2) cosine and sine of each place and pair; the angles are exact to fp64, whatever the length."""
    speed = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * speed
    return torch.stack([angle.cos(), angle.sin()], -1).float()


def rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """Heads (..., T, K, A, D) turned by ``rotation`` (T, D/2, 2); T may also be packed tokens. In fp32."""
    pairs = x.float().unflatten(-1, (-1, 2))
    turn = rotation[:, None, None]
    if torch.compiler.is_compiling():  # what compilers make one loop of; they know no complex numbers
        (a, b), (cos, sin) = pairs.unbind(-1), turn.unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
    # one kernel there and one back
    return torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(turn)).flatten(-2)


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
"""``--norm``: called with the width and ``eps``. RMS norm is Zhang and Sennrich's (2019): no mean taken off, no bias.
"""


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
