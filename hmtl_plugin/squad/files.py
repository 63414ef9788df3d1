"""SQuAD's files as they are, 1.1 and 2.0: no text is tidied, for answers are found by their place in it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hmtl_plugin.errors import UserError
from hmtl_plugin.preparation.readers.text import check_text, decode

_BOM = "\ufeff"
_AS_DOWNLOADED = "give the file as it was published"
Kind = TypeVar("Kind", str, list, dict)
_KINDS = {str: "text", list: "list", dict: "object"}


@dataclass(frozen=True)
class Question:
    """A question on one context.

    Attributes:
        context: index of its context in the file.
        answers: (text, first character in the context) of each; none where it is impossible or answers are hidden.
        impossible: marked as having no answer in its context (SQuAD 2.0).
    """

    id: str
    text: str
    context: int
    answers: tuple[tuple[str, int], ...]
    impossible: bool


@dataclass(frozen=True)
class SquadFile:
    """All of a file.

    Attributes:
        titles: for each context the number of its article.
        labelled: False for a hidden test set, which serves predictions only.
    """

    path: str
    contexts: list[str]
    titles: list[int]
    questions: list[Question]
    labelled: bool

    @property
    def version_2(self) -> bool:
        """Whether some question has no answer in its context."""
        return any(question.impossible for question in self.questions)


def read_squad(path: Path | str) -> SquadFile:
    """Read and check a file.

    Raises:
        UserError: naming file and article, paragraph or question id: no JSON, a field that is missing or of another
            kind, an id that occurs twice, an answer that does not stand at its place, a question without an answer
            among others with one.
    """
    path = str(path)
    contexts: list[str] = []
    titles: list[int] = []
    questions: list[Question] = []
    for number, article in enumerate(_articles(path)):
        where = f"{path}: article {number + 1}"
        for place, paragraph in enumerate(_field(_object(article, where), "paragraphs", list, where)):
            where_paragraph = f"{where}, paragraph {place + 1}"
            context = _field(_object(paragraph, where_paragraph), "context", str, where_paragraph)
            check_text(context, where_paragraph)
            for entry in _field(paragraph, "qas", list, where_paragraph):
                questions.append(_question(entry, context, len(contexts), path, where_paragraph))
            contexts.append(context)
            titles.append(number)
    if not questions:
        raise UserError(f"{path}: holds no questions; {_AS_DOWNLOADED}")
    _check_ids(questions, path)
    return SquadFile(path, contexts, titles, questions, _labelled(questions, path))


def _articles(path: str) -> list[Any]:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if not content.strip():
        raise UserError(f"{path}: is empty; {_AS_DOWNLOADED}")
    try:
        record = json.loads(decode(content, path, 0).removeprefix(_BOM))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON or truncated ({error}); {_AS_DOWNLOADED}") from error
    if not isinstance(record, dict) or not isinstance(record.get("data"), list):
        raise UserError(f'{path}: not a SQuAD file: it has no "data" list; {_AS_DOWNLOADED}')
    return list(record["data"])


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: is no JSON object; {_AS_DOWNLOADED}")
    return value


def _field(record: dict[str, Any], name: str, kind: type[Kind], where: str) -> Kind:
    value = record.get(name)
    if not isinstance(value, kind):
        raise UserError(f'{where}: has no "{name}" ({_KINDS[kind]}); {_AS_DOWNLOADED}')
    return value


def _question(entry: Any, context: str, number: int, path: str, where_paragraph: str) -> Question:
    given = _object(entry, f"{where_paragraph}, a question").get("id")
    if type(given) is int:  # as some sets have them; predictions are filed by texts
        entry = entry | {"id": str(given)}
    qid = _field(entry, "id", str, f"{where_paragraph}, a question")
    check_text(qid, f'{where_paragraph}, "id" of a question')
    where = f"{path}: question {qid}"
    text = _field(entry, "question", str, where)
    check_text(text, where)
    impossible = entry.get("is_impossible", False)
    if not isinstance(impossible, bool):
        raise UserError(f'{where}: "is_impossible" is {json.dumps(impossible)}; it can be true or false')
    answers = tuple(_answers(entry, context, where))
    if impossible and answers:
        raise UserError(f'{where}: has answers, but "is_impossible" is true; take away the one or the other')
    return Question(qid, text, number, answers, impossible)


def _answers(entry: dict[str, Any], context: str, where: str) -> Iterator[tuple[str, int]]:
    for answer in _field(entry, "answers", list, where) if "answers" in entry else []:
        text = _field(_object(answer, f"{where}, an answer"), "text", str, f"{where}, an answer")
        start = answer.get("answer_start")
        if not isinstance(start, int) or isinstance(start, bool):
            raise UserError(f'{where}: an answer has no "answer_start" (number); {_AS_DOWNLOADED}')
        if start < 0 or not context.startswith(text, start):
            there = context[start : start + max(len(text), 1)] if start >= 0 else ""
            raise UserError(
                f"{where}: the answer {json.dumps(text, ensure_ascii=False)} is not at its answer_start {start}, "
                f"where {json.dumps(there, ensure_ascii=False)} stands; offsets count characters of the unchanged context"
            )
        yield text, start


def _check_ids(questions: list[Question], path: str) -> None:
    seen = {question.id for question in questions}
    for question in questions if len(seen) < len(questions) else []:
        if question.id not in seen:
            raise UserError(
                f"{path}: question id {question.id} occurs twice; predictions are filed by id, give each its own"
            )
        seen.remove(question.id)


def _labelled(questions: list[Question], path: str) -> bool:
    bare = next((question for question in questions if not (question.answers or question.impossible)), None)
    labelled = any(question.answers or question.impossible for question in questions)
    if labelled and bare is not None:
        raise UserError(
            f'{path}: question {bare.id}: has no answers; give them, or mark it with "is_impossible": true as SQuAD 2.0 does'
        )
    return labelled
