"""WordPiece: BERT's own ids, fairseq's specials, words, offsets; every way to be given one; training."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.data.corpus import Corpus
from hmtl_plugin.data.manifest import check_manifest
from hmtl_plugin.errors import UserError
from hmtl_plugin.preparation.options import PrepareOptions
from hmtl_plugin.preparation.prepare import prepare_corpus
from hmtl_plugin.tokenizers.base import MASK, SPECIALS, Tokenizer
from hmtl_plugin.tokenizers.loading import load_tokenizer, tokenizer_from_bytes
from hmtl_plugin.tokenizers.offsets import encode_with_offsets
from hmtl_plugin.tokenizers.wordpiece import BERT_SPECIALS, WordPieceTokenizer, wordpiece_file
from tests.preparation.texts import documents, write_sentences

pytest.importorskip("tokenizers")
from hmtl_plugin.tokenizers.training import train_wordpiece

SENTENCES = [s for doc in documents(100) for s in doc]
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
VOCABULARY = list(
    dict.fromkeys(
        [
            *("[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
            *(
                "the",
                "cat",
                "##s",
                "sat",
                "un",
                "##want",
                "##ed",
                "runn",
                "##ing",
                ",",
                ".",
                "!",
                "?",
                "'",
                "[",
                "]",
                "mask",
                "中",
                "国",
            ),
            *(c for letter in LETTERS for c in (letter, f"##{letter}")),
        ]
    )
)
TEXTS = [
    *(
        "The cats sat, unwanted!",
        "the\tcat  sat\n",
        "Únwanted café",
        "中国the 中",
        "it's [MASK] here",
        "<s> </s> <mask>",
        "",
    ),
    *(
        "\u200bthe\u00a0cat",
        "e\u0301 é",
        "🙂 the",
        "a\x00b\ufffdc",
        "x" * 101,
        "ｆｕｌｌ",
        "ſ ß İ",
        "the\u2019s",
        "\u0e01\u0e32",
    ),
]


def vocabulary_file(folder: Path, vocabulary: list[str] = VOCABULARY, **config: Any) -> Path:
    """vocab.txt, and tokenizer_config.json if there are options."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in vocabulary), encoding="utf-8")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder / "vocab.txt"


@pytest.fixture(params=[True, False])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    return load_tokenizer(vocabulary_file(tmp_path, do_lower_case=request.param))


@pytest.mark.parametrize("lowercase", [True, False])
def test_ids_are_those_of_transformers(tmp_path: Path, lowercase: bool) -> None:
    transformers = pytest.importorskip("transformers")
    ours = load_tokenizer(vocabulary_file(tmp_path, do_lower_case=lowercase))
    theirs = transformers.BertTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=lowercase)
    name_of = {piece: BERT_SPECIALS.get(piece, piece) for piece in VOCABULARY}
    for text in TEXTS:
        if "[MASK]" in text:
            continue  # theirs is the special, ours is not
        expected = [name_of[piece] for piece in theirs.tokenize(text)]
        assert [ours.symbols[i] for i in ours.encode(text)] == expected, text


def test_specials_have_fairseq_s_names_and_places(tokenizer: Tokenizer, tmp_path: Path) -> None:
    assert tokenizer.symbols[:5] == [*SPECIALS, MASK]
    assert tokenizer.symbols[5:9] == ["[unused0]", "[unused1]", "the", "cat"]
    assert len(tokenizer) == len(VOCABULARY)
    from fairseq.data import Dictionary

    (tmp_path / "dict.txt").write_text(tokenizer.dictionary_text(), encoding="utf-8")
    tokenizer.check(Dictionary.load(str(tmp_path / "dict.txt")))


def test_text_never_becomes_a_special(tokenizer: Tokenizer) -> None:
    for text in ("[MASK]", "[CLS] the [SEP]", "<mask>", "</s>", "[UNK][PAD]"):
        ids = tokenizer.encode(text)
        assert ids
        assert not set(ids) & {0, 1, 2, 4}, text


