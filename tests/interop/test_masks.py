"""Beside a mask text has the ids that it has beside the word: in the hub, and in an exported tokenizer."""

import io
import re
from pathlib import Path
from typing import Any

import pytest

from hmtl_plugin import HierarchicalBert
from hmtl_plugin.interop.exporting import export_hf
from hmtl_plugin.tokenizers.base import SENTENCEPIECE, Tokenizer
from hmtl_plugin.tokenizers.loading import tokenizer_from_bytes
from hmtl_plugin.tokenizers.training import train_tokenizer
from tests.interop.checkpoints import save_checkpoint
from tests.preparation.texts import documents

PLAIN = [s for doc in documents(60) for s in doc]
FORMS = (
    "{}",
    "({})",
    "“{}” - {}",
    "It's  {}, the cat's; the/old dog!",
    "cat, {}?",
)  # words at both ends and beside marks
SENTENCES = [FORMS[n % len(FORMS)].format(s, s) for n, s in enumerate(PLAIN)]
BY_HAND = [
    *("The <mask>.", "<mask>, the cat", "(<mask>)", "the <mask>'s cat", "<mask> <mask> cat", "<mask><mask>", "<mask>"),
    *(" <mask> ", "the  <mask>\tcat", "the<mask> .", "\u3000<mask>\u3000.", "the cat."),
]
KINDS: dict[str, dict[str, Any]] = {
    "unigram": {},
    "bpe": {"model_type": "bpe"},
    "spaces kept": {"remove_extra_whitespaces": False},
    "no dummy prefix": {"add_dummy_prefix": False},
    "marks at ends": {"treat_whitespace_as_suffix": True},
    "pieces of words": {"split_by_whitespace": False},
}


def _wordpiece() -> Tokenizer:
    pytest.importorskip("tokenizers")
    from hmtl_plugin.tokenizers.training import train_wordpiece

    return tokenizer_from_bytes("tokenizer.json", train_wordpiece(SENTENCES, 200, lowercase=True))


def _sentencepiece(**options: Any) -> Tokenizer:
    import sentencepiece

    model = io.BytesIO()
    settings = {"vocab_size": 160, "minloglevel": 2, "hard_vocab_limit": False, **options}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(SENTENCES), model_writer=model, **settings)
    return tokenizer_from_bytes(SENTENCEPIECE, model.getvalue())


def _hub(folder: Path, kind: str) -> HierarchicalBert:
    tokenizer = _wordpiece() if kind == "wordpiece" else _sentencepiece(**KINDS[kind])
    return HierarchicalBert.from_pretrained(save_checkpoint(folder, tokenizer, max_positions=200))


@pytest.mark.parametrize("kind", ["wordpiece", *KINDS])
def test_ids_are_those_of_the_text_with_the_word_in_place(tmp_path: Path, kind: str) -> None:
    """Wherever a word of one piece stands."""
    model, found = _hub(tmp_path / "run", kind), 0
    for text in SENTENCES:
        ids, (_, ranges_N2) = model.encode(text), model.tokenizer.encode_with_ranges(text)
        places = {(end - len(text[begin:end].strip()), end): n for n, (begin, end) in enumerate(ranges_N2.tolist(), 1)}
        for word in re.finditer(r"\w+", text):
            place = places.get(word.span())
            if place is None or "\u2581" in (model.dictionary[ids[place - 1]], model.dictionary[ids[place + 1]]):
                continue  # more than one piece, the word's blank among them
            if kind == "pieces of words" and text[word.end() : word.end() + 1] == " ":
                continue  # they may go on beyond it
            expected = ids.clone()
            expected[place] = model.vocabulary.mask
            masked = f"{text[: word.start()]}<mask>{text[word.end() :]}"
            assert model.encode(masked).tolist() == expected.tolist(), masked
            found += 1
    assert found > 100


def test_text_around_masks_comes_back(tmp_path: Path) -> None:
    """As it was, punctuation too; also the masks that are not filled."""
    tokenizer = tokenizer_from_bytes(SENTENCEPIECE, train_tokenizer(SENTENCES, 140, character_coverage=1.0))
    model = HierarchicalBert.from_pretrained(save_checkpoint(tmp_path / "run", tokenizer))
    for text in ("The <mask>.", "<mask>, the cat", "the <mask>'s cat <mask>", "<mask> the <mask>!"):
        assert model.decode(model.encode(text)) == text
    assert all(filled.text.endswith(" <mask>.") for filled in model.fill_mask("The <mask> sees the <mask>."))


@pytest.mark.parametrize("kind", ["wordpiece", *sorted({*KINDS} - {"marks at ends"})])
def test_an_exported_tokenizer_gives_the_hubs_ids(tmp_path: Path, kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    model = _hub(tmp_path / "run", kind)
    export_hf(tmp_path / "run", tmp_path / "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    index = {symbol: number for number, symbol in enumerate(model.dictionary.symbols)}
    names = {"[CLS]": "<s>", "[SEP]": "</s>", "[PAD]": "<pad>", "[UNK]": "<unk>", "[MASK]": "<mask>"}
    ours = [index[names.get(token, token)] for token in theirs.convert_ids_to_tokens(range(len(index)))]
    masked = [text.replace(word, "<mask>") for text in SENTENCES[:40] for word in ("old", "times", "The", "cat")]
    for text in [*BY_HAND, *masked]:
        ids = theirs(text.replace("<mask>", theirs.mask_token)).input_ids
        assert [ours[number] for number in ids] == model.encode(text).tolist(), text
