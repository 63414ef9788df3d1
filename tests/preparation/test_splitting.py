"""The sentence splitter's contract; its quality is the library's."""

import random

import pytest
import sentencex

from hmtl_plugin.errors import UserError
from hmtl_plugin.preparation.splitting import SentenceSplitter


def test_sentences_are_stripped_and_complete() -> None:
    splitter = SentenceSplitter()
    text = "Mr. Smith went to Washington. He arrived at 3.5 p.m. on Monday! Why? Nobody knows."
    sentences = splitter.split(text)
    assert " ".join(sentences) == text
    assert sentences[0] == "Mr. Smith went to Washington."
    assert len(sentences) >= 4


@pytest.mark.parametrize("text", ["", "word", "...", "\u4f60\u597d\u3002\u518d\u89c1\u3002"])
def test_odd_paragraphs(text: str) -> None:
    assert "".join(SentenceSplitter().split(text)) == text


def test_nothing_is_lost_from_random_tidy_text() -> None:
    generator = random.Random(3)
    alphabet = [*"abAB.!?\"'()“”’。…;: 1é[]*-–", "Mr. ", "e.g. ", "U.S. ", "I. "]
    splitter = SentenceSplitter()
    for _ in range(3000):
        text = " ".join("".join(generator.choice(alphabet) for _ in range(generator.randrange(60))).split())
        assert "".join("".join(splitter.split(text)).split()) == "".join(text.split())


def test_a_panic_of_the_library_costs_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):  # what a Rust panic is in Python
        pass

    def panic(language: str, text: str) -> list[str]:
        raise PanicException("byte index is not a char boundary")

    monkeypatch.setattr(sentencex, "segment", panic)
    assert SentenceSplitter().split("One. Two.") == ["One. Two."]
    monkeypatch.setattr(sentencex, "segment", lambda language, text: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        SentenceSplitter().split("One. Two.")


def test_language_is_checked() -> None:
    with pytest.raises(UserError, match="--language english"):
        SentenceSplitter("english")
