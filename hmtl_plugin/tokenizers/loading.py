"""Which tokenizer a file, a folder or a checkpoint holds."""

from pathlib import Path

from hmtl_plugin.errors import UserError
from hmtl_plugin.tokenizers.base import FILE_NAMES, SENTENCEPIECE, VOCABULARY, Tokenizer
from hmtl_plugin.tokenizers.sentencepiece import SentencePieceTokenizer
from hmtl_plugin.tokenizers.wordpiece import WordPieceTokenizer
from hmtl_plugin.tokenizers.wordpiece_files import from_tokenizer_file, from_vocabulary_file


def load_tokenizer(path: Path | str) -> Tokenizer:
    """The tokenizer in a file, or in a folder that holds one: a sentencepiece model, a tokenizer.json or a vocab.txt.

    Raises:
        UserError: when there is none, or it is of a kind that is not known.
    """
    path = Path(path)
    if path.is_dir():
        found = find_tokenizer(path)
        if found is None:
            raise UserError(f"{path}: holds no {', '.join((*FILE_NAMES, VOCABULARY))}: name the tokenizer's file")
        path = found
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if path.name == VOCABULARY:
        return from_vocabulary_file(path, content)
    if content.lstrip()[:1] == b"{":
        return from_tokenizer_file(path, content)
    return _open(content, SENTENCEPIECE, str(path))


def tokenizer_from_bytes(file_name: str, content: bytes) -> Tokenizer:
    """The tokenizer that `Tokenizer.to_bytes` gave, as it travels in a checkpoint."""
    return _open(content, file_name, file_name)


def find_tokenizer(folder: Path | str) -> Path | None:
    """The tokenizer file of a data or checkpoint folder, None where there is none."""
    names = (*FILE_NAMES, VOCABULARY)
    return next((path for name in names if (path := Path(folder) / name).is_file()), None)


def _open(content: bytes, file_name: str, source: str) -> Tokenizer:
    """A tokenizer of the kind that the content is; ``source`` for messages."""
    if content[:1] == b"\n":  # field 1 of a protocol buffer, the pieces; anything else makes the library log
        return SentencePieceTokenizer(content, file_name, source=source)
    if content.lstrip()[:1] == b"{":
        return WordPieceTokenizer(content, source)
    raise UserError(
        f"{source}: not a sentencepiece model; give the .model file that spm_train wrote, a tokenizer.json, or a vocab.txt"
    )
