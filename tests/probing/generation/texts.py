"""A small made-up language, and the probing sets made of it."""

from pathlib import Path

import numpy as np

from hmtl_plugin.preparation.gather import Spool
from hmtl_plugin.preparation.sources import gather_sources
from hmtl_plugin.probing.generation.make import Summary, make_probing
from hmtl_plugin.probing.generation.options import ProbingOptions
from hmtl_plugin.probing.generation.sample import Sample, draw_sample

SMALL = {"format": "sentences", "train": 600, "valid": 150, "test": 150, "words": 30, "workers": 1}
Split = list[tuple[str, str]]


def _word(number: int) -> str:
    """A pronounceable word of its own for each number."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    return syllables[number % 70] + syllables[number // 70]


def sentence(random: np.random.Generator, vocabulary: int = 200) -> str:
    """5 to 28 words by a law like Zipf's, but flatter; some with a comma, the first with a capital, a full stop at the
    end.
    """
    chance = 1 / np.arange(20, vocabulary + 20)
    numbers = random.choice(vocabulary, int(random.integers(5, 29)), p=chance / chance.sum()).tolist()
    words = [_word(number) + ("," if random.random() < 0.05 else "") for number in numbers]
    return " ".join(words).capitalize().rstrip(",") + "."


def documents(count: int = 40, length: int = 100, seed: int = 0) -> list[list[str]]:
    """`count` documents of `length` sentences."""
    random = np.random.default_rng(seed)
    return [[sentence(random) for _ in range(length)] for _ in range(count)]


def write(path: Path, docs: list[list[str]]) -> Path:
    """Documents as ``--format sentences``."""
    path.write_text("\n\n".join("\n".join(doc) for doc in docs) + "\n", encoding="utf-8")
    return path


def make(source: Path, out: Path, overwrite: bool = False, **options: object) -> Summary:
    """`make_probing` with sizes that suit small texts."""
    return make_probing([str(source)], out, ProbingOptions(**(SMALL | options)), overwrite)  # type: ignore[arg-type]


def sample(source: Path, folder: Path, **options: object) -> Sample:
    """The sample that `make` works on."""
    chosen = ProbingOptions(**(SMALL | options))  # type: ignore[arg-type]
    folder.mkdir()
    spool: Spool = gather_sources([str(source)], folder, chosen.reading(), 1)
    return draw_sample(spool, chosen, lambda size: None)


def read(path: Path) -> dict[str, Split]:
    """(label, sentence) of each split; the layout is checked: three fields, tr before va before te."""
    splits: dict[str, Split] = {}
    for line in path.read_bytes().decode().removesuffix("\n").split("\n"):
        split, label, text = line.split("\t")
        assert label
        assert text == " ".join(text.split())
        splits.setdefault(split, []).append((label, text))
        assert list(splits)[-1] == split
    assert list(splits) == ["tr", "va", "te"]
    return splits
