"""Small studies for the tests of this folder: a profile, variants, prepared data as numbers, and files in the official
layouts.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from hmtl_plugin.study.plan import Run, make_plan
from hmtl_plugin.study.profile import Block, Finetuning, Pretraining, Probing, Profile, Text
from hmtl_plugin.study.variants import Variant

PROFILE = Profile(
    name="tiny",
    why="tests",
    plan=[Block(["flat", "lower"], [1, 2])],
    text=Text(60),
    pretraining=Pretraining(10, 2, {"lr": "1e-3", "arch": "hmtl_bert_tiny"}),
    finetuning=[Finetuning("RTE", ["lr=1e-3"]), Finetuning("SQuAD", ["lr=1e-3"])],
    probing=Probing(),
)
VARIANTS = {
    "flat": Variant("flat", "nsp@100%,mlm@100%", "", "fixed", (), "BERT"),
    "lower": Variant("lower", "nsp@50%,mlm@100%", "nsp>mlm:add", "fixed", (), "a hierarchy"),
    "random": Variant("random", "", "", "", (), "as initialised"),
}
PREPARED: dict[str, Any] = {
    "corpus_sha256": "c",
    "tasks_sha256": {"RTE": "r", "SQuAD": "s"},
    "probing_sha256": "p",
}
STAGES = ["pretrain", "evaluate", "RTE", "SQuAD", "probe"]


def tiny(**changes: Any) -> Profile:
    """The profile with other fields."""
    return replace(PROFILE, **changes)


def plan_of(profile: Profile = PROFILE, prepared: dict[str, Any] = PREPARED) -> list[Run]:
    """Its runs."""
    return make_plan(profile, VARIANTS, prepared)


def write(path: Path, text: str) -> Path:
    """A text file, its folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def rte(rows: int, what: str) -> str:
    """RTE as published."""
    header = "index\tsentence1\tsentence2\tlabel\n"
    label = ("entailment", "not_entailment")
    return header + "".join(f"{i}\tA {what} premise {i}.\tIts {what} guess {i}.\t{label[i % 2]}\n" for i in range(rows))


def mnli(rows: int, what: str) -> str:
    """MNLI as published, with fewer of its columns."""
    label = ("contradiction", "neutral", "entailment")
    lines = [f"{i}\tThe {what} text {i}.\tThe {what} claim {i}.\t{label[i % 3]}\n" for i in range(rows)]
    return "index\tsentence1\tsentence2\tgold_label\n" + "".join(lines)


def squad(articles: list[list[int]], what: str) -> str:
    """SQuAD 1.1: for each article the number of questions of its paragraphs."""

    def paragraph(article: int, number: int, questions: int) -> dict[str, Any]:
        context = f"The {what} is in article {article}, part {number}."
        answers = [{"text": what, "answer_start": 4}]
        asked = [f"{article}-{number}-{question}" for question in range(questions)]
        return {"context": context, "qas": [{"id": id, "question": f"What {id}?", "answers": answers} for id in asked]}

    data = [
        {"title": str(a), "paragraphs": [paragraph(a, n, count) for n, count in enumerate(counts)]}
        for a, counts in enumerate(articles)
    ]
    return json.dumps({"version": "1.1", "data": data})


def probing(rows: dict[str, int], labels: str = "ab") -> str:
    """A task in SentEval's layout, its labels in turn."""
    lines = [f"{s}\t{labels[i % len(labels)]}\tSentence {s} {i}.\n" for s, count in rows.items() for i in range(count)]
    return "".join(lines)


def write_data(folder: Path) -> Path:
    """RTE, MNLI, SQuAD and two probing tasks; no SNLI."""
    for split, rows in (("train", 12), ("dev", 5), ("test", 3)):
        write(folder / "glue" / "RTE" / f"{split}.tsv", rte(rows, split))
    for split, rows in (("train", 12), ("dev_matched", 6), ("dev_mismatched", 6), ("test_matched", 3)):
        write(folder / "glue" / "MNLI" / f"{split}.tsv", mnli(rows, split))
    write(folder / "squad" / "train-v1.1.json", squad([[2, 3], [4]], "fruit"))
    write(folder / "squad" / "dev-v1.1.json", squad([[1, 2]], "stone"))
    for name in ("tree_depth", "past_present"):
        write(folder / "probing" / "senteval" / f"{name}.txt", probing({"tr": 8, "va": 4, "te": 4}))
    return folder
