"""Dictionary and tokenizer as they travel in checkpoints (fairseq's ``task_state``)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary
from torch import Tensor

from hmtl_plugin.corruption.vocabulary import MASK, Vocabulary
from hmtl_plugin.errors import UserError
from hmtl_plugin.tokenizers.base import Tokenizer


def read_dictionary(path: Path) -> Dictionary:
    """A ``dict.txt``.

    Raises:
        UserError: if it cannot be read as one.
    """
    try:
        return Dictionary.load(str(path))
    except FileNotFoundError:
        raise UserError(f"{path}: missing: restore the file, or prepare the data again") from None
    except Exception as error:  # fairseq raises nothing more special for another encoding
        raise UserError(f"{path}: is no dictionary ({' '.join(str(error).split())[:120]}): restore the file") from None


def vocabulary_state(dictionary: Dictionary, tokenizer: Tokenizer | None, words: bool = True) -> dict[str, Any]:
    """What a task puts into a checkpoint, as bytes: it needs nothing beside it then.

    Args:
        words: see `Vocabulary.without_words`.
    """
    state: dict[str, Any] = {"dictionary": _to_tensor("\n".join(dictionary.symbols).encode())}
    if not words:
        state["words"] = False
    if tokenizer is not None:
        state |= {"tokenizer_name": tokenizer.file_name, "tokenizer": _to_tensor(tokenizer.to_bytes())}
    return state


def dictionary_in(state: dict[str, Any]) -> Dictionary:
    """The dictionary that `vocabulary_state` put into a checkpoint.

    Raises:
        UnicodeDecodeError: if it is damaged.
    """
    dictionary = Dictionary()
    for symbol in state["dictionary"].numpy().tobytes().decode().split("\n")[dictionary.nspecial :]:
        dictionary.add_symbol(symbol)
    return dictionary


def vocabulary_of(dictionary: Dictionary, state: dict[str, Any]) -> Vocabulary:
    """The vocabulary of a checkpoint, with words as its training had them."""
    vocabulary = Vocabulary.from_dictionary(dictionary)
    return vocabulary if state.get("words", True) else vocabulary.without_words()


def check_dictionary(state: dict[str, Any], dictionary: Dictionary, data: str) -> None:
    """Raise `UserError` if a checkpoint's state holds another dictionary than that of the folder ``data``."""
    stored = state.get("dictionary")
    if stored is not None and stored.numpy().tobytes() != "\n".join(dictionary.symbols).encode():
        raise UserError(
            f"{data}: the dictionary is not the one that the checkpoint was trained with: binarise the text with that one's"
        )


def check_folder(folder: Path, dictionary: Dictionary) -> None:
    """Raise `UserError` if a folder of data was binarised with another dictionary than this; one without dict.txt may
    be anything.
    """
    path = folder / "dict.txt"
    if not path.is_file():
        return
    own = read_dictionary(path)
    own.add_symbol(MASK)
    if own.symbols != dictionary.symbols:
        raise UserError(
            f"{path}: is another dictionary than that of the checkpoint, or of the first folder: binarise this text with that one's"
        )


def _to_tensor(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy())
