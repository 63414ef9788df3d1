"""SQuAD's files with what may be wrong in them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.squad.files import Question, read_squad
from tests.finetuning.squad.texts import entry, write

CONTEXT = "  \u4e2d\u6587 and \U0001f680\t old grey  towns"


def refused(path: Path, file: str | dict[str, Any]) -> str:
    if isinstance(file, dict):
        file = json.dumps(file)
    path.write_bytes(file.encode("utf-8"))
    with pytest.raises(UserError) as error:
        read_squad(path)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_ids_may_be_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "f.json", [[(CONTEXT, [entry(0, [("old", CONTEXT.index("old"))], id=17)])]])
    assert [question.id for question in read_squad(path).questions] == ["17"]


@pytest.mark.parametrize("value", [3, None, True, "x", {}])
def test_questions_that_are_no_list(value: object, tmp_path: Path) -> None:
    article = {"paragraphs": [{"context": CONTEXT, "qas": value}]}
    assert 'article 1, paragraph 1: has no "qas" (list)' in refused(tmp_path / "f.json", {"data": [article]})


def test_deep_nesting(tmp_path: Path) -> None:
    assert "not JSON or truncated" in refused(tmp_path / "f.json", '{"data": ' + "[" * 5000 + "]" * 5000 + "}")


def test_everything_is_kept_as_it_is(tmp_path: Path) -> None:
    answers = [("old", CONTEXT.index("old")), ("\U0001f680\t", CONTEXT.index("\U0001f680"))]
    questions = [entry(0, answers, "  who ?"), entry(1, [], is_impossible=True, plausible_answers=[{"text": "x"}])]
    path = write(tmp_path / "f.json", [[(CONTEXT, questions), ("", [])], [(CONTEXT, [entry(2, answers[:1])])]])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    file = read_squad(path)
    assert file.contexts == [CONTEXT, "", CONTEXT]
    assert file.titles == [0, 0, 1]
    assert file.questions[0] == Question("q0", "  who ?", 0, tuple(answers), False)
    assert file.questions[1] == Question("q1", "who ?", 0, (), True)
    assert file.questions[2].context == 2
    assert file.labelled and file.version_2


@pytest.mark.parametrize("without", ["no answers", "no field"])
def test_a_hidden_test_set(tmp_path: Path, without: str) -> None:
    questions = [entry(number, []) for number in range(3)]
    if without == "no field":
        for question in questions:
            del question["answers"]
    file = read_squad(write(tmp_path / "f.json", [[(CONTEXT, questions)]]))
    assert not file.labelled and not file.version_2
    assert [question.answers for question in file.questions] == [()] * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("data", "not JSON or truncated"),
        ('{"data": [{"paragraphs": [', "not JSON or truncated"),
        ("[" * 100_000, "not JSON or truncated"),
        ("[]", 'not a SQuAD file: it has no "data" list'),
        ('{"data": {}}', 'not a SQuAD file: it has no "data" list'),
        ('{"data": []}', "holds no questions"),
        ('{"data": [3]}', "article 1: is no JSON object"),
        ('{"data": [{}]}', 'article 1: has no "paragraphs" (list)'),
        ('{"data": [{"paragraphs": []}, {"paragraphs": [{"qas": []}]}]}', 'article 2, paragraph 1: has no "context"'),
        ('{"data": [{"paragraphs": [{"context": "a"}]}]}', 'article 1, paragraph 1: has no "qas" (list)'),
        (
            '{"data": [{"paragraphs": [{"context": "a", "qas": [{"question": "b"}]}]}]}',
            'paragraph 1, a question: has no "id" (text)',
        ),
    ],
)
def test_no_squad_file(tmp_path: Path, content: str, message: str) -> None:
    assert message in refused(tmp_path / "f.json", content)


def test_no_such_file_and_no_utf_8(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_squad(tmp_path / "none.json")
    (tmp_path / "f.json").write_bytes(b'{"data": "\xe9"}')
    with pytest.raises(UserError, match="not UTF-8 at byte 10"):
        read_squad(tmp_path / "f.json")


def remove(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda question: question.pop(name)


def answer(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda question: question["answers"][0].update(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("question"), 'question q1: has no "question" (text)'),
        (remove("answers"), "question q1: has no answers; give them, or mark it"),
        (lambda q: q["answers"].clear(), "question q1: has no answers; give them, or mark it"),
        (lambda q: q.update(answers=None), 'question q1: has no "answers" (list)'),
        (lambda q: q.update(is_impossible=True), 'question q1: has answers, but "is_impossible" is true'),
        (lambda q: q.update(is_impossible="yes"), 'question q1: "is_impossible" is "yes"'),
        (lambda q: q.update(question="\ud83d"), "question q1: half of a surrogate pair (\\ud83d) at character 0"),
        (lambda q: q.update(id="q0"), "question id q0 occurs twice"),
        (lambda q: q.update(id="\udc00"), 'paragraph 1, "id" of a question: half of a surrogate pair'),
        (lambda q: q["answers"][0].pop("text"), 'question q1, an answer: has no "text"'),
        (answer(answer_start=None), 'question q1: an answer has no "answer_start"'),
        (
            answer(answer_start=7),
            'question q1: the answer "and" is not at its answer_start 7, where "d \U0001f680" stands',
        ),
        (answer(answer_start=-3), 'question q1: the answer "and" is not at its answer_start -3, where "" stands'),
        (answer(answer_start=99), 'the answer "and" is not at its answer_start 99, where "" stands'),
    ],
)
def test_what_is_wrong_is_named_with_its_question(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    questions = [entry(number, [("and", 5)]) for number in range(2)]
    change(questions[1])
    record = {"data": [{"paragraphs": [{"context": CONTEXT, "qas": questions}]}]}
    assert message in refused(tmp_path / "f.json", record)


def test_half_a_surrogate_pair_in_a_context(tmp_path: Path) -> None:
    record = {"data": [{"paragraphs": [{"context": "ab\ud83d", "qas": []}]}]}
    assert "article 1, paragraph 1: half of a surrogate pair" in refused(tmp_path / "f.json", record)


@pytest.mark.parametrize(
    ("name", "contexts", "questions", "impossible"),
    [
        ("squad_v1/dev-v1.1.json", 2067, 10570, 0),
        ("squad_v2/dev_subset.json", 178, 1629, 826),
        ("xquad/xquad.en.json", 240, 1190, 0),
    ],
)
def test_real_files(
    real_data: Callable[[str], Path], name: str, contexts: int, questions: int, impossible: int
) -> None:
    file = read_squad(real_data(name))
    assert (len(file.contexts), len(file.questions)) == (contexts, questions)
    assert sum(question.impossible for question in file.questions) == impossible
    assert file.labelled
