"""Small texts for the tests of corpus preparation."""

import struct
from pathlib import Path

import numpy as np

from hmtl_plugin.preparation.prepare import PrepareOptions, Summary, prepare_corpus
from hmtl_plugin.tokenizers.loading import load_tokenizer

_NOUNS = (
    "cat dog bird farmer teacher river garden window letter street summer winter engine doctor sailor bridge".split()
)
_VERBS = "sees finds carries watches follows paints opens leaves reaches remembers".split()
_ADJECTIVES = "old young quiet green heavy small bright slow famous empty".split()


def sentence(random: np.random.Generator) -> str:
    """An English sentence of six to eight words."""
    noun, other = random.choice(_NOUNS, 2)
    first, second = random.choice(_ADJECTIVES, 2)
    number = int(random.integers(0, 10_000))
    return f"The {first} {noun} {random.choice(_VERBS)} the {second} {other} {number} times."


def documents(count: int, seed: int = 0, length: int = 6) -> list[list[str]]:
    """`count` documents of up to `length` sentences."""
    random = np.random.default_rng(seed)
    return [[sentence(random) for _ in range(random.integers(1, length + 1))] for _ in range(count)]


def write_sentences(path: Path, docs: list[list[str]]) -> Path:
    """Documents as ``--format sentences``."""
    path.write_text("\n\n".join("\n".join(doc) for doc in docs) + "\n", encoding="utf-8")
    return path


def prepare(files: list[Path], out: Path, overwrite: bool = False, **options: object) -> Summary:
    """`prepare_corpus` with defaults that suit small texts."""
    chosen: dict[str, object] = {"format": "sentences", "valid_fraction": 0.0, "workers": 1}
    if "tokenizer" not in options:
        chosen["vocab_size"] = 80
    return prepare_corpus([str(f) for f in files], out, PrepareOptions(**(chosen | options)), overwrite)  # type: ignore[arg-type]


def read_items(prefix: Path) -> list[list[int]]:
    """The items of a split, read by hand."""
    index = prefix.with_suffix(".idx").read_bytes()
    magic, version, code, count = struct.unpack("<9sQBQ", index[:26])
    assert (magic, version) == (b"MMIDIDX\x00\x00", 1)
    sizes = np.frombuffer(index[26 : 26 + 4 * count], dtype="<i4")
    ids = np.frombuffer(prefix.with_suffix(".bin").read_bytes(), dtype={8: "<u2", 9: "<u4"}[code])
    assert len(ids) == sizes.sum()
    return [part.tolist() for part in np.split(ids, np.cumsum(sizes)[:-1])]


def read_documents(folder: Path, split: str = "train") -> list[list[str]]:
    """The documents of a prepared split as decoded text."""

    tokenizer = load_tokenizer(folder / "sentencepiece.bpe.model")
    docs: list[list[str]] = [[]]
    for item in read_items(folder / split):
        assert item[-1] == 2
        assert 2 not in item[:-1]
        if item == [2]:
            assert docs[-1]
            docs.append([])
        else:
            docs[-1].append(tokenizer.decode(item))
    assert docs[-1]
    return docs
