"""The tokenizer: ids are the dictionary's, text never becomes a special, foreign models work through a table."""

import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from fairseq.data import Dictionary

from hmtl_plugin.errors import UserError
from hmtl_plugin.tokenizers.base import MASK, SPECIALS, Tokenizer
from hmtl_plugin.tokenizers.loading import find_tokenizer, load_tokenizer, tokenizer_from_bytes
from hmtl_plugin.tokenizers.training import train_tokenizer
from tests.preparation.texts import documents

SENTENCES = [s for doc in documents(150) for s in doc] + ["a < b > c / d k u <mask> </s> <s> <unk> <pad>"] * 20


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return tokenizer_from_bytes("sentencepiece.bpe.model", train_tokenizer(SENTENCES, 120, request.param, 1.0))


def stock_model(**options: Any) -> Tokenizer:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=model, vocab_size=110, minloglevel=2, **options
    )
    return tokenizer_from_bytes("stock.model", model.getvalue())


def test_own_ids_are_fairseqs_and_survive_dict_txt(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "dict.txt"
    path.write_text(tokenizer.dictionary_text(), encoding="utf-8")
    loaded = Dictionary.load(str(path))
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.to_bytes())
    assert loaded.symbols == [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    assert loaded.symbols[:5] == [*SPECIALS, MASK]
    assert loaded.symbols == tokenizer.dictionary().symbols
    tokenizer.dictionary().save(str(tmp_path / "saved.txt"))
    assert (tmp_path / "saved.txt").read_text(encoding="utf-8") == tokenizer.dictionary_text()
    tokenizer.check(loaded)


def test_text_never_becomes_a_special(tokenizer: Tokenizer) -> None:
    text = "a <mask> </s> <s> <pad> b <mask><mask>"
    ids = tokenizer.encode(text)
    assert min(ids) > 4
    assert tokenizer.decode(ids) == text


def test_literal_special_known_to_a_foreign_model_by_name() -> None:
    tokenizer = stock_model(user_defined_symbols=["<mask>", "<pad>"])
    for text in ("<mask>", "a <mask> b", "<pad><mask></s>"):
        ids = tokenizer.encode(text)
        assert ids
        assert not set(ids) & {0, 1, 2, tokenizer.symbols.index(MASK)}
    plain = "The cat sees the dog."
    assert tokenizer.encode_batch([plain, "x <mask>", plain])[2] == tokenizer.encode(plain)


def test_foreign_ids_are_mapped_by_piece(tokenizer: Tokenizer) -> None:
    stock = stock_model(model_type="unigram")  # <unk> 0, <s> 1, </s> 2, no pad, no mask
    text = SENTENCES[0]
    processor = sentencepiece.SentencePieceProcessor(model_proto=stock.to_bytes())
    pieces = processor.encode(text, out_type=str)
    dictionary = stock.dictionary()
    assert dictionary.symbols[:5] == [*SPECIALS, MASK]
    assert [dictionary[i] for i in stock.encode(text)] == pieces
    assert stock.encode("\u4e2d")[-1:] == [dictionary.unk()]
    assert stock.decode(stock.encode(text)) == text
    with pytest.raises(UserError, match="does not belong to the dictionary"):
        stock.check(tokenizer.dictionary())
    with pytest.raises(UserError, match="does not belong to the dictionary"):
        tokenizer.check(dictionary)


def test_check_lets_symbols_at_the_end_pass(tokenizer: Tokenizer) -> None:
    dictionary = tokenizer.dictionary()
    dictionary.add_symbol("madeupword0000")
    tokenizer.check(dictionary)
    shorter = Dictionary()
    for symbol in tokenizer.symbols[4:-1]:
        shorter.add_symbol(symbol)
    with pytest.raises(UserError, match=r"nothing in dict\.txt"):
        tokenizer.check(shorter)


def test_bound_to_a_dictionary_of_other_order(tokenizer: Tokenizer) -> None:
    dictionary = Dictionary()
    for symbol in sorted(tokenizer.symbols[5:], reverse=True)[:-3]:
        dictionary.add_symbol(symbol)
    bound = tokenizer.bound_to(dictionary)
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.to_bytes())
    expected = [dictionary.index(piece) for piece in processor.encode(SENTENCES[3], out_type=str)]
    assert bound.encode(SENTENCES[3]) == expected
    strangers = Dictionary()
    for i in range(50):
        strangers.add_symbol(f"word{i}")
    with pytest.raises(UserError, match="does not belong"):
        tokenizer.bound_to(strangers)


def test_decode_shows_mask_and_unknown(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("The cat")
    assert tokenizer.decode([0, *ids, 4, 2, 1]) == "The cat <mask>"
    assert tokenizer.decode([*tokenizer.encode("The"), 4, *tokenizer.encode("sees")]) == "The <mask> sees"
    assert "<unk>" in tokenizer.decode(tokenizer.encode("The \u4e2d cat"))
    assert tokenizer.decode([]) == ""
    with pytest.raises(UserError, match="outside the vocabulary"):
        tokenizer.decode([len(tokenizer)])


def test_bytes_and_pickle_round_trip(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "sentencepiece.bpe.model"
    assert find_tokenizer(tmp_path) is None
    path.write_bytes(tokenizer.to_bytes())
    assert find_tokenizer(tmp_path) == path
    for other in (load_tokenizer(path), pickle.loads(pickle.dumps(tokenizer))):
        assert other.encode_batch(SENTENCES) == tokenizer.encode_batch(SENTENCES)
    assert tokenizer.encode_batch([]) == []
    assert tokenizer.encode_batch(["", "The"])[0] == []


def test_training_is_deterministic_and_takes_long_lines() -> None:
    sentences = [*SENTENCES, "word " * 5000, "x" * 20_000]
    assert train_tokenizer(sentences, 90) == train_tokenizer(sentences, 90)


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_largest_possible_vocabulary_is_named_and_true(model_type: str) -> None:
    with pytest.raises(UserError, match="too large for this text; the largest possible is") as error:
        train_tokenizer(SENTENCES, 1_000_000, model_type)
    largest = int(str(error.value).rsplit(" ", 1)[1])
    assert len(tokenizer_from_bytes("m", train_tokenizer(SENTENCES, largest, model_type))) == largest


def test_vocabulary_too_small_for_the_characters() -> None:
    with pytest.raises(UserError, match="too small for this text: its characters alone need"):
        train_tokenizer(SENTENCES, 12)


@pytest.mark.parametrize("content", [b"", b"junk", b"\njunk", b"\n\x00"])
def test_not_a_model(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.model"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a sentencepiece model"):
        load_tokenizer(path)
