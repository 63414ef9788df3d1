"""Questions answered through the hub interface, against the official files of the same model."""

import json
from pathlib import Path

import numpy as np
import pytest
from fairseq import hub_utils
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hmtl_plugin import HierarchicalBert
from hmtl_plugin.checkpoints import save_for_use
from hmtl_plugin.errors import UserError
from hmtl_plugin.fairseq_hub import from_hub_utils
from hmtl_plugin.models.hierarchical_bert import HierarchicalBertModel
from hmtl_plugin.squad.files import read_squad
from tests.finetuning.conftest import WORDS
from tests.finetuning.squad.runs import ASKED, OTHERS, WINDOWS, Trained

FOREIGN = ["中文", "\U0001f680", "été", "e\u0301", "ﬁn", "\u200b", "日本語テキスト", "\u00a0", "мир", "🇩🇪", "½"]
CONTEXTS = st.lists(st.sampled_from([*WORDS, *FOREIGN, "\t", " "]), max_size=60).map(" ".join)


@pytest.fixture
def hub(trained: Trained) -> HierarchicalBert:
    return HierarchicalBert.from_pretrained(trained.folder)


def test_answers_are_those_of_the_official_files(trained: Trained, hub: HierarchicalBert) -> None:
    predicted, nbest, odds = (
        json.loads((trained.folder / f"{name}.json").read_text()) for name in ("predictions", "nbest", "null_odds")
    )
    file, threshold = read_squad(trained.dev), trained.metrics.get("threshold", np.inf)
    contexts = [file.contexts[question.context] for question in file.questions]
    answered = hub.answer([question.text for question in file.questions], contexts, top_k=20)
    assert max(len(context.split()) for context in contexts) > WINDOWS["tokens_per_sample"] - 8  # in several windows
    for question, found in zip(file.questions, answered, strict=True):
        listed = nbest[question.id]
        spoken = {entry["text"]: entry["probability"] for entry in listed if entry["text"]}
        assert [answer.probability for answer in found.answers] == pytest.approx(list(spoken.values()), abs=1e-4)
        probable = {answer.text for answer in found.answers if answer.probability > 1e-3}
        assert probable == {text for text, share in spoken.items() if share > 1e-3}
        assert found.no_answer == pytest.approx(sum(e["probability"] for e in listed if not e["text"]), abs=1e-4)
        assert found.answers[0].text == next(iter(spoken))
        if abs(odds[question.id] - threshold) > 1e-3:
            assert found.impossible == (odds[question.id] > threshold)
            assert predicted[question.id] == ("" if found.impossible else found.answers[0].text)
    assert any(found.impossible for found in answered) == trained.version_2


def test_it_knows_when_to_say_nothing(models: dict[str, Trained]) -> None:
    context = " ".join([*OTHERS[:8], "birds", *OTHERS[:4]])
    first, second = (HierarchicalBert.from_pretrained(models[version].folder) for version in ("1.1", "2.0"))
    for hub in (first, second):
        found = hub.answer("which birds", context)
        assert [answer.text for answer in found.answers] == ["birds"]
        assert not found.impossible
    silent = second.answer("which towns", context)
    assert silent.impossible and silent.no_answer > 0.5
    assert first.answer("which towns", context)[1:] == (0, False)


def test_the_threshold_is_the_checkpoint_s(models: dict[str, Trained], tmp_path: Path) -> None:
    asked = ["which birds", "which towns"], ["a cat and old birds sing"] * 2
    for threshold, impossible in ((-1e9, [True, True]), (1e9, [False, False])):
        save_for_use(models["2.0"].folder / "model.pt", tmp_path / "model.pt", {"no_answer_threshold": threshold})
        found = HierarchicalBert.from_pretrained(tmp_path).answer(*asked)
        assert [answered.impossible for answered in found] == impossible


@given(contexts=st.lists(CONTEXTS, min_size=1, max_size=4), asked=st.data(), top_k=st.integers(1, 25))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_answer_is_at_its_place(
    trained: Trained, hub: HierarchicalBert, contexts: list[str], asked: st.DataObject, top_k: int
) -> None:
    """In any script; probabilities are shares."""
    words = st.lists(st.sampled_from([*ASKED, *FOREIGN, "which"]), max_size=12).map(" ".join)
    questions = [asked.draw(words) for _ in contexts]
    for context, found in zip(contexts, hub.answer(questions, contexts, top_k), strict=True):
        assert len(found.answers) <= min(top_k, 20)
        assert bool(found.answers) == any(not character.isspace() and character != "\u200b" for character in context)
        for answer in found.answers:
            assert context[answer.start : answer.end] == answer.text != ""
            assert answer.text == answer.text.lstrip()
        assert len({answer.text for answer in found.answers}) == len(found.answers)
        shares = [answer.probability for answer in found.answers]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) + found.no_answer <= 1 + 1e-6
        if top_k >= 20 and found.answers:
            assert sum(shares) + found.no_answer == pytest.approx(1)
        assert trained.version_2 or found[1:] == (0, False)


def test_no_answer_ends_in_a_blank(hub: HierarchicalBert) -> None:
    texts = [answer.text for answer in hub.answer("which cat", "a cat the 中文 cat the 中 mat", 20).answers]
    assert texts == [text.strip() for text in texts]


