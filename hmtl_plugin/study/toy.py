"""Made-up tasks in the official layouts, from prose that Python carries: every stage can run without a download.

They are there to try the machinery. RTE: does a sentence come from the passage? MNLI: from it, from its document, from
another one? SQuAD: what stands after these words? Nothing of them is the real task, and no score means anything.
"""

import json
import random
import shutil
from collections.abc import Iterable
from pathlib import Path

from hmtl_plugin.files.publishing import locked
from hmtl_plugin.preparation.python_prose import topics
from hmtl_plugin.preparation.splitting import SentenceSplitter
from hmtl_plugin.probing.generation.make import make_probing
from hmtl_plugin.probing.generation.options import ProbingOptions

Documents = list[list[str]]  # of sentences
_EVERY = 5  # documents, of which one is for evaluation
_PASSAGE, _QUESTION, _ANSWER = 2, 4, 2  # sentences, words, words
_ROWS = {"train": 400, "dev": 150}


def write_toy_data(folder: Path) -> Path:
    """Write glue/, squad/ and probing/ into ``folder`` unless they are there; returns it."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock")):  # another process may write the same
        return folder if folder.is_dir() else _write(folder)


def _write(folder: Path) -> Path:
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    documents = _documents()
    splits = {"train": [d for n, d in enumerate(documents) if n % _EVERY], "dev": documents[::_EVERY]}
    for task, file_of, make in (("RTE", {"dev": "dev"}, _entailed), ("MNLI", {"dev": "dev_matched"}, _inferred)):
        for split, chosen in splits.items():
            rows = _take(make(chosen, random.Random(1)), _ROWS[split])
            _write_pairs(
                part / "glue" / task / f"{file_of.get(split, split)}.tsv",
                "gold_label" if task == "MNLI" else "label",
                rows,
            )
    for split, chosen in splits.items():
        _write_squad(part / "squad" / f"{split}-v1.1.json", chosen, _ROWS[split])
    text = part / "text.txt"
    text.write_text("\n".join("".join(f"{s}\n" for s in document) for document in documents), encoding="utf-8")
    make_probing([str(text)], part / "probing", ProbingOptions("sentences", train=600, valid=120, test=120, words=15))
    part.rename(folder)
    return folder


def _documents() -> Documents:
    """A sentence belongs to the first document that has it: Python's topics repeat each other's, and splits must not."""
    splitter = SentenceSplitter()
    found, seen = [], set[str]()
    for paragraphs in topics():
        sentences = [s for p in paragraphs for s in splitter.split(p) if 5 <= len(s.split()) <= 40 and "\t" not in s]
        own = [sentence for sentence in dict.fromkeys(sentences) if sentence not in seen]
        if len(own) >= 2 * _PASSAGE:
            found.append(own)
            seen.update(own)
    return found


def _passages(documents: Documents, rng: random.Random) -> Iterable[tuple[list[str], list[str], list[str]]]:
    """A passage, what else its document holds, and another document."""
    while True:
        document, other = rng.sample([d for d in documents if len(d) > _PASSAGE], 2)
        start = rng.randrange(len(document) - _PASSAGE)
        passage = document[start : start + _PASSAGE]
        yield passage, document[:start] + document[start + _PASSAGE :], other


def _entailed(documents: Documents, rng: random.Random) -> Iterable[tuple[str, str, str]]:
    for passage, _, other in _passages(documents, rng):
        yes = rng.random() < 0.5
        yield " ".join(passage), rng.choice(passage if yes else other), "entailment" if yes else "not_entailment"


def _inferred(documents: Documents, rng: random.Random) -> Iterable[tuple[str, str, str]]:
    for passage, rest, other in _passages(documents, rng):
        label, choices = rng.choice([("entailment", passage), ("neutral", rest), ("contradiction", other)])
        yield " ".join(passage), rng.choice(choices), label


def _take(rows: Iterable[tuple[str, str, str]], count: int) -> list[tuple[str, str, str]]:
    return [row for row, _ in zip(rows, range(count))]


def _write_pairs(path: Path, label: str, rows: list[tuple[str, str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"index\tsentence1\tsentence2\t{label}"]
    lines += [f"{number}\t{first}\t{second}\t{answer}" for number, (first, second, answer) in enumerate(rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_squad(path: Path, documents: Documents, count: int) -> None:
    """Questions that quote a few words; the answer is the words after them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    articles, asked = [], 0
    for number, document in enumerate(documents):
        context = " ".join(document[: 2 * _PASSAGE])
        questions = _questions(context, f"{path.stem}-{number}", random.Random(number))
        asked += len(questions)
        articles.append({"title": str(number), "paragraphs": [{"context": context, "qas": questions}]})
        if asked >= count:
            break
    path.write_text(json.dumps({"version": "1.1", "data": articles}) + "\n", encoding="utf-8")


def _questions(context: str, name: str, rng: random.Random) -> list[dict[str, object]]:
    words = context.split(" ")
    found: list[dict[str, object]] = []
    for turn in range(4):
        start = rng.randrange(len(words) - _QUESTION - _ANSWER)
        begin = start + _QUESTION
        answer = {"text": " ".join(words[begin : begin + _ANSWER]), "answer_start": len(" ".join(words[:begin])) + 1}
        question = f"What stands after {' '.join(words[start:begin])}?"
        found.append({"id": f"{name}-{turn}", "question": question, "answers": [answer]})
    return found
