"""Probing from Python and from the command line: results once, resumable, the right rows, one line for what cannot be."""

import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.probing import GivenEncoder, probe, run
from hmtl_plugin.probing.tasks import read_task
from hmtl_plugin.reporting.probing.table import probing_table
from hmtl_plugin.results import read_results
from tests.probing.texts import sentences, write_task

LAYERS = 3


def telling(texts: list[str]) -> np.ndarray:
    """Layer 1 alone knows whether a cat is there; layers 0 and 2 are noise that depends on the text."""
    features = np.stack([np.random.default_rng(zlib.crc32(text.encode())).normal(size=(LAYERS, 5)) for text in texts])
    features[:, 1, 0] = [3.0 * ("cat" in text) for text in texts]
    return features


def blind(texts: list[str]) -> np.ndarray:
    return telling([f"{text} {i % 7}" for i, text in enumerate(texts)]) * [[[1], [0.0], [1]]]


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Two tasks: the cat, and whether the sentence's number is odd, which nothing tells."""
    texts = [f"{text} {i}" for i, text in enumerate(sentences(600, seed=3))]
    folder = tmp_path / "tasks"
    write_task(folder / "cats.txt", texts, ["cat" if "cat" in text else "none" for text in texts], (300, 400))
    write_task(folder / "odd.txt", texts, [str(i % 2) for i in range(600)], (300, 400))
    return folder


def test_a_function_is_probed_layer_by_layer(tasks: Path) -> None:
    study = probe({"telling": telling, "blind": blind}, tasks, baseline="blind")
    cats = study.probed["telling", "cats", "given"]
    assert cats.best == 1 and cats.accuracy[1] == 100 and cats.accuracy[[0, 2]].max() < 95
    assert cats.centre == pytest.approx(1, abs=0.2)
    difference = study.differences["telling", "cats", "given"]
    assert difference.significant.tolist() == [False, True, False]
    odd = study.probed["telling", "odd", "given"]
    assert np.abs(odd.accuracy - 50).max() < 12 and odd.centre is None
    assert not study.differences["telling", "odd", "given"].significant.any()
    by_name = {task.name: task for task in study.tasks}
    assert by_name["cats"].bag_of_words == 100 and by_name["cats"].majority < 95
    table = probing_table(study)
    assert "[100.0]*" in table and "average" in table and "differs from blind" in table


def test_labels_of_test_rows_change_nothing_but_the_score(tasks: Path, tmp_path: Path) -> None:
    """A leak of te into training or choice would change the choice, or score above chance on labels drawn at random."""
    path = tasks / "cats.txt"
    before = probe({"telling": telling}, path).probed["telling", "cats", "given"]
    lines = path.read_text().splitlines()
    random = np.random.default_rng(0)
    changed = [
        line if not line.startswith("te") else "te\t{}\t{}".format(random.choice(["cat", "none"]), line.split("\t")[2])
        for line in lines
    ]
    other = tmp_path / "cats.txt"
    other.write_text("\n".join(changed))
    after = probe({"telling": telling}, other).probed["telling", "cats", "given"]
    assert (after.valid == before.valid).all() and after.hyper == before.hyper and after.best == before.best
    assert np.abs(after.accuracy - 50).max() < 12


