"""Small SQuAD files."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.finetuning.conftest import WORDS


def entry(number: int, answers: list[tuple[str, int]], question: str = "who ?", **more: Any) -> dict[str, Any]:
    """A question with the id ``q<number>``."""
    listed = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": f"q{number}", "question": question, "answers": listed, **more}


def write(path: Path, articles: list[list[tuple[str, list[dict[str, Any]]]]]) -> Path:
    """Articles of (context, questions)."""
    data = [
        {"title": f"t{i}", "paragraphs": [{"context": context, "qas": qas} for context, qas in article]}
        for i, article in enumerate(articles)
    ]
    path.write_text(json.dumps({"version": "1.1", "data": data}), encoding="utf-8")
    return path


def random_squad(path: Path, seed: int, contexts: int, longest: int = 60, impossible: float = 0.0) -> Path:
    """Contexts of one to ``longest`` words, with none to three questions each, answers being random words in a row; the
    share ``impossible`` has none.
    """
    random = np.random.default_rng(seed)
    articles: list[list[tuple[str, list[dict[str, Any]]]]] = [[], []]
    number = 0
    for place in range(contexts):
        words = random.choice(WORDS, random.integers(1, longest + 1)).tolist()
        context = "  ".join(words) if place % 3 == 0 else " ".join(words) + " ."
        starts = np.cumsum([0, *(len(word) + (2 if place % 3 == 0 else 1) for word in words)])
        qas = []
        for _ in range(random.integers(0, 4) if place else 1):
            first = int(random.integers(len(words)))
            last = min(first + int(random.integers(4)), len(words) - 1)
            text = context[starts[first] : starts[last] + len(words[last])]
            hidden = bool(random.random() < impossible)
            question = " ".join(random.choice(WORDS, random.integers(1, 10)))
            extra = {"is_impossible": hidden} if impossible else {}
            qas.append(entry(number, [] if hidden else [(text, int(starts[first]))], question, **extra))
            number += 1
        articles[place % 2].append((context, qas))
    return write(path, articles)