def test_batches_are_single_texts(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode_batch(TEXTS) == [tokenizer.encode(text) for text in TEXTS]
    ids_N, lengths = tokenizer.encode_flat(TEXTS)
    assert lengths.tolist() == [len(tokenizer.encode(text)) for text in TEXTS]
    assert ids_N.dtype == np.int64
    assert tokenizer.encode_flat([])[0].shape == (0,)


def test_decoding_joins_pieces(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the cats sat, unwanted")
    assert tokenizer.decode([0, *ids, 2, 1]) == "the cats sat , unwanted"
    assert tokenizer.decode([ids[0], 4, 3]) == "the <mask> <unk>"
    with pytest.raises(UserError, match="outside the vocabulary"):
        tokenizer.decode([len(VOCABULARY)])


def test_offsets_are_the_characters_of_each_piece(tokenizer: Tokenizer) -> None:
    texts = ["  the cats,sat ", "中国 unwanted", "Únwanted!", "🙂 the"]
    ids_N, lengths, offsets_N2 = encode_with_offsets(tokenizer, texts)
    assert ids_N.tolist() == tokenizer.encode_flat(texts)[0].tolist()
    start = 0
    for text, length in zip(texts, lengths.tolist()):
        for i, (begin, end) in zip(ids_N[start : start + length], offsets_N2[start : start + length].tolist()):
            symbol = tokenizer.symbols[i].removeprefix("##")
            shown = text[begin:end]
            assert symbol == "<unk>" or len(symbol) == len(shown)
            assert shown == shown.strip() != ""
        start += length


def test_words_are_runs_of_pieces(tokenizer: Tokenizer) -> None:
    vocabulary = Vocabulary.from_dictionary(tokenizer.dictionary())
    index = {symbol: i for i, symbol in enumerate(tokenizer.symbols)}
    assert vocabulary.has_words
    assert [bool(vocabulary.word_start_V[index[s]]) for s in ("cat", "##s", ",", "中")] == [True, False, True, True]
    assert [bool(vocabulary.plain_V[index[s]]) for s in ("cat", "##s", ",", "中")] == [True, True, False, True]
    assert not set(vocabulary.replacements.tolist()) & {0, 1, 2, 3, 4, index["[unused0]"], index["[unused1]"]}
    assert index["the"] in vocabulary.replacements


def test_it_travels_and_comes_back(tokenizer: Tokenizer) -> None:
    again = tokenizer_from_bytes(tokenizer.file_name, tokenizer.to_bytes())
    pickled = pickle.loads(pickle.dumps(tokenizer))  # to worker processes
    for other in (again, pickled):
        assert other.sha256 == tokenizer.sha256
        assert other.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)


def test_bound_to_a_dictionary_of_another_order(tokenizer: Tokenizer) -> None:
    from fairseq.data import Dictionary

    dictionary = Dictionary()
    for symbol in [*reversed(tokenizer.symbols[5:]), MASK]:
        dictionary.add_symbol(symbol)
    with pytest.raises(UserError, match="does not belong"):
        tokenizer.check(dictionary)
    bound = tokenizer.bound_to(dictionary)
    assert [dictionary[i] for i in bound.encode("the cats")] == ["the", "cat", "##s"]
    assert bound.decode(bound.encode("the cats")) == "the cats"


def test_a_tokenizer_json_is_the_vocabulary_file(tmp_path: Path) -> None:
    from_file = load_tokenizer(vocabulary_file(tmp_path / "a", do_lower_case=True))
    transformers = pytest.importorskip("transformers")
    transformers.BertTokenizer(str(tmp_path / "a" / "vocab.txt"), do_lower_case=True).save_pretrained(
        str(tmp_path / "b")
    )
    assert not (tmp_path / "b" / "sentencepiece.bpe.model").exists()
    saved = load_tokenizer(tmp_path / "b")  # a folder: its tokenizer.json, which knows specials as added tokens
    assert saved.encode_batch(TEXTS) == from_file.encode_batch(TEXTS)
    assert saved.symbols == from_file.symbols


def _json(**changes: Any) -> bytes:
    settings = json.loads(wordpiece_file(VOCABULARY, True))
    settings["model"] |= changes
    return json.dumps(settings).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "no tokenizer.json"),
        (b'{"model": 3}', "no tokenizer.json"),
        (_json(type="BPE"), "its model is BPE, not WordPiece"),
        (_json(continuing_subword_prefix="@@"), "pieces go on with '@@'"),
        (_json(unk_token="<oov>"), "becomes '<oov>', not '\\[UNK\\]'"),
        (_json(vocab={**{p: i for i, p in enumerate(VOCABULARY)}, "twice": 7}), "each once"),
        (_json(vocab={p: i for i, p in enumerate(VOCABULARY[7:])}), r"lacks \[CLS\], \[PAD\]"),
        (_json(vocab={p: i for i, p in enumerate([*VOCABULARY, "<s>"])}), "a piece <s>"),
    ],
)
def test_what_is_no_wordpiece_is_refused_in_a_line(content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        tokenizer_from_bytes("tokenizer.json", content)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no sentencepiece\.bpe\.model, tokenizer\.json, vocab\.txt"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("lowercase", [True, False])
def test_trained_vocabulary_is_of_the_size_asked_for(lowercase: bool) -> None:
    content = train_wordpiece(SENTENCES, 150, lowercase)
    assert train_wordpiece(SENTENCES, 150, lowercase) == content
    tokenizer = WordPieceTokenizer(content)
    assert len(tokenizer) == 150
    assert tokenizer.symbols[:5] == [*SPECIALS, MASK]
    ids = tokenizer.encode(SENTENCES[0])
    assert 3 not in ids
    assert any(symbol.isupper() for symbol in tokenizer.symbols[5:]) != lowercase
    assert tokenizer.decode(ids).replace(" ", "").lower() == SENTENCES[0].replace(" ", "").lower()


@pytest.mark.parametrize(("size", "message"), [(100_000, "the largest possible is"), (12, "its characters alone need")])
def test_impossible_sizes_say_what_is_possible(size: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train_wordpiece(SENTENCES, size, True)


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_corpus_is_prepared_with_it(tmp_path: Path, lowercase: bool) -> None:
    source = write_sentences(tmp_path / "text", documents(60))
    options = PrepareOptions(
        "sentences", vocab_size=150, model_type="wordpiece", lowercase=lowercase, valid_fraction=0.2
    )
    for workers in (1, 2):
        prepare_corpus([str(source)], tmp_path / f"data{workers}", replace(options, workers=workers))
    for name in ("train.bin", "valid.bin", "dict.txt", "tokenizer.json", "corpus.json"):
        assert (tmp_path / "data1" / name).read_bytes() == (tmp_path / "data2" / name).read_bytes()
    tokenizer = load_tokenizer(tmp_path / "data1")
    corpus = Corpus(str(tmp_path / "data1" / "valid"), eos=2)
    shown = {tokenizer.decode(sentence) for sentence in np.split(corpus.tokens, np.flatnonzero(corpus.tokens == 2) + 1)}
    known = {tokenizer.decode(tokenizer.encode(s)) for doc in documents(60) for s in doc}
    assert shown - {""} <= known
    assert check_manifest(tmp_path / "data1", "valid") is not None
    (tmp_path / "data1" / "tokenizer.json").write_bytes(train_wordpiece(SENTENCES, 140, lowercase))
    with pytest.raises(UserError, match=r"tokenizer\.json: does not belong to the data beside it"):
        check_manifest(tmp_path / "data1", "valid")


def test_lowercase_is_for_wordpiece_only() -> None:
    with pytest.raises(UserError, match="--lowercase is for --model-type wordpiece"):
        PrepareOptions("sentences", vocab_size=100, lowercase=True).check()


@pytest.mark.parametrize("config", [{}, {"model_max_length": 512}])
@pytest.mark.parametrize("cased", [True, False])
def test_without_a_word_on_case_the_vocabulary_tells(tmp_path: Path, cased: bool, config: dict[str, Any]) -> None:
    vocabulary = [*VOCABULARY, *(["The", "Cat"] if cased else [])]
    tokenizer = load_tokenizer(vocabulary_file(tmp_path, vocabulary, **config))
    assert [tokenizer.symbols[i] for i in tokenizer.encode("The Cat")] == (["The", "Cat"] if cased else ["the", "cat"])


@pytest.mark.parametrize("config", [{"do_lower_case": False}, {"do_lower_case": True, "strip_accents": False}, {}])
def test_tokenizer_config_counts_beside_a_tokenizer_json(tmp_path: Path, config: dict[str, Any]) -> None:
    """As for transformers."""
    transformers = pytest.importorskip("transformers")
    content = wordpiece_file(VOCABULARY, lowercase=True)
    (tmp_path / "tokenizer.json").write_bytes(content)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **config}))
    ours, theirs = load_tokenizer(tmp_path), transformers.BertTokenizer.from_pretrained(tmp_path)
    for text in ("The cats", "caf\u00e9 the", "the \u4e2d\u56fd"):
        expected = [BERT_SPECIALS.get(piece, piece) for piece in theirs.tokenize(text)]
        assert [ours.symbols[i] for i in ours.encode(text)] == expected, text
    assert (ours.to_bytes() == content) == (not config)
    again = tokenizer_from_bytes("tokenizer.json", ours.to_bytes())
    assert again.encode("The caf\u00e9") == ours.encode("The caf\u00e9")