def test_what_was_done_is_not_done_again(tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, encoder = tmp_path / "out", GivenEncoder("telling", telling, "1")
    done = []
    original = run.probe_layers
    monkeypatch.setattr(run, "probe_layers", lambda *arguments: (done.append(1), original(*arguments))[1])
    first = probe({"telling": encoder}, tasks / "cats.txt", out)
    assert len(done) == 2  # the task and its control
    again = probe({"telling": encoder}, tasks, out)
    assert len(done) == 4  # of the other task alone
    assert (
        again.probed["telling", "cats", "given"].accuracy == first.probed["telling", "cats", "given"].accuracy
    ).all()
    probe({"telling": GivenEncoder("telling", telling, "2")}, tasks, out)
    assert len(done) == 8
    lines = read_results(out / "results.jsonl")
    assert all(line["kind"] == "probe" and line["schema"] == 1 for line in lines)


def test_an_interrupted_run_goes_on(tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = probe({"telling": GivenEncoder("telling", telling, "1")}, tasks)
    out, calls = tmp_path / "out", []
    original = run.probe_layers

    def dying(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(run, "probe_layers", dying)
    with pytest.raises(KeyboardInterrupt):
        probe({"telling": GivenEncoder("telling", telling, "1")}, tasks, out)
    store = out / "results.jsonl"
    store.write_text(store.read_text()[:-50])  # a killed writer: half a line, so half a unit
    resumed = probe({"telling": GivenEncoder("telling", telling, "1")}, tasks, out)
    assert len(calls) == 6  # two done, one of them torn; the rest
    for key, probed in whole.probed.items():
        assert (resumed.probed[key].accuracy == probed.accuracy).all() and (resumed.probed[key].low == probed.low).all()


def test_seeds_of_controls_and_mlps(tasks: Path) -> None:
    one, two = (probe({"t": telling}, tasks / "cats.txt", seeds=seeds) for seeds in ((1,), (1, 2)))
    first, second = one.probed["t", "cats", "given"], two.probed["t", "cats", "given"]
    assert (first.accuracy == second.accuracy).all()  # logistic regression has no seed
    assert first.control is not None and second.control is not None and (first.control != second.control).any()
    assert (first.sd == 0).all() and (second.sd == 0).all()


def test_two_encoders_are_never_taken_for_one(tasks: Path) -> None:
    same = {"a": GivenEncoder("x", telling, "1"), "b": GivenEncoder("x", blind, "1")}
    with pytest.raises(UserError, match="a and b are the same encoder"):
        probe(same, tasks)
    # the key is the name, whatever name the wrapper has
    study = probe({"a": GivenEncoder("x", telling, "1"), "b": GivenEncoder("y", blind, "1")}, tasks / "cats.txt")
    assert study.probed["a", "cats", "given"].accuracy[1] == 100 > study.probed["b", "cats", "given"].accuracy[1]


def test_functions_without_version_leave_no_features(tasks: Path, tmp_path: Path) -> None:
    probe({"t": telling}, tasks / "cats.txt", tmp_path / "out")
    assert not (tmp_path / "out/features").exists()


def test_results_need_no_features_again(tasks: Path, tmp_path: Path) -> None:
    asked: list[int] = []

    def counting(texts: list[str]) -> np.ndarray:
        asked.append(len(texts))
        return telling(texts)

    for _ in range(2):
        probe({"t": GivenEncoder("t", counting, "1")}, tasks / "cats.txt", tmp_path / "out", keep_features=False)
    assert sum(asked) == 600 + 2 * 2  # every sentence once, and two to look at each time


def test_the_baseline_shares_a_pooling(tasks: Path) -> None:
    as_mean = {"a": lambda t: {"mean": telling(t)}, "b": lambda t: {"mean": blind(t)}, "c": telling}
    study = probe(as_mean, tasks / "cats.txt")
    assert study.baseline == "b" and set(study.differences) == {("a", "cats", "mean")}


def test_packed_rows_come_back() -> None:
    right = np.random.default_rng(0).random(1003) < 0.5
    assert (run.unpack(run.pack(right), 1003) == right).all()


def test_refusals(tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--baseline nobody: probed are t"):
        probe({"t": telling}, tasks, baseline="nobody")
    with pytest.raises(UserError, match="probe 'svm'"):
        probe({"t": telling}, tasks, probe="svm")
    with pytest.raises(UserError, match="named twice"):
        probe([tmp_path, f"{tmp_path}/"], tasks)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"--out .*file: cannot be written"):
        probe({"t": telling}, tasks, tmp_path / "file")
    with pytest.raises(UserError, match="no encoder"):
        probe({}, tasks)


def test_results_survive_a_bad_task_added_later(tasks: Path, tmp_path: Path) -> None:
    out, encoder = tmp_path / "out", GivenEncoder("telling", telling, "1")
    probe({"telling": encoder}, tasks, out)
    before = (out / "results.jsonl").read_bytes()
    (tasks / "broken.txt").write_text("tr\tx\n")
    with pytest.raises(UserError, match=r"broken.txt, line 1"):
        probe({"telling": encoder}, tasks, out)
    (tasks / "broken.txt").unlink()
    probe({"telling": encoder}, tasks, out)
    assert (out / "results.jsonl").read_bytes() == before


def test_same_file_under_another_folder_is_known(tasks: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tasks, copy)
    assert read_task(copy / "cats.txt").sha256 == read_task(tasks / "cats.txt").sha256