def test_a_question_loses_its_end_as_in_training(hub: HierarchicalBert) -> None:
    context = " ".join([*OTHERS, "birds", *OTHERS])  # of several windows
    kept = " ".join(["which birds", *WORDS[1 : WINDOWS["max_question_tokens"] - 1]])
    assert len(hub.tokenizer.encode(kept)) >= WINDOWS["max_question_tokens"]
    assert hub.answer(f"{kept} over old grey towns", context, 5) == hub.answer(kept, context, 5)


def test_a_longer_question_than_in_training_lays_windows_closer(
    hub: HierarchicalBert, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stride that left no gaps beside the questions of training may leave some beside this one."""
    options = hub.checkpoint.config["task"]
    context = " ".join([*OTHERS, "birds", *OTHERS])
    asked = " ".join(["which birds", *WORDS[1:]])
    room = options["tokens_per_sample"] - 3 - options["max_question_tokens"]
    monkeypatch.setitem(options, "doc_stride", room)
    expected = hub.answer(asked, context, 5)
    monkeypatch.setitem(options, "doc_stride", room + 5)
    assert hub.answer(asked, context, 5) == expected
    assert expected.answers


def test_as_fairseqs_users_load_a_model(trained: Trained, hub: HierarchicalBert) -> None:
    context = " ".join([*OTHERS, "birds", *OTHERS])
    expected = hub.answer("which birds", context, 5)
    folder, data = str(trained.folder), str(trained.data)
    loaded = HierarchicalBertModel.from_pretrained(folder, data_name_or_path=data)
    assert loaded.answer("which birds", context, 5) == expected
    closer = HierarchicalBertModel.from_pretrained(folder, doc_stride=1)
    assert closer.checkpoint.config["task"]["doc_stride"] == 1 and closer.answer("which birds", context, 5).answers
    found = hub_utils.from_pretrained(folder, "model.pt", data)
    if trained.version_2:
        with pytest.raises(UserError, match="threshold is not in it: use HierarchicalBertModel"):
            from_hub_utils(found)
    else:
        assert from_hub_utils(found).answer("which birds", context, 5) == expected


def test_a_question_that_leaves_no_room_is_named(hub: HierarchicalBert, monkeypatch: pytest.MonkeyPatch) -> None:
    """In words for Python, not as options of a command."""
    options = hub.checkpoint.config["task"]
    monkeypatch.setitem(options, "max_question_tokens", options["tokens_per_sample"])
    asked = " ".join(["which birds", *WORDS, *WORDS])
    with pytest.raises(UserError, match=r"^answer: the question 'which birds .*: shorten it$") as error:
        hub.answer(["which birds", asked], ["the birds"] * 2)
    assert "--" not in str(error.value)


def test_together_as_alone(hub: HierarchicalBert) -> None:
    random = np.random.default_rng(0)
    contexts = [" ".join(random.choice([*WORDS, "中文"], random.integers(1, 70))) for _ in range(40)]
    questions = [f"which {word}" for word in random.choice(ASKED, 40)]
    together = hub.answer(questions, contexts, 3)
    for question, context, found in zip(questions, contexts, together, strict=True):
        alone = hub.answer(question, context, 3)
        assert [answer[:3] for answer in alone.answers] == [answer[:3] for answer in found.answers]
        for one, other in zip(alone.answers, found.answers, strict=True):
            assert one.probability == pytest.approx(other.probability, abs=1e-4)
        assert alone.no_answer == pytest.approx(found.no_answer, abs=1e-4)
        assert alone.impossible == found.impossible
        first = hub.answer([question], [context])
        assert isinstance(first, list)
        assert first[0].answers[0][:3] == alone.answers[0][:3]


@pytest.mark.parametrize("context", ["", "  \n\u00a0"])
def test_an_empty_context_has_no_answer(trained: Trained, hub: HierarchicalBert, context: str) -> None:
    expected = ([], float(trained.version_2), trained.version_2)
    assert tuple(hub.answer("which cat", context)) == expected
    both = hub.answer(["which cat", "which cat"], [context, "a cat"])
    assert tuple(both[0]) == expected
    assert both[1].answers[0].text == "cat"


def test_what_cannot_be_answered(hub: HierarchicalBert, pretrained: Path) -> None:
    for call, message in (
        (lambda: hub.answer("a", "b", top_k=0), "answer: top_k 0: use 1 or more"),
        (lambda: HierarchicalBert.from_pretrained(pretrained).answer("a", "b"), "was not fine-tuned on SQuAD"),
        (lambda: hub.fill_mask("a <mask>"), "was fine-tuned on squad: give the pre-training checkpoint"),
        (lambda: hub.next_sentence("a", "b"), "was fine-tuned on squad: give the pre-training checkpoint"),
        (lambda: hub.word_order("a"), "was fine-tuned on squad: give the pre-training checkpoint"),
        (lambda: hub.predict("RTE", "a", "b"), "has the head of squad, not of RTE"),
        (lambda: hub.predict("nsp", "a", "b"), "was fine-tuned on squad: give the pre-training checkpoint"),
        (lambda: hub.predict("squad", "a", "b"), "'squad' is no GLUE task"),
    ):
        with pytest.raises(UserError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_nothing_asked(hub: HierarchicalBert) -> None:
    assert hub.answer([], []) == []


@pytest.mark.parametrize(
    ("questions", "contexts"),
    [(["which cat", "which dogs"], ["a cat"]), (["which cat"], ["a cat", "dogs"]), ("which cat", ["a cat", "dogs"])],
)
def test_as_many_contexts_as_questions(hub: HierarchicalBert, questions: list[str], contexts: list[str]) -> None:
    with pytest.raises(UserError, match="contexts"):
        hub.answer(questions, contexts)
