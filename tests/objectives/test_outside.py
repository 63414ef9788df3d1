"""An objective in a folder outside of the project: trained, measured and asked, with no file of ours touched."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.training.runs import ROOT, arguments, fairseq_command, make_data, run

FOLDER = REPOSITORY / "tests" / "extension" / "sample_length"
HIERARCHY = "length@1,nsp@2,mlm@2"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Data and run; the module lies elsewhere, as a user's does."""
    folder = tmp_path_factory.mktemp("outside")
    shutil.copytree(FOLDER, folder / "sample_length")
    data = make_data(folder / "data")
    shape = "--encoder-layers 2 --encoder-embed-dim 32 --encoder-attention-heads 2 --max-positions 64".split()
    options = (
        "--optimizer hmtl_adamw --lr 2e-3 --lr-scheduler fixed --max-update 6 --tokens-per-sample 64 --max-tokens 800"
    )
    command = [
        *(str(data), "--user-dir", str(folder / "sample_length"), "--task", "hmtl_pretraining", "--criterion", "hmtl"),
        *("--arch", "hmtl_bert", *shape, "--hierarchy", HIERARCHY, "--transfer", "length>mlm:label"),
        *(*options.split(), "--length-step", "9", "--cpu", "--num-workers", "0", "--no-epoch-checkpoints"),
        *("--save-dir", str(folder / "run"), "--log-format", "json"),
    ]
    done = run(fairseq_command(command))
    assert done.returncode == 0, done.stderr[-2000:]
    assert '"valid_length_accuracy"' in done.stdout + done.stderr
    return data, folder / "run"


def script(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *map(str, arguments)]


@pytest.mark.slow
def test_it_is_measured_beside_ours(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, folder = trained
    module = folder.parent / "sample_length"
    results = tmp_path / "results.jsonl"
    asked = script("evaluate", folder, "--data", data, "--samples", "60", "--results", results)
    for own, environ in ((["--user-dir", module], {}), ([], {"HMTL_USER_DIR": str(module)})):
        done = run([*asked, *map(str, own)], **environ)
        assert done.returncode == 0, done.stderr
        rows = [line.split()[1:] for line in done.stdout.splitlines() if " length " in line]
        assert len(rows) == 1 and rows[0][:3] == ["length", "accuracy", "(%)"] and "(majority)" in done.stdout
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert {line["task"] for line in lines} >= {"length", "nsp", "mlm"}
    (length,) = (line["metrics"] for line in lines if line["task"] == "length")
    assert 25 <= length["baseline"] <= 100 and length["low"] <= length["value"] <= length["high"]


@pytest.mark.slow
def test_without_the_module_a_line_says_so(trained: tuple[Path, Path]) -> None:
    data, folder = trained
    done = run(script("evaluate", folder, "--data", data))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: the objective 'length' is not known here: give --user-dir DIR (or set HMTL_USER_DIR=DIR), the module that registers it"
    )
    for wrong, said in (("nowhere", "no such folder"), ("", "give the folder of your own module after it")):
        done = run(script("evaluate", folder, "--data", data, "--user-dir", *([wrong] if wrong else [])))
        assert done.returncode == 1 and said in done.stderr.splitlines()[-1], done.stderr


def test_its_options_are_checked(trained: tuple[Path, Path], tmp_path: Path) -> None:
    data, folder = trained
    command = [
        *(str(data), "--user-dir", str(folder.parent / "sample_length"), "--task", "hmtl_pretraining"),
        *("--criterion", "hmtl", "--arch", "hmtl_bert", "--hierarchy", HIERARCHY, "--length-step", "0", "--cpu"),
        *("--optimizer", "hmtl_adamw", "--lr", "1e-3", "--max-tokens", "400", "--save-dir", str(tmp_path)),
    ]
    done = run(fairseq_command(command))
    assert done.returncode == 1 and "error: --length-step 0: use 1 or more" in done.stderr.splitlines()[-1]


CONFORM = """
import sys, pathlib
from hmtl_plugin import HierarchicalBert
from hmtl_plugin.conformance import CHECKS, Trial
for check in CHECKS:
    folder = pathlib.Path(sys.argv[1]) / check.__name__
    folder.mkdir()
    check(Trial(sys.argv[2], folder))
print("passed", len(CHECKS))
"""
ANSWER = """
import sys
from hmtl_plugin.checkpoints import load_checkpoint
from hmtl_plugin.reporting.study.figures import _curve_titles
from hmtl_plugin.reporting.study.collect import _of_target
from hmtl_plugin.objectives.measure import find_metric
checkpoint = load_checkpoint(sys.argv[1])
assert checkpoint.objectives["length"].options.length_step == 9
assert _curve_titles()["length_loss"] == "length loss (nats)"
measure = _of_target("length", find_metric("accuracy"))
assert (measure.title, measure.unit, measure.higher_is_better, measure.pretraining) == ("length", "% right", True, True)
"""


