"""Scripts without blanks between words, and text that a tokenizer does not know: what preparation says and records."""

import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest

from hmtl_plugin import HierarchicalBert
from hmtl_plugin.data.manifest import LONGEST_WORDS, read_manifest
from hmtl_plugin.errors import UserError
from hmtl_plugin.glue.prepare import prepare_glue
from hmtl_plugin.glue.tasks import find_task
from hmtl_plugin.squad.prepare import prepare_squad
from hmtl_plugin.tokenizers.loading import tokenizer_from_bytes
from hmtl_plugin.tokenizers.training import train_tokenizer
from tests.commands.running import run_script
from tests.finetuning.squad.texts import entry
from tests.training.runs import arguments, train

WORDS = {
    "thai": "แมว สุนัข กิน ข้าว ที่ บ้าน ใหญ่ เล็ก วันนี้ ฉัน ไป โรงเรียน กับ เพื่อน เขา อ่าน หนังสือ เมื่อวาน ฝน ตก".split(),
    "chinese": "猫 狗 吃 米饭 在 房子 大 小 今天 我 去 学校 和 朋友 他 读 书 昨天 下雨".split(),
    "korean": "고양이가 개는 밥을 먹는다 집에서 큰 작은 오늘 나는 학교에 간다 친구와 그는 책을 읽는다 어제 비가".split(),
    "german": "Die Katze Donaudampfschifffahrtsgesellschaft sieht das Haus und liest ein Buch in der Straßenbahn".split(),
    "arabic": "القط الكلب يأكل الأرز في البيت كبير صغير اليوم أنا أذهب إلى المدرسة مع صديق".split(),
    "english": "the cat sees a dog in that old house and reads some book today".split(),
}
SPACED = ("korean", "german", "arabic", "english")


def write(path: Path, language: str, lines: int = 200) -> Path:
    """Sentences of two or three phrases; in Thai a blank stands between phrases, in Chinese none does."""
    random = np.random.default_rng(0)
    blank, end = (" ", ".") if language in SPACED else ("", "" if language == "thai" else "。")
    between = "" if language == "chinese" else " "

    def sentence() -> str:
        phrases = [blank.join(random.choice(WORDS[language], 7)) for _ in range(random.integers(2, 4))]
        return between.join(phrases) + end

    path.write_text("\n".join(sentence() + ("\n" if n % 5 == 4 else "") for n in range(lines)), encoding="utf-8")
    return path


def prepare(text: Path, out: Path, *more: str | Path) -> None:
    options = ["--format", "sentences", "--workers", "1", "--valid-fraction", "0.1", *more]
    run_script("prepare_corpus", text, "--out", out, *options)


