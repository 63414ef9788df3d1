"""Offsets of tokens: the characters of the text as it was given, in any script, through any normalisation."""

import io
import itertools
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hmtl_plugin.tokenizers.base import UNK, Tokenizer
from hmtl_plugin.tokenizers.loading import tokenizer_from_bytes
from hmtl_plugin.tokenizers.offsets import encode_with_offsets
from hmtl_plugin.tokenizers.sentencepiece import SentencePieceTokenizer
from hmtl_plugin.tokenizers.training import train_tokenizer
from tests.preparation.texts import documents

SENTENCES = [s for doc in documents(150) for s in doc] + [
    "a < b > c / d k u <mask> </s> <s> \u4e2d\u6587 \u0645\u0631"
] * 20
TRICKY = [
    *"aB1 .,'\u2026\u4e2d\u3000\u00e9\u0301\u0e01\u0e33\u0645\u0651\ufdfa\ufb01\u2460\u00bd\u2122\uff26\u00a0\u200d\u200b\u200f\ufeff\u2581\ufffd\t\n\r\x07",
    "  ",
    "<s>",
    "<mask>",
    "</s>",
    "<unk>",
    "\U0001f469\U0001f3fd\u200d\U0001f680",
    "The cat",
]


def stock(**options: Any) -> Tokenizer:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=model, minloglevel=2, **options
    )
    return tokenizer_from_bytes("stock.model", model.getvalue())


TOKENIZERS = {
    "unigram": SentencePieceTokenizer(train_tokenizer(SENTENCES, 120)),
    "bpe": SentencePieceTokenizer(train_tokenizer(SENTENCES, 120, "bpe")),
    "bytes": stock(vocab_size=400, byte_fallback=True, normalization_rule_name="identity"),
    "all spaces kept": stock(vocab_size=120, normalization_rule_name="nfkc_cf", remove_extra_whitespaces=False),
    "knows specials": stock(vocab_size=120, user_defined_symbols=["<mask>", "<pad>", "<cls>"]),
    "space last": stock(vocab_size=120, treat_whitespace_as_suffix=True),
}
texts_of = st.lists(st.sampled_from(TRICKY) | st.characters(exclude_categories=["Cs"]), max_size=25).map("".join)
every_tokenizer = pytest.mark.parametrize("name", list(TOKENIZERS))


def encode(name: str, text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """Symbols of a text and their offsets."""
    tokenizer = TOKENIZERS[name]
    ids_N, lengths, offsets_N2 = encode_with_offsets(tokenizer, [text])
    assert lengths.tolist() == [len(ids_N)]
    return [tokenizer.symbols[i] for i in ids_N], [tuple(pair) for pair in offsets_N2.tolist()]


def blank(character: str) -> bool:
    return character.isspace() or character in "\u200b\u200e\u200f\ufeff"


@every_tokenizer
@given(texts=st.lists(texts_of, max_size=4))
@example(texts=["", " ", "a <mask><s>  <pad>b", "\ufdfa\ufdfa", "x\ufb01", ""])
@settings(max_examples=150, deadline=None)
def test_ids_are_encode_flat_s_and_offsets_rise_within_their_text(name: str, texts: list[str]) -> None:
    tokenizer = TOKENIZERS[name]
    ids_N, lengths, offsets_N2 = encode_with_offsets(tokenizer, texts)
    expected_ids, expected_lengths = tokenizer.encode_flat(texts)
    assert ids_N.tolist() == expected_ids.tolist()
    assert lengths.tolist() == expected_lengths.tolist()
    assert ids_N.dtype == np.int64 and offsets_N2.dtype == np.int32 and offsets_N2.shape == (len(ids_N), 2)
    bounds = [0, *np.cumsum(lengths).tolist()]
    for text, (first, last) in zip(texts, itertools.pairwise(bounds), strict=True):
        offsets = offsets_N2[first:last]
        assert (np.diff(offsets, axis=0) >= 0).all()
        assert (offsets[:, 0] <= offsets[:, 1]).all()
        assert ((offsets >= 0) & (offsets <= len(text))).all()
        pieces = [text[begin:end] for begin, end in offsets.tolist()]
        assert not any(piece and (blank(piece[0]) or blank(piece[-1])) for piece in pieces)
        alone = encode_with_offsets(tokenizer, [text])[2]
        assert alone.tolist() == offsets.tolist()  # whatever stands before it


@every_tokenizer
@given(text=texts_of)
@example(text="\ufdfa \u2026\u00bd\ufb01")
@settings(max_examples=200, deadline=None)
def test_what_survives_normalisation_is_covered(name: str, text: str) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_proto=TOKENIZERS[name].to_bytes())
    normalised, origins = processor.normalize(text, with_offsets=True)
    kept = {origin for character, origin in zip(normalised, origins) if character != "\u2581"}
    covered = {place for begin, end in encode(name, text)[1] for place in range(begin, end)}
    assert {place for place in kept if not blank(text[place])} <= covered


