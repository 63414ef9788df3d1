"""Damaged tokenizer files: each is refused in one line, or works, at every door at which a tokenizer comes in."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hmtl_plugin import HierarchicalBert
from hmtl_plugin.errors import UserError
from hmtl_plugin.tokenizers.base import SENTENCEPIECE, WORDPIECE
from hmtl_plugin.tokenizers.loading import load_tokenizer
from hmtl_plugin.tokenizers.training import train_tokenizer
from tests.commands.running import run_script
from tests.interop.checkpoints import save_checkpoint
from tests.preparation.texts import documents, write_sentences

pytest.importorskip("tokenizers")
from hmtl_plugin.tokenizers.wordpiece import wordpiece_file

SENTENCES = [s for doc in documents(40) for s in doc]
VOCABULARY = [*("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "é", "中", "."), *"abcdefgh"]
CONFIG = {
    "do_lower_case": True,
    "strip_accents": None,
    "tokenize_chinese_chars": True,
    "tokenizer_class": "BertTokenizer",
}
ODD: list[Any] = [None, True, -1, 3.5, 10**30, "", "\ud800", [], {}, ["a"], {"type": "x"}]


def _files() -> dict[str, dict[str, bytes]]:
    config = {"tokenizer_config.json": json.dumps(CONFIG).encode()}
    return {
        "unigram": {SENTENCEPIECE: train_tokenizer(SENTENCES, 90, "unigram", 1.0)},
        "bpe": {SENTENCEPIECE: train_tokenizer(SENTENCES, 90, "bpe", 1.0)},
        "tokenizer.json": {WORDPIECE: wordpiece_file(VOCABULARY, lowercase=True), **config},
        "vocab.txt": {"vocab.txt": "\n".join([*VOCABULARY, ""]).encode(), **config},
    }


FILES = _files()


def _damaged(content: bytes, draw: random.Random) -> bytes:
    if content[:1] == b"{" and draw.random() < 0.7:
        return _other_values(content, draw)
    kind, place = draw.randrange(4), draw.randrange(len(content))
    if kind == 0:
        return content[:place]
    if kind == 1:
        inserted = draw.choice([b"\x00", b"\n\n", b"\xff\xff", b"[" * 100_000, b"\r", "\u2028".encode()])
        return content[:place] + inserted + content[place:]
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 5])):
        changed[draw.randrange(len(content))] = draw.randrange(256)
    return bytes(changed)


def _other_values(content: bytes, draw: random.Random) -> bytes:
    """A value somewhere within is another, or gone."""
    whole = within = json.loads(content)
    key: Any = draw.choice(list(whole))
    while isinstance(within[key], dict | list) and len(within[key]) and draw.random() < 0.7:
        within = within[key]
        key = draw.choice(list(within)) if isinstance(within, dict) else draw.randrange(len(within))
    if draw.random() < 0.3:
        del within[key]
    else:
        within[key] = draw.choice(ODD)
    return json.dumps(whole).encode()


@pytest.mark.parametrize("kind", list(FILES))
def test_damage_is_one_line_or_does_no_harm(tmp_path: Path, kind: str) -> None:
    draw = random.Random(0)
    refused: list[str] = []
    for _ in range(1000):
        name = draw.choice(list(FILES[kind]))
        for each, content in FILES[kind].items():
            (tmp_path / each).write_bytes(_damaged(content, draw) if each == name else content)
        try:
            tokenizer = load_tokenizer(tmp_path)
            ids = tokenizer.encode("The cats. é 中 <s> \x00")
            assert all(0 <= i < len(tokenizer) for i in ids)
            assert len(tokenizer.encode_with_ranges("The cats.")[0]) == len(tokenizer.encode("The cats."))
            tokenizer.decode(ids)
            tokenizer.dictionary_text()
        except UserError as error:
            refused.append(str(error))
    assert 100 < len(refused) < 1000 and not any("\n" in said for said in refused)


def _no_text(name: str, content: bytes) -> bytes:
    """A piece whose bytes are no UTF-8."""
    return content.replace(b"\n\x02he", b"\n\x02h\xc8", 1)


def _edited(**values: Any) -> Callable[[str, bytes], bytes]:
    return lambda name, content: json.dumps(json.loads(content) | values).encode()


CASES: list[tuple[str, Callable[[str, bytes], bytes], str]] = [
    ("unigram", _no_text, "damaged: a piece is no text"),
    ("tokenizer.json", _edited(added_tokens=3), "its added_tokens are no list of tokens"),
    ("tokenizer.json", _edited(pre_tokenizer=["x"]), r"its pre_tokenizer is \['x'\], no object"),
    ("tokenizer.json", lambda name, content: b'{"a":' + b"[" * 100_000, "no tokenizer.json of the library"),
    ("vocab.txt", lambda name, content: b"\xff" + content, "cannot be read .*: fetch it again"),
]


@pytest.mark.parametrize(("kind", "damage", "message"), CASES, ids=[case[2][:25] for case in CASES])
def test_damage_is_named_at_every_door(
    tmp_path: Path, kind: str, damage: Callable[[str, bytes], bytes], message: str
) -> None:
    """Preparing a corpus with it, loading a checkpoint beside it."""
    name, content = next(iter(FILES[kind].items()))
    (tmp_path / name).write_bytes(damage(name, content))
    text = write_sentences(tmp_path / "text.txt", documents(20))
    with pytest.raises(UserError, match=message) as error:
        run_script("prepare_corpus", text, "--tokenizer", tmp_path / name, "--out", tmp_path / "data")
    assert "\n" not in str(error.value) and not (tmp_path / "data").exists()
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / name).write_bytes(content)
    run = save_checkpoint(tmp_path / "run", load_tokenizer(tmp_path / "whole"))
    (run / name).write_bytes(damage(name, content))
    with pytest.raises(UserError, match=message):
        HierarchicalBert.from_pretrained(run)