@pytest.mark.parametrize("language", WORDS)
def test_words_are_decided_by_the_text(language: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of Thai a share of pieces begins phrases, so the dictionary said that there are words."""
    prepare(write(tmp_path / "t", language), tmp_path / "d", "--vocab-size", "38" if language == "english" else "42")
    manifest = read_manifest(tmp_path / "d")
    assert manifest is not None
    said = "characters between blanks: words are single pieces" in capsys.readouterr().out
    assert said == (manifest["word_characters"] > LONGEST_WORDS)
    assert said == (language not in SPACED)
    assert not 10 < manifest["word_characters"] < 20, "the bound is no close thing"


@pytest.mark.parametrize("language", ["thai", "chinese", "english"])
def test_short_sentences_are_no_words(language: str, tmp_path: Path) -> None:
    """Of subtitles or chats in a script without blanks, each sentence is as long as a German word."""
    random, blank = np.random.default_rng(0), " " * (language == "english")
    size = 2 if language == "thai" else 4
    lines = [blank.join(random.choice(WORDS[language], size)) for _ in range(400)]
    (tmp_path / "t").write_text("\n".join(f"{line}\n" * (1 + n % 2) for n, line in enumerate(lines)), encoding="utf-8")
    prepare(tmp_path / "t", tmp_path / "d", "--vocab-size", "38" if language == "english" else "42")
    manifest = read_manifest(tmp_path / "d")
    assert manifest is not None and (manifest["word_characters"] <= LONGEST_WORDS) == (language == "english")


def test_training_and_the_hub_take_pieces_for_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prepare(write(tmp_path / "t", "thai"), tmp_path / "d", "--vocab-size", "120", "--model-type", "wordpiece")
    more = ["--hierarchy", "bigram_shift@1,mlm@2", "--transfer", "", "--mask-scheme", "word", "--max-update", "2"]
    with caplog.at_level(logging.INFO):
        train(arguments(tmp_path / "d", tmp_path / "run", *more))
    assert any(re.match(r"\d\d characters stand between blanks: words are single pieces", m) for m in caplog.messages)
    bert = HierarchicalBert.from_pretrained(tmp_path / "run")
    assert not bert.vocabulary.has_words and bert.vocabulary.word_start_V.all()
    manifest = json.loads((tmp_path / "d" / "corpus.json").read_text())
    del manifest["word_characters"]  # as an earlier version wrote it: the dictionary decides, as it did
    (tmp_path / "d" / "corpus.json").write_text(json.dumps(manifest))
    train(arguments(tmp_path / "d", tmp_path / "old", *more))
    assert HierarchicalBert.from_pretrained(tmp_path / "old").vocabulary.has_words


def test_unknown_pieces_are_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    prepare(write(tmp_path / "en", "english"), tmp_path / "d", "--vocab-size", "38", "--character-coverage", "1")
    model = tmp_path / "d" / "sentencepiece.bpe.model"
    capsys.readouterr()
    with pytest.raises(
        UserError, match=r"% of the pieces are <unk> \(among them: .*猫.*\): the tokenizer does not fit"
    ) as error:
        prepare(write(tmp_path / "zh", "chinese"), tmp_path / "zh.d", "--tokenizer", model)
    assert "--allow-unknown" in str(error.value) and not (tmp_path / "zh.d").exists()
    with caplog.at_level(logging.WARNING):
        prepare(tmp_path / "zh", tmp_path / "zh.d", "--tokenizer", model, "--allow-unknown")
    ids = np.frombuffer((tmp_path / "zh.d" / "train.bin").read_bytes(), dtype="<u2")
    manifest = read_manifest(tmp_path / "zh.d")
    assert manifest is not None and manifest["splits"]["train"]["unknown"] == int((ids == 3).sum()) > 100
    assert "of them <unk>)" in capsys.readouterr().out and "% of the pieces are <unk>" in caplog.text
    prepare(tmp_path / "zh", tmp_path / "zh.d", "--tokenizer", model)  # the option is none of the data's
    caplog.clear()
    (tmp_path / "few").write_text((tmp_path / "en").read_text() + "\na cat 猫 of many pieces\n")
    with caplog.at_level(logging.WARNING):
        prepare(tmp_path / "few", tmp_path / "few.d", "--tokenizer", model)
    found = read_manifest(tmp_path / "few.d")
    assert found is not None and sum(split["unknown"] for split in found["splits"].values()) > 0
    assert "<unk>" not in caplog.text


def test_fine_tuning_data_that_the_tokenizer_does_not_know_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened = tokenizer_from_bytes("sentencepiece.bpe.model", train_tokenizer(["the cat sees a dog ?"] * 9, 16))
    rows = "index\tsentence1\tsentence2\tlabel\n0\tthe 猫\ta dog\tentailment\n1\t狗 cat\ta 猫\tnot_entailment\n"
    for split in ("train", "dev"):
        (tmp_path / "glue" / "RTE").mkdir(parents=True, exist_ok=True)
        (tmp_path / "glue" / "RTE" / f"{split}.tsv").write_text(rows)
    paragraph = {"context": "the 猫", "qas": [entry(0, [("猫", 4)], "a 狗 ?")]}
    (tmp_path / "squad.json").write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}))
    with caplog.at_level(logging.WARNING):
        list(prepare_glue([find_task("RTE")], tmp_path / "glue", tmp_path / "g", opened.dictionary(), opened, 1))
        prepare_squad(tmp_path / "squad.json", None, None, tmp_path / "s", opened.dictionary(), opened, 1)
    said = [message for message in caplog.messages if "<unk>" in message]
    assert len(said) == 3 and all("% of the pieces are <unk> (among them: " in message for message in said)
    assert said[0].startswith(f"{tmp_path}/glue/RTE/train.tsv: ") and "猫" in said[0] and "狗" in said[2]