@every_tokenizer
@given(text=texts_of)
@settings(max_examples=100, deadline=None)
def test_empty_is_only_what_was_made_of_white_space(name: str, text: str) -> None:
    symbols, offsets = encode(name, text)
    ranges = TOKENIZERS[name].encode_with_ranges(text)[1].tolist()
    for symbol, (begin, end), (first, last) in zip(symbols, offsets, ranges, strict=True):
        made_of = text[first : max(last, first + 1)]  # no range of its own: it shares the character
        assert (begin == end) <= (not symbol.strip("\u2581") or all(map(blank, made_of)))


def spans(name: str, text: str) -> list[str]:
    return [text[begin:end] for begin, end in encode(name, text)[1]]


def test_characters_not_bytes_are_counted_and_white_space_is_left_out() -> None:
    text = "  \u4e2d\u6587\t\u0e01\u0e33  the\u00a0\n\U0001f469\U0001f3fd\u200d\U0001f680 dog."
    pieces = spans("unigram", text)
    assert "".join(pieces) == "".join(text.split())
    symbols, offsets = encode("unigram", text)
    start = text.index("the")
    place = symbols.index("\u2581t")
    assert offsets[place : place + 2] == [(start, start + 1), (start + 1, start + 3)]
    assert encode("unigram", " the")[1] == [(1, 2), (2, 4)]


def test_a_space_alone_is_empty_at_the_next_visible_character() -> None:
    symbols, offsets = encode("unigram", " a \u3000\u5b57")
    assert symbols[-2:] == ["\u2581", "<unk>"]
    assert offsets[-2:] == [(4, 4), (4, 5)]


def test_what_becomes_several_pieces_belongs_to_each() -> None:
    symbols, offsets = encode("unigram", "a\ufdfab")  # four words of Arabic
    assert len(symbols) > 4
    assert offsets[:2] == [(0, 0), (0, 1)] and offsets[-1] == (2, 3)
    assert set(offsets[2:-1]) == {(1, 2)}
    symbols, offsets = encode("bytes", "\U0001f680x")
    assert [symbol for symbol, pair in zip(symbols, offsets) if pair == (0, 1)] == [
        "<0xF0>",
        "<0x9F>",
        "<0x9A>",
        "<0x80>",
    ]
    assert offsets[-1] == (1, 2)


def test_several_characters_that_become_one() -> None:
    text = "caf" + "e\u0301" + "s"
    pieces = spans("unigram", text)
    assert "e\u0301" in "|".join(pieces) and "".join(pieces) == text


def test_literals_of_specials_are_text_at_their_place() -> None:
    text = "a<mask>b <pad>"
    tokenizer = TOKENIZERS["knows specials"]
    ids_N, _, offsets_N2 = encode_with_offsets(tokenizer, [text])
    forbidden = {0, 1, 2, tokenizer.symbols.index("<mask>")}
    assert not forbidden & set(ids_N.tolist())
    assert "".join(text[begin:end] for begin, end in offsets_N2.tolist()) == text.replace(" ", "")
    assert "".join(spans("knows specials", "x <cls> y")) == "x<cls>y"


def test_unknown_characters_have_a_place() -> None:
    ids_N, _, offsets_N2 = encode_with_offsets(TOKENIZERS["unigram"], ["the \u16a0\u16a1 dog"])
    assert offsets_N2[ids_N == UNK].tolist() == [[4, 6]]


def test_nothing_in_nothing_out() -> None:
    for texts in ([], ["", "  "]):
        ids_N, lengths, offsets_N2 = encode_with_offsets(TOKENIZERS["unigram"], texts)
        assert len(ids_N) == 0 and lengths.tolist() == [0] * len(texts) and offsets_N2.shape == (0, 2)
