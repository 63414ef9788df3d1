"""Text to ids together with the characters that each id stands for, so that a span of ids is a piece of the text.

The library tells from which characters a piece was made, through its normalisation. Two things are decided here: white
space around a piece is no part of it, and a character that becomes several pieces belongs to each of them.
"""

import numpy as np
import numpy.typing as npt

from hmtl_plugin.tokenizers.base import IdArray, Tokenizer

_SPACE = "\u2581"
_ZERO_WIDTH = (0x200B, 0x200E, 0x200F, 0xFEFF)  # marks without a shape: the usual normalisation makes spaces of them
_BLANK = np.zeros(0x10000, dtype=np.bool_)
_BLANK[[*(code for code in range(0x3001) if chr(code).isspace()), *_ZERO_WIDTH]] = True
OffsetArray = npt.NDArray[np.int32]


def encode_with_offsets(tokenizer: Tokenizer, texts: list[str]) -> tuple[IdArray, IdArray, OffsetArray]:
    """All ids of many texts in one array (N,), the number of ids of each text, and offsets (N, 2).

    The ids are those of `Tokenizer.encode_flat`. Offsets are [begin, end) in characters (code points) of the text as it
    was given; both never fall from an id to the next. They are empty for an id that stands for white space alone.
    """
    encoded = [tokenizer.encode_with_ranges(text) for text in texts]
    if not encoded:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 2), np.int32)
    lengths = np.array([len(ids) for ids, _ in encoded], dtype=np.int64)
    ids_N = np.concatenate([ids for ids, _ in encoded])
    text_lengths = np.array([len(text) for text in texts], dtype=np.int64)
    text_end_N = np.repeat(np.cumsum(text_lengths), lengths)
    text_begin_N = text_end_N - np.repeat(text_lengths, lengths)
    ranges_N2 = np.concatenate([ranges for _, ranges in encoded]) + text_begin_N[:, None]
    visible_C = _visible("".join(texts))
    begin_N, end_N = _strip(visible_C, *ranges_N2.T)
    empty_N = np.flatnonzero((begin_N == end_N) & (begin_N < text_end_N))
    shared_N = [
        number
        for number in empty_N[visible_C[begin_N[empty_N]]].tolist()
        if tokenizer.symbols[ids_N[number]].strip(_SPACE)  # else a space of the tokenizer's own
    ]
    end_N[shared_N] += 1
    end_N = np.maximum.accumulate(end_N)  # a space within such a character has a share in it as well
    return ids_N, lengths, (np.stack([begin_N, end_N], axis=1) - text_begin_N[:, None]).astype(np.int32)


def _visible(text: str) -> npt.NDArray[np.bool_]:
    """(C,) whether each character is more than white space."""
    codes_C = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    return ~_BLANK[np.minimum(codes_C, len(_BLANK) - 1)]


def _strip(visible_C: npt.NDArray[np.bool_], begin_N: IdArray, end_N: IdArray) -> tuple[IdArray, IdArray]:
    """Ranges without the white space at their ends; what holds nothing else is empty at its end."""
    places = np.arange(len(visible_C) + 1)
    next_visible = np.minimum.accumulate(np.where(np.append(visible_C, True), places, len(visible_C))[::-1])[::-1]
    last_visible = np.maximum.accumulate(np.where(np.append(True, visible_C), places, 0))
    begin_N = np.minimum(next_visible[begin_N], end_N)
    return begin_N, np.maximum(last_visible[end_N], begin_N)
