"""How an encoder knows where a token stands: a table added to the embeddings, or queries and keys that turn with their place."""

import logging
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from hmtl_plugin.errors import UserError
from hmtl_plugin.models.sequences import Sequences

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
    """Neighbouring numbers of queries and keys are pairs, and pair i of the token at place t is turned by t / base^(2i/D).

    So the product of a query and a key depends on how far apart they stand (Su et al. 2021; interleaved pairs, as there).
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
