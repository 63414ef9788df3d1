"""Sentences of a small grammar, and files in SentEval's layout."""

import random
from collections.abc import Sequence
from pathlib import Path

SUBJECTS = "the old cat|a young dog|my friend|the black horse|her little brother|the tall man".split("|")
VERBS = "sees|likes|follows|finds|calls|remembers".split("|")
OBJECTS = "the red house|a green apple|the long road|this small river|that blue door|an open window".split("|")


def sentences(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [
        f"{draw.choice(SUBJECTS)} {draw.choice(VERBS)} {draw.choice(OBJECTS)}" + " again" * draw.randint(0, 3)
        for _ in range(count)
    ]


def write_task(path: Path, texts: Sequence[str], labels: Sequence[str], shares: tuple[int, int] = (200, 280)) -> Path:
    """Rows up to ``shares[0]`` are tr, up to ``shares[1]`` va, then te."""
    path.parent.mkdir(parents=True, exist_ok=True)
    splits = ["tr" if i < shares[0] else "va" if i < shares[1] else "te" for i in range(len(texts))]
    lines = [f"{split}\t{label}\t{text}\n" for split, label, text in zip(splits, labels, texts)]
    path.write_text("".join(lines), encoding="utf-8")
    return path
