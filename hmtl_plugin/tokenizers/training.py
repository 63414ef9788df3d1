"""Training tokenizers: sentencepiece (unigram, BPE) with fairseq's ids, and WordPiece with BERT's normalisation."""

import io
import re
from collections.abc import Callable, Iterable, Iterator

from hmtl_plugin.errors import UserError
from hmtl_plugin.tokenizers.base import MASK, SPECIALS
from hmtl_plugin.tokenizers.wordpiece import CONTINUES, wordpiece_file

_TRAINING_THREADS = 4  # fixed: sums of floats depend on it, the machine must not
_MAX_TRAINING_BYTES = 4096
_RESERVED = "\u2585"  # sentencepiece keeps it for itself, and drops every sentence that holds one


def training_text(sentences: Iterable[str]) -> Iterator[str]:
    """Sentences as the trainers take them: over-long ones in pieces of at most 4,096 bytes, cut at a space, or at a
    character where a run without a space is as long as that. sentencepiece drops what is longer.
    """
    for sentence in sentences:
        sentence = sentence.replace(_RESERVED, " ")
        if len(sentence) * 4 <= _MAX_TRAINING_BYTES or len(data := sentence.encode()) <= _MAX_TRAINING_BYTES:
            yield sentence
            continue
        start = 0
        while len(data) - start >= _MAX_TRAINING_BYTES:
            end = start + _MAX_TRAINING_BYTES
            if (space := data.rfind(b" ", start + 1, end)) > 0:
                yield data[start:space].decode()
                start = space + 1
                continue
            while end < len(data) and data[end] & 0xC0 == 0x80:  # within a character
                end -= 1
            yield data[start:end].decode()
            start = end
        if start < len(data):
            yield data[start:].decode()


def train_tokenizer(
    sentences: Iterable[str], vocab_size: int, model_type: str = "unigram", character_coverage: float = 0.9995
) -> bytes:
    """Train a sentencepiece model with fairseq's ids; the same sentences give the same bytes.

    Args:
        sentences: tidy sentences, already sampled.
        vocab_size: pieces in all, the five specials included; the size of the dictionary.
        model_type: ``unigram`` or ``bpe``.
        character_coverage: share of the text's characters that get a piece; the rest becomes ``<unk>``.

    Raises:
        UserError: the text is too little for so many pieces, or has more characters than pieces.
    """
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(training_text(sentences)),
            model_writer=model,
            vocab_size=vocab_size,
            model_type=model_type,
            character_coverage=character_coverage,
            max_sentence_length=_MAX_TRAINING_BYTES + 1,
            bos_id=0,
            pad_id=1,
            eos_id=2,
            unk_id=3,
            bos_piece=SPECIALS[0],
            pad_piece=SPECIALS[1],
            eos_piece=SPECIALS[2],
            unk_piece=SPECIALS[3],
            control_symbols=[MASK],
            num_threads=_TRAINING_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explain(error, vocab_size) from error
    return model.getvalue()


def _explain(error: RuntimeError, vocab_size: int) -> UserError:
    message = str(error)
    if found := re.search(r"set it to a value <= (\d+)", message):
        return UserError(f"--vocab-size {vocab_size} is too large for this text; the largest possible is {found[1]}")
    if found := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
        return UserError(
            f"--vocab-size {vocab_size} is too small for this text: its characters alone need {found[1]}; "
            "raise it or lower --character-coverage"
        )
    return UserError(
        f"sentencepiece cannot train on this text with --vocab-size {vocab_size}: {' '.join(message.split())}"
    )


def _characters(
    sentences: Iterable[str],
    normalise: Callable[[str], str],
    words_of: Callable[[str], list[tuple[str, tuple[int, int]]]],
) -> list[str]:
    """The pieces of one character that the sentences need, sorted: those that begin a word, then those within one."""
    words = {word for sentence in sentences for word, _ in words_of(normalise(sentence))}
    first = {word[0] for word in words}
    within = {character for word in words for character in word[1:]}
    return [*sorted(first), *(f"{CONTINUES}{character}" for character in sorted(within))]


def train_wordpiece(sentences: Iterable[str], vocab_size: int, lowercase: bool) -> bytes:
    """Train a WordPiece vocabulary with BERT's normalisation; returns a tokenizer.json. The same sentences give the
    same bytes.

    Args:
        sentences: tidy sentences, already sampled.
        vocab_size: pieces in all, the five specials included.

    Raises:
        UserError: the text is too little for so many pieces, or has more characters than pieces.
    """
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers, trainers

    library = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # BERT's order
    kept = list(training_text(sentences))
    # The library numbers single characters in the order of a hash table, and ties between pairs go by these numbers.
    fixed = [*specials, *_characters(kept, library.normalizer.normalize_str, library.pre_tokenizer.pre_tokenize_str)]
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=fixed, show_progress=False)
    library.train_from_iterator(kept, trainer)
    found = library.get_vocab()
    if len(found) < vocab_size:
        raise UserError(f"--vocab-size {vocab_size} is too large for this text; the largest possible is {len(found)}")
    if len(found) > vocab_size:
        raise UserError(
            f"--vocab-size {vocab_size} is too small for this text: its characters alone need {len(found)}; raise it"
        )
    return wordpiece_file(sorted(found, key=lambda piece: found[piece]), lowercase)