@pytest.mark.parametrize(("module", "name"), [("echoed_words", "echo"), ("word_place", "place")])
def test_the_other_examples_pass_the_suite(tmp_path: Path, module: str, name: str) -> None:
    done = run([sys.executable, "-c", CONFORM, str(tmp_path), name], HMTL_USER_DIR=str(FOLDER.parent / module))
    assert done.stdout.startswith("passed "), done.stderr


@pytest.mark.slow
def test_it_passes_the_suite_and_is_reported(trained: tuple[Path, Path], tmp_path: Path) -> None:
    module = str(trained[1].parent / "sample_length")
    done = run([sys.executable, "-c", CONFORM, str(tmp_path), "length"], HMTL_USER_DIR=module)
    assert done.stdout.startswith("passed "), done.stderr
    done = run([sys.executable, "-c", ANSWER, str(trained[1])], HMTL_USER_DIR=module)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("value", ["sample_length", "sample_weight"])
def test_an_installed_package_needs_no_option(trained: tuple[Path, Path], tmp_path: Path, value: str) -> None:
    """Its entry point is enough; one that cannot be imported is named."""
    shutil.copytree(FOLDER, tmp_path / "sample_length")
    about = tmp_path / "lengths-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lengths\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[hmtl_plugin.objectives]\nlength = {value}\n")
    code = "import hmtl_plugin.tasks; from hmtl_plugin.objectives.base import objective_names; print(objective_names())"
    done = run([sys.executable, "-c", code], PYTHONPATH=f"{tmp_path}:{ROOT}")
    if value == "sample_length":
        assert "'length'" in done.stdout, done.stderr
    else:
        said = "the objective 'length' of the installed package sample_weight cannot be imported: ModuleNotFoundError"
        assert done.returncode == 1 and said in done.stderr


OLD = """
import sys
from hmtl_plugin import HierarchicalBert
from hmtl_plugin.objectives.base import build_objectives
model = HierarchicalBert.from_pretrained(sys.argv[1])
assert "length_step" not in model.checkpoint.config["task"]
from types import SimpleNamespace
assert build_objectives(["length"], SimpleNamespace(**model.checkpoint.config["task"]))["length"].options.length_step == 12
print(model.hierarchy)
"""


@pytest.mark.parametrize("name", ["2dc1455-pre.pt", "2dc1455-post.pt"])
def test_its_options_leave_older_checkpoints_readable(name: str) -> None:
    """Those of a commit that had no such option, and neither that of rtd."""
    path = REPOSITORY / "tests" / "checkpoints" / name
    done = run([sys.executable, "-c", OLD, str(path)], HMTL_USER_DIR=str(FOLDER))
    assert done.returncode == 0 and "mlm" in done.stdout, done.stderr


SCORE = """
import sys
from hmtl_plugin.conformance import Trial
from hmtl_plugin import HierarchicalBert
from hmtl_plugin.reporting.study.figures import _curve_titles
assert _curve_titles()["place_loss"] == "place loss (squared error)"
import pathlib
trial = Trial("place", pathlib.Path(sys.argv[1]))
model = HierarchicalBert(trial.checkpoint(trial.model("place@2"), "place@2"))
words = model.predict_words("place", " ".join(trial.dictionary.symbols[trial.dictionary.nspecial :][:4]))
assert all(isinstance(word.predicted.answer, float) and not word.predicted.probabilities for word in words)
"""


@pytest.mark.slow
def test_answers_may_be_numbers(tmp_path: Path) -> None:
    """Tokens without one have none; what is measured is the share of the variance that is explained."""
    module = str(REPOSITORY / "tests" / "extension" / "word_place")
    (tmp_path / "score").mkdir()
    done = run([sys.executable, "-c", SCORE, str(tmp_path / "score")], HMTL_USER_DIR=module)
    assert done.returncode == 0, done.stderr
    data = make_data(tmp_path / "data")
    command = fairseq_command(arguments(data, tmp_path / "run", "--max-update", "150", "--lr", "4e-3"))
    command[command.index("--user-dir") + 1] = module
    command[command.index("--hierarchy") + 1] = "place@1,mlm@2"
    command[command.index("--transfer") + 1] = "place>mlm:gate"
    done = run(command)
    assert done.returncode == 0, done.stderr[-2000:]
    results = tmp_path / "results.jsonl"
    own = ("--view", "training", "--results", results, "--user-dir", module)
    done = run(script("evaluate", tmp_path / "run", "--data", data, *own))
    assert done.returncode == 0 and "R²" in done.stdout and "(mean)" in done.stdout, done.stderr
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    (found,) = [line["metrics"] for line in lines if line["task"] == "place"]
    assert (found["metric"], found["baseline"]) == ("r2", 0)
    assert 0.8 < found["low"] <= found["value"] <= found["high"] <= 1
