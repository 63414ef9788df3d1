"""How the sequences of a batch lie in memory: as rows padded to one width, or packed end to end without padding.

Token ids are (B, T) or (N,), states (B, T, H) or (N, H). Whatever differs between the two is here and in `attention`; a
*position* is always an index into the flattened ids, B*T or N of them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hmtl_plugin.special_tokens import BOS, EOS, PAD


class Packing(NamedTuple):
    """Where packed sequences lie: sequence b is the tokens ``starts[b]:starts[b + 1]``.

    Attributes:
        starts: (B + 1,) int32, from 0 to N.
        sample_N, position_N: sequence of each token, and its place there.
        grid_N: where each token would lie in (B * longest) padded rows.
        longest: tokens of the longest sequence, or more; known on the host, so that nothing is read back.
        has_kernel: the device computes attention on packed sequences in half precision (FlashAttention: Ampere and
            later).
    """

    starts: Tensor
    sample_N: Tensor
    position_N: Tensor
    grid_N: Tensor
    longest: int
    has_kernel: bool = False

    def keep(self) -> Tensor:
        """(B, longest), True where the grid holds a token."""
        length_B = self.starts.diff()
        return torch.arange(self.longest, device=length_B.device) < length_B[:, None]

    def pad(self, x_Nx: Tensor) -> Tensor:
        """(N, ...) to rows (B, longest, ...), zero where there is no token."""
        batch = self.starts.shape[0] - 1
        grid = x_Nx.new_zeros(batch * self.longest, *x_Nx.shape[1:])
        return grid.index_copy(0, self.grid_N, x_Nx).unflatten(0, (batch, self.longest))

    def unpad(self, x_BTx: Tensor) -> Tensor:
        """The inverse of `pad`."""
        return x_BTx.flatten(0, 1).index_select(0, self.grid_N)


@dataclass(frozen=True)
class Sequences:
    """The token ids of a batch and how they lie.

    Attributes:
        tokens: (B, T) ids padded with 1 on the right, or (N,) packed.
        padded: whether rows hold padding, if known; None builds the mask.
        packing: None for rows.
    """

    tokens: Tensor
    padded: bool | None = None
    packing: Packing | None = None

    @classmethod
    def packed(cls, tokens_N: Tensor, starts: Tensor, longest: int) -> "Sequences":
        """Sequences that lie end to end; ``starts`` (B + 1,) int32 as in `Packing`."""
        number_N = torch.arange(tokens_N.shape[0], device=tokens_N.device, dtype=starts.dtype)
        sample_N = torch.bucketize(number_N, starts[1:], right=True)
        position_N = number_N - starts[sample_N]
        grid_N = sample_N * longest + position_N
        has_kernel = (
            tokens_N.is_cuda
            and torch.backends.cuda.is_flash_attention_available()  # not in every build
            and torch.cuda.get_device_capability(tokens_N.device) >= (8, 0)
        )
        return cls(tokens_N, False, Packing(starts, sample_N, position_N, grid_N, longest, has_kernel))

    def mask(self) -> Tensor | None:
        """Attention mask of (padded) rows (B, 1, 1, T), True where a key may be attended; None where none is needed.

        A row that is all padding attends everywhere, for a softmax over nothing would be NaN. No value is read back
        from the device.
        """
        if self.packing is not None:
            return attention_mask(self.packing.keep())
        return None if self.padded is False else attention_mask(self.tokens.ne(PAD))

    @property
    def width(self) -> int:
        """Tokens of the longest sequence, or more."""
        return self.tokens.shape[1] if self.packing is None else self.packing.longest

    def segments(self) -> Tensor:
        """Segment of each position, 0 or 1: min(1, number of ``</s>`` strictly before it in its sequence)."""
        is_end = self.tokens.eq(EOS).long()
        before = is_end.cumsum(-1) - is_end
        if self.packing is not None:
            before = before - before[self.packing.starts[self.packing.sample_N]]
        return before.clamp_(max=1)

    def at_positions(self, table_PH: Tensor) -> Tensor:
        """Rows of a position table, (T, H) of rows, packed (N, H), as they broadcast over states in the shape of the
        ids.

        Not by indexing: its gradient adds up packed tokens one by one, an embedding's in parallel.
        """
        if self.packing is None:
            return table_PH[: self.tokens.shape[1]]
        return F.embedding(self.packing.position_N, table_PH)

    def first(self) -> Tensor:
        """(B,) position of each sequence's ``<s>``."""
        if self.packing is not None:
            return self.packing.starts[:-1].long()
        batch, width = self.tokens.shape
        return torch.arange(0, batch * width, width, device=self.tokens.device)

    def samples(self, positions_M: Tensor) -> Tensor:
        """(M,) the sequence that each position is in."""
        if self.packing is not None:
            return self.packing.sample_N[positions_M]
        return positions_M.div(self.tokens.shape[1], rounding_mode="floor")

    def spread(self, z_BH: Tensor) -> Tensor:
        """A vector a sequence, as it broadcasts over the states of its tokens."""
        return z_BH[:, None] if self.packing is None else F.embedding(self.packing.sample_N, z_BH)

    def as_rows(self) -> "Sequences":
        """The same sequences as padded rows."""
        if self.packing is None:
            return self
        keep_BT = self.packing.keep()
        return Sequences(self.packing.pad(self.tokens).where(keep_BT, PAD))

    def mean_of_words(self, state: Tensor) -> Tensor:
        """(B, H) mean over the tokens that are not ``<s>``, ``</s>`` or padding; 0 for a sequence without any."""
        return self._means(state, self.as_rows().words()[:, None]).squeeze(1)

    def means_of_segments(self, state: Tensor, mask: int) -> Tensor:
        """(B, 2, H) mean over each segment's words, those that are ``mask`` left out; 0 for a segment without any."""
        return self._means(state, self.words_of_segments(mask))

    def words_of_segments(self, mask: int) -> Tensor:
        """(B, 2, T) of the rows, whether a token is a word of the first, of the second segment; ``mask`` is none."""
        rows = self.as_rows()
        words_BT, second_BT = rows.words(mask), rows.segments().bool()
        return torch.stack([words_BT & ~second_BT, words_BT & second_BT], 1)

    def state_rows(self, state: Tensor) -> Tensor:
        """(B, T, H) states of the rows."""
        return state if self.packing is None else self.packing.pad(state)

    def words(self, mask: int = PAD) -> Tensor:
        """In the shape of the ids, whether a token is none of ``<s>``, ``</s>``, padding and ``mask``."""
        return self.tokens.ne(BOS) & self.tokens.ne(PAD) & self.tokens.ne(EOS) & self.tokens.ne(mask)

    def _means(self, state: Tensor, chosen_BKT: Tensor) -> Tensor:
        """(B, K, H) means of the states of chosen tokens of the rows."""
        state_BTH = self.state_rows(state)
        weight_BKT = chosen_BKT.to(state_BTH.dtype)
        return torch.bmm(weight_BKT / weight_BKT.sum(2, keepdim=True).clamp(min=1), state_BTH)


def attention_mask(keep_BT: Tensor) -> Tensor:
    """Boolean mask (B, 1, 1, T) of the keys to keep, see `Sequences.mask`."""
    nothing_B1 = ~keep_BT.any(1, keepdim=True)
    return (keep_BT | nothing_B1)[:, None, None]


def rows_at(state: Tensor, positions_R: Tensor) -> Tensor:
    """(R, H) of states (B, T, H) or (N, H); a position may be there twice, not more often, or the GPU would choose the
    order of the gradient's sum.
    """
    return state.flatten(0, -2).index_select(0, positions_R)
