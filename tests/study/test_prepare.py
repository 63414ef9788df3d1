"""Preparation: what is written and named, when it is done again, and that it removes nothing but its own."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.study import prepare as preparation
from hmtl_plugin.study.prepare import PREPARED, prepare, task_folder
from hmtl_plugin.study.profile import Finetuning, Probing, Profile, Text
from hmtl_plugin.study.sources import copy_probing, find_sources
from tests.study.studies import PROFILE, tiny, write, write_data

SPLITS = {"train": {"documents": 3}}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "given")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Stands for a binarised corpus."""
    write(tmp_path / "corpus" / "dict.txt", "<mask> 1\n")
    write(tmp_path / "corpus" / "corpus.json", json.dumps({"splits": SPLITS}))
    return tmp_path / "corpus"


def run(data: Path, out: Path, corpus: Path | None, profile: Profile = PROFILE) -> dict[str, Any]:
    return prepare(find_sources(profile, data), profile, out, corpus)


def test_the_tasks_own_text_without_their_evaluation(data: Path, tmp_path: Path) -> None:
    write(data / "glue" / "RTE" / "dev.tsv", (data / "glue" / "RTE" / "train.tsv").read_text().split("\n3\t")[0] + "\n")
    profile = tiny(text=Text(36, valid_fraction=0.2))
    prepared = run(data, tmp_path / "out", None, profile)
    text = (tmp_path / "out" / "text.txt").read_text()
    assert "A train premise 3." in text and "A train premise 2." not in text and "fruit is in" in text
    assert [g["format"] for g in prepared["text"]["gathered"]] == ["pairs", "squad"]
    assert prepared["text"]["gathered"][0]["excluded"] == 3
    assert {"dict.txt", "train.bin", "valid.bin", "sentencepiece.bpe.model"} <= {
        path.name for path in (tmp_path / "out" / "corpus").iterdir()
    }
    assert prepared == json.loads((tmp_path / "out" / PREPARED).read_text())
    again = run(data, tmp_path / "again", None, profile)  # another folder, the same data
    assert again == prepared


def test_a_given_corpus_is_copied(data: Path, corpus: Path, tmp_path: Path) -> None:
    prepared = run(data, tmp_path / "out", corpus)
    assert prepared["text"] == {"given": "corpus", "splits": SPLITS}
    assert sorted(prepared["tasks_sha256"]) == ["RTE", "SQuAD"]
    for task, names in (("RTE", ["dev.tsv", "train.tsv"]), ("SQuAD", ["dev.json", "train.json"])):
        assert sorted(path.name for path in task_folder(tmp_path / "out", task).iterdir()) == names
    assert not (tmp_path / "out" / f"{PREPARED}.part").exists()
    (corpus / "dict.txt").unlink()
    run(data, tmp_path / "own", None, tiny(text=Text(vocab_size=40)))
    for out in ("out", "own", "other"):  # made with it, made without it, new
        before = sorted(path.name for path in (tmp_path / out).rglob("*"))
        with pytest.raises(UserError, match=r"--corpus .*: no dict\.txt"):
            run(data, tmp_path / out, corpus)
        assert sorted(path.name for path in (tmp_path / out).rglob("*")) == before


def test_two_processes_prepare_in_turn(
    data: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second waits, and finds it done."""
    began, copies = threading.Event(), []

    def slow(*given: Any) -> None:
        copies.append(1)
        began.set()
        time.sleep(0.5)
        copy_probing(*given)

    monkeypatch.setattr(preparation, "copy_probing", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run, data, tmp_path / "out", corpus)
        began.wait(60)
        second = pool.submit(run, data, tmp_path / "out", corpus)
        assert first.result() == second.result()
    assert len(copies) == 1


def test_it_is_done_again_only_for_other_data_or_options(
    data: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, copies = run(data, tmp_path / "out", corpus), []

    def counted(*given: Any) -> None:
        copies.append(1)
        copy_probing(*given)

    monkeypatch.setattr(preparation, "copy_probing", counted)
    unlike = tiny(finetuning=[replace(f, grid=["lr=9"], seeds=5) for f in PROFILE.finetuning], autocast="none")
    assert run(data, tmp_path / "out", corpus, unlike) == first and not copies
    write(
        corpus / "corpus.json", json.dumps({"splits": SPLITS, "versions": "others"})
    )  # versions of packages stand there
    assert run(data, tmp_path / "out", corpus) == first and not copies
    capped = tiny(finetuning=[Finetuning("RTE", ["lr=1"], train_rows=4), PROFILE.finetuning[1]])
    second = run(data, tmp_path / "out", corpus, capped)
    assert len(copies) == 1 and second["tasks_sha256"]["SQuAD"] == first["tasks_sha256"]["SQuAD"]
    assert second["tasks_sha256"]["RTE"] != first["tasks_sha256"]["RTE"]
    assert second["corpus_sha256"] == first["corpus_sha256"]
    fewer = run(data, tmp_path / "out", corpus, tiny(probing=Probing(rows=[4, 2, 2])))
    assert fewer["probing_sha256"] != first["probing_sha256"] and fewer["tasks_sha256"] == first["tasks_sha256"]
    write(corpus / "dict.txt", "<mask> 2\n")
    assert run(data, tmp_path / "out", corpus)["corpus_sha256"] != first["corpus_sha256"]
    assert len(copies) == 3


def test_what_a_killed_preparation_left_is_done_anew(
    data: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "copy_probing", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(data, tmp_path / "out", corpus)
    write(tmp_path / "out" / "probing" / "half.txt", "tr")
    assert run(data, tmp_path / "out", corpus) == run(data, tmp_path / "whole", corpus)
    assert not (tmp_path / "out" / "probing" / "half.txt").exists()


@pytest.mark.parametrize("where", ["tasks", "corpus", "else"])
def test_nothing_of_the_users_is_removed(data: Path, corpus: Path, tmp_path: Path, where: str) -> None:
    """``--out .`` beside a folder ``data``, of which the study's own folder would take the place."""
    out = {"tasks": data, "corpus": tmp_path, "else": tmp_path / "mine"}[where]
    write(tmp_path / "mine" / "thesis.txt", "years of work")
    for ours in (False, True):
        if ours and where != "else":
            write(out / PREPARED, "{}")
        with pytest.raises(UserError, match=r"holds files that the study did not write.*give another --out"):
            run(data, out, corpus)
    assert (tmp_path / "mine" / "thesis.txt").exists() and (data / "glue").exists() and (corpus / "dict.txt").exists()
