"""What a sentencepiece model says and the library does not tell: how it normalises, its kind, what it was given."""

from dataclasses import dataclass

from hmtl_plugin.errors import UserError


@dataclass(frozen=True)
class ModelSettings:
    """Of a model.

    Attributes:
        kind: ``unigram``, ``bpe``, ``word`` or ``char``.
        charsmap: the compiled normalisation, may be empty.
        dummy_prefix: a space is put before every text.
        strips_spaces: spaces at the ends vanish, several become one.
        space_at_end: the mark of a space ends a piece instead of beginning it.
        user_defined: pieces that the trainer was given (``user_defined_symbols``).
    """

    kind: str
    charsmap: bytes
    dummy_prefix: bool
    strips_spaces: bool
    space_at_end: bool
    user_defined: tuple[str, ...]


def read_settings(content: bytes, source: str) -> ModelSettings:
    """Settings of a model file.

    Raises:
        UserError: for bytes that are none; without the package protobuf, or with one older than sentencepiece's part.
    """
    try:
        from google.protobuf.message import DecodeError
        from sentencepiece.sentencepiece_model_pb2 import ModelProto
    except Exception as error:  # of a version that does not fit it raises an error of its own
        raise UserError(
            f"exporting a sentencepiece tokenizer needs the package protobuf ({error}): pip install -U protobuf"
        ) from None
    try:
        model = ModelProto.FromString(content)
        given = tuple(piece.piece for piece in model.pieces if piece.type == piece.USER_DEFINED)
    except (DecodeError, UnicodeDecodeError):
        raise UserError(f"{source}: not a sentencepiece model; give the .model file that spm_train wrote") from None
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    return ModelSettings(
        trainer.ModelType.Name(trainer.model_type).lower(),
        normalizer.precompiled_charsmap,
        normalizer.add_dummy_prefix,
        normalizer.remove_extra_whitespaces,
        trainer.treat_whitespace_as_suffix,
        given,
    )
