"""Settings of a sentencepiece model, and files that are none."""

import io
import random
import sys
from typing import Any

import pytest
import sentencepiece

from hmtl_plugin.errors import UserError
from hmtl_plugin.interop.sentencepiece_model import read_settings
from tests.preparation.texts import documents

pytest.importorskip("google.protobuf")


def model(**options: Any) -> bytes:
    """A trained one."""
    written = io.BytesIO()
    sentences = iter([sentence for document in documents(150) for sentence in document])
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences, model_writer=written, vocab_size=110, minloglevel=2, **options
    )
    return written.getvalue()


def test_what_it_was_trained_with() -> None:
    settings = read_settings(model(), "m")
    assert (settings.kind, settings.dummy_prefix, settings.strips_spaces) == ("unigram", True, True)
    assert settings.charsmap and not settings.space_at_end and settings.user_defined == ()
    spaces = {"add_dummy_prefix": False, "remove_extra_whitespaces": False, "treat_whitespace_as_suffix": True}
    given = {"model_type": "bpe", "normalization_rule_name": "identity", "user_defined_symbols": ["9", "<sep>"]}
    settings = read_settings(model(**spaces, **given), "m")
    assert (settings.kind, settings.dummy_prefix, settings.strips_spaces) == ("bpe", False, False)
    assert not settings.charsmap and settings.space_at_end and settings.user_defined == ("9", "<sep>")


def test_a_damaged_model_is_refused_or_read() -> None:
    content, draw, refusals = model(), random.Random(1), []
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(4):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        try:
            read_settings(bytes(damaged[: draw.randrange(1, len(damaged))]), "m.model")
        except UserError as error:
            refusals.append(str(error))
    assert len(refusals) > 100
    assert set(refusals) == {"m.model: not a sentencepiece model; give the .model file that spm_train wrote"}


def test_without_protobuf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.protobuf.message", None)
    with pytest.raises(UserError, match=r"^exporting a sentencepiece tokenizer needs the package protobuf .*install"):
        read_settings(b"", "m")
