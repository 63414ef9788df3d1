"""What importing a part of the package imports, registers and leaves alone, in processes of their own."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hmtl_plugin.commands.run import COMMANDS
from tests.conftest import REPOSITORY

REGISTERED = """
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.models import MODEL_REGISTRY
from fairseq.optim import OPTIMIZER_REGISTRY
from fairseq.tasks import TASK_REGISTRY
print("hmtl_bert" in MODEL_REGISTRY, {"hmtl_pretraining", "glue", "squad"} <= set(TASK_REGISTRY),
      {"hmtl", "sentence_score", "glue", "span_qa"} & set(CRITERION_REGISTRY), "hmtl_muon" in OPTIMIZER_REGISTRY)
"""


def run(code: str, **environ: str) -> str:
    """What code prints in a process of its own, elsewhere than in the repository."""
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environ}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_hierarchy_needs_nothing() -> None:
    """Importing it, or the package alone, is a matter of hundredths of a second."""
    heavy = "print({'torch', 'fairseq', 'numpy', 'omegaconf'} & set(sys.modules))"
    assert run(f"import sys, hmtl_plugin, hmtl_plugin.hierarchy; {heavy}") == "set()"


@pytest.mark.parametrize(
    "first",
    [
        "import hmtl_plugin.tasks",
        "import fairseq.tasks, hmtl_plugin",
        "from hmtl_plugin import HierarchicalBert",
        "from hmtl_plugin.checkpoints import load_checkpoint",
        "from hmtl_plugin.probing import probe",
        "import hmtl_plugin.hierarchy, argparse; from fairseq.utils import import_user_module as take;"
        f"take(argparse.Namespace(user_dir='{REPOSITORY / 'hmtl_plugin'}')); import hmtl_plugin.tasks",
    ],
)
def test_ways_to_register(first: str) -> None:
    found = run(f"{first}\n{REGISTERED}")
    assert found.startswith("True True") and found.endswith("True")


def test_training_is_checked_where_fairseq_is_loaded_first() -> None:
    """As in fairseq-train, by a module of one's own too: not where a library user imports a part."""
    wrapped = "from fairseq.distributed import utils; print(hasattr(utils.call_main, '__wrapped__'))"
    assert run(f"import fairseq.tasks, hmtl_plugin; {wrapped}") == "True"
    assert run(f"import hmtl_plugin.models; {wrapped}") == "False"


@pytest.mark.parametrize("part", ["models", "conformance", "fairseq_hub"])
def test_importing_fairseq_leaves_logging_alone(part: str) -> None:
    """It would turn on debug logging for the whole process; tests/test_layers.py holds the rule for all parts."""
    state = "r = logging.getLogger(); print(r.level, r.handlers)"
    assert run(f"import logging, sys, hmtl_plugin.{part}; assert 'fairseq' in sys.modules; {state}") == "30 []"


@pytest.mark.slow
def test_a_data_set_travels_to_a_process_that_knows_nothing(tmp_path: Path) -> None:
    """As to a worker that is spawned: pickled, and opened where nothing has been imported."""
    corpus = tmp_path / "data"
    make = f"""
import pathlib, pickle
from hmtl_plugin.checkpoints import build_objectives
from hmtl_plugin.conformance import make_data
from hmtl_plugin.corruption.vocabulary import Vocabulary
from hmtl_plugin.data.splits import open_split
from hmtl_plugin.tasks import task_options
from hmtl_plugin.tokenizers.vocabulary_state import read_dictionary
folder = make_data(pathlib.Path({str(corpus)!r}))
dictionary = read_dictionary(folder / "dict.txt")
dictionary.add_symbol("<mask>")
options = task_options("hmtl_pretraining")(tokens_per_sample=40)
objectives = build_objectives(("nsp", "mlm"), options)
data = open_split(folder, "train", objectives, Vocabulary.from_dictionary(dictionary), options, training=True, seed=1)
print(data.collater([0, 1])["net_input"]["src_tokens"].sum().item())
pathlib.Path({str(tmp_path / "pickled")!r}).write_bytes(pickle.dumps(data))
"""
    opened = f"""
import pickle
data = pickle.load(open({str(tmp_path / "pickled")!r}, "rb"))
print(data.collater([0, 1])["net_input"]["src_tokens"].sum().item())
"""
    assert run(make) == run(opened) != ""


@pytest.mark.slow
def test_a_wheel_has_all_that_its_commands_need(tmp_path: Path) -> None:
    """Built as for an index: reports' templates are in it, and its commands start where there is no repository."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "hmtl_plugin"):  # not the repository: building writes there
        (copy / name).symlink_to(REPOSITORY / name)
    subprocess.run([*build, str(copy)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("hmtl_plugin-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        names = set(archive.namelist())
    templates = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "hmtl_plugin").rglob("*.jinja")}
    assert templates and templates <= names
    entries = next(tmp_path.glob("site/*.dist-info/entry_points.txt")).read_text().splitlines()
    commands = [line.partition(" ")[0] for line in entries if line.startswith("hmtl-")]
    assert {name.removeprefix("hmtl-").replace("-", "_") for name in commands} == set(COMMANDS) - {
        "study",
        "recipe_options",
    }
    for command in ("hmtl-evaluate", "hmtl-prepare-corpus", "hmtl-python-prose"):
        code = f"import sys; sys.argv = ['/usr/bin/{command}', '--help']; from hmtl_plugin.commands.run import console; console()"
        assert run(code, PYTHONPATH=str(tmp_path / "site")).startswith(f"usage: {command}")
