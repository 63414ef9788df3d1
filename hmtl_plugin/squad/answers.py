"""Where the answers stand among the tokens of their contexts."""

import numpy as np
import numpy.typing as npt

from hmtl_plugin.data.corpus import Int64Array
from hmtl_plugin.squad.files import SquadFile
from hmtl_plugin.tokenizers.offsets import OffsetArray

QUESTION = np.dtype([("context", "<i4"), ("impossible", "<i4"), ("begin", "<i4"), ("end", "<i4")])
QuestionTable = npt.NDArray[np.void]


def answer_tokens(file: SquadFile, lengths_C: Int64Array, offsets_N2: OffsetArray) -> QuestionTable:
    """(Q,) of `QUESTION`: number of the context, whether marked impossible, and first and last token in the context of
    the first answer: those that share a character with it, -1 if none does.

    Args:
        lengths_C: tokens of each context.
        offsets_N2: characters [begin, end) of the tokens of all contexts.
    """
    questions = file.questions
    table_Q = np.zeros(len(questions), dtype=QUESTION)
    table_Q["context"] = [question.context for question in questions]
    table_Q["impossible"] = [question.impossible for question in questions]
    start_Q = np.array([question.answers[0][1] if question.answers else 0 for question in questions], dtype=np.int64)
    chars_Q = np.array([len(question.answers[0][0]) if question.answers else 0 for question in questions])
    # contexts one behind the other, so that one search finds all
    text_lengths_C = np.array([len(context) for context in file.contexts], dtype=np.int64)
    shift_C = np.cumsum(text_lengths_C) - text_lengths_C
    begin_N, end_N = (offsets_N2 + np.repeat(shift_C, lengths_C)[:, None]).T
    first_token_Q = (np.cumsum(lengths_C) - lengths_C)[table_Q["context"]]
    start_Q += shift_C[table_Q["context"]]
    begin_Q = np.searchsorted(end_N, start_Q, side="right")
    end_Q = np.searchsorted(begin_N, start_Q + chars_Q, side="left") - 1
    found_Q = (chars_Q > 0) & (end_Q >= begin_Q)
    table_Q["begin"] = np.where(found_Q, begin_Q - first_token_Q, -1)
    table_Q["end"] = np.where(found_Q, end_Q - first_token_Q, -1)
    return table_Q
