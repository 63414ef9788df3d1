"""Recipes: the commands they make are ones that fairseq takes; the YAMLs name options that exist."""

import dataclasses
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fairseq import options
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.initialize import add_defaults, hydra_init
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import MODEL_DATACLASS_REGISTRY
from fairseq.optim import OPTIMIZER_DATACLASS_REGISTRY
from fairseq.optim.lr_scheduler import LR_SCHEDULER_DATACLASS_REGISTRY
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

import hmtl_plugin  # noqa: F401 - registers what the recipes name
from tests.recipe.configurations import TABLE, arguments_of, begin
from tests.recipe.configurations import configuration as configuration_of

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / "recipes" / "configs"
REGISTRIES = {
    "task": TASK_DATACLASS_REGISTRY,
    "model": MODEL_DATACLASS_REGISTRY,
    "criterion": CRITERION_DATACLASS_REGISTRY,
    "optimizer": OPTIMIZER_DATACLASS_REGISTRY,
    "lr_scheduler": LR_SCHEDULER_DATACLASS_REGISTRY,
}


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    """The recipes beside a setup.sh that has nothing to do and a Python that sees no GPU."""
    shutil.copytree(REPOSITORY / "recipes", tmp_path / "recipes")
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    options = f'*recipe_options.py*) PYTHONPATH={REPOSITORY} exec {sys.executable} "$@";;'
    others = "*tensorboard* | *openmp_waiting.py) ;; *device_count*) echo 0;; *) echo 4;;"
    python.write_text(f'#!/bin/sh\ncase "$*" in {options} {others} esac\n')
    python.chmod(0o755)
    (tmp_path / "scripts").mkdir()
    for name in ("recipe_options.py", "openmp_waiting.py"):
        shutil.copy(REPOSITORY / "scripts" / name, tmp_path / "scripts")
    (tmp_path / "scripts" / "setup.sh").write_text(f"echo {python}\n")
    return tmp_path / "recipes"


def run(recipe: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": "/usr/bin:/bin", "HMTL_LAUNCHER": "printf '%s\\n'"} | environ
    return subprocess.run(["bash", str(recipe), *arguments], env=environ, capture_output=True, text=True)


def configuration(recipe: Path, *arguments: str) -> Any:
    """What fairseq makes of the command that the recipe runs."""
    done = run(recipe, *arguments)
    assert done.returncode == 0, done.stderr
    program, *command = done.stdout.splitlines()
    assert program.endswith("/fairseq-train")
    command[command.index("--user-dir") + 1] = str(REPOSITORY / "hmtl_plugin")
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), command))


def test_pretrain_makes_a_command_that_fairseq_takes(recipes: Path) -> None:
    """What the table's options are is tested with the table; here, that the shell hands everything on."""
    mine = [
        "--max-update",
        "500",
        "--lr",
        "3e-4",
        "--hierarchy",
        "bigram_shift@2,nsp@3,mlm@4",
        "--no-zero-init-outputs",
    ]
    cfg = configuration(
        recipes / "pretrain.sh", "data/my books", "runs/my books", *mine, "--transfer", "nsp>mlm:concat"
    )
    assert (cfg.task._name, cfg.criterion._name, cfg.optimizer._name) == ("hmtl_pretraining", "hmtl", "hmtl_muon")
    assert (cfg.task.data, cfg.checkpoint.save_dir) == ("data/my books", "runs/my books")
    assert cfg.common.tensorboard_logdir == "runs/my books/tensorboard"
    assert (cfg.model.encoder_layers, cfg.model.encoder_embed_dim) == (4, 512)
    assert (cfg.model.positions, cfg.model.zero_init_outputs) == ("rotary", False)
    assert (cfg.model.hierarchy, cfg.model.transfer) == (mine[5], "nsp>mlm:concat")
    assert (cfg.optimization.max_update, cfg.optimization.lr) == (500, [3e-4])
    assert (cfg.lr_scheduler.warmup_updates, cfg.lr_scheduler.total_num_update) == (50, 500)
    assert cfg.dataset.validate_interval_updates == cfg.checkpoint.save_interval_updates == 25


def test_the_quick_start_is_a_size_of_the_table(recipes: Path) -> None:
    text = (recipes / "quickstart.sh").read_text()
    assert f"HMTL_UPDATES:-{TABLE['quickstart']['max-update']}}}" in text  # it says how many before it starts
    assert "recipe_options.py quickstart " in text
    training = text.partition("pretrain() {")[2].partition("\n}\n")[0]
    own = ("max-update", "hierarchy", "transfer")  # what the recipe is about
    written = [name for name in TABLE["quickstart"] if name not in own and f"--{name} " in training]
    assert not written, f"{written}: stand in the table"


def test_wrong_use_is_said_in_a_line(recipes: Path) -> None:
    two = recipes / "pretrain_two_processes.sh"
    for wrong in ("x", "0", "-1"):
        assert "error: HMTL_PROCESSES=" in run(two, "data", "run", HMTL_PROCESSES=wrong).stderr
    asked = run(recipes / "quickstart.sh", "--help")
    assert asked.returncode == 2 and "quickstart.sh" in asked.stderr and not asked.stdout
    assert "error: SIZE huge: use tiny" in run(recipes / "pretrain.sh", "data", "run", "huge").stderr
    many = run(recipes / "pretrain.sh", "data", "run", "--max-update", "many")
    assert (many.returncode, many.stdout) == (1, "") and "error: --max-update many: give a whole" in many.stderr
    for recipe in [*sorted(recipes.glob("pretrain*.sh")), recipes / "two_phase.sh"]:
        done = run(recipe, "data")
        assert (done.returncode, done.stdout) == (2, "")
        assert "DATA RUN [SIZE]" in done.stderr
    for arguments in ((), ("runs/books",)):
        done = run(recipes / "finetune_glue.sh", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "finetune_glue.sh RUN TASK... --glue-dir DIR" in done.stderr


@pytest.fixture
def quickstart(recipes: Path) -> Path:
    """The quick start with a Python that notes its commands and writes what later ones look for."""
    python = recipes.parent / "bin" / "python"
    python.write_text(
        """#!/bin/sh
        for out; do :; done
        case "$1" in
        *openmp_waiting.py) exit ;;
        *prepare_corpus.py)
            mkdir -p "$out"; : >>"$out/corpus.json"; [ -f "$out/held_out.txt" ] || : >"$out/held_out.txt" ;;
        *make_probing.py) mkdir -p "$out"; sleep 0.02; : >"$out/probing.json" ;;
        esac
        echo "$@" >>commands
        """
    )
    (python.parent / "fairseq-train").write_text("#!/bin/sh\n")
    (python.parent / "fairseq-train").chmod(0o755)
    return recipes / "quickstart.sh"


def commands(quickstart: Path) -> dict[str, str]:
    """The commands of one run, by script."""
    noted = quickstart.parent.parent / "commands"
    noted.unlink(missing_ok=True)
    done = run(quickstart)
    assert done.returncode == 0, done.stderr
    return {Path(line.split()[0]).stem: line for line in noted.read_text().splitlines()}


def test_quickstart_probes_on_held_out_documents(quickstart: Path) -> None:
    first = commands(quickstart)
    assert "--write-valid" in first["prepare_corpus"]
    folder = first["prepare_corpus"].split()[-1]
    assert first["make_probing"].split()[1] == f"{folder}/held_out.txt"
    assert "--format sentences" in first["make_probing"] and "--test 2200" in first["make_probing"]
    assert first["make_probing"].split()[-1] == first["probe"].split("--tasks ")[1].split()[0]
    assert "make_probing" not in commands(quickstart)  # what is done is not done again
    held_out = quickstart.parent.parent / folder / "held_out.txt"
    held_out.unlink()
    held_out.write_text("other documents")
    assert "--overwrite" in commands(quickstart)["make_probing"]


def test_quickstart_keeps_what_an_earlier_version_made(quickstart: Path) -> None:
    """Its sets are of the text that models were trained on, and its models are of another vocabulary."""
    top = quickstart.parent.parent
    for _ in range(2):
        for place in (
            "data/quickstart/corpus/corpus.json",
            "data/quickstart/probing/probing.json",
            "runs/quickstart/x",
        ):
            (top / place).parent.mkdir(parents=True, exist_ok=True)
            (top / place).write_text("earlier")
        (top / "data/quickstart/corpus/held_out.txt").unlink(missing_ok=True)
        assert "make_probing" in commands(quickstart)
    for number in (1, 2):
        assert (top / f"data/quickstart.{number}/probing/probing.json").read_text() == "earlier"
        assert (top / f"runs/quickstart.{number}/x").read_text() == "earlier"
    assert (top / "data/quickstart/probing/probing.json").read_text() == ""
    assert not (top / "runs/quickstart/x").exists()


def test_quickstart_takes_no_other_number_of_updates_for_the_same_runs(quickstart: Path) -> None:
    """The schedule of what is trained ends where it was to end."""
    for wrong in ("x", "0", "-1", "1.5"):
        assert f"error: HMTL_UPDATES={wrong}: give a whole number" in run(quickstart, HMTL_UPDATES=wrong).stderr
    assert run(quickstart, HMTL_UPDATES="40").returncode == run(quickstart, HMTL_UPDATES="40").returncode == 0
    other = run(quickstart, HMTL_UPDATES="60")
    assert other.returncode == 1 and "was begun with HMTL_UPDATES=40" in other.stderr and "3/5" not in other.stdout


@pytest.mark.parametrize("failing", ["flat", "hierarchical"])
def test_quickstart_ends_as_soon_as_one_model_fails(quickstart: Path, failing: str) -> None:
    """And not after the minutes that the other one takes."""
    train = quickstart.parent.parent / "bin" / "fairseq-train"
    train.write_text(f'#!/bin/sh\ncase "$*" in */{failing}\\ *) echo broken >&2; exit 3 ;; esac\nexec sleep 60\n')
    began = time.monotonic()
    done = run(quickstart)
    assert done.returncode == 1 and "broken" in done.stderr and "4/5" not in done.stdout
    assert f"error: runs/quickstart/{failing}: training ended with status 3 (log: " in done.stderr
    assert time.monotonic() - began < 30


def test_fine_tuning_hands_everything_on(recipes: Path) -> None:
    python = recipes.parent / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    arguments = ["runs/my books", "RTE", "--glue-dir", "glue", "--grid", "lr=1e-4,3e-4"]
    script = recipes.parent / "scripts" / "finetune_glue.py"
    assert run(recipes / "finetune_glue.sh", *arguments).stdout.splitlines() == [str(script), *arguments]
    assert run(recipes / "finetune_glue.sh", "--help").stdout.splitlines() == [str(script), "--help"]


def test_several_processes(recipes: Path) -> None:
    """The launcher goes before the command; torchrun here prints its arguments."""
    python = recipes.parent / "bin" / "python"
    told = '#!/bin/sh\ncase "$*" in *torchrun.py*) shift 2; echo "$OMP_NUM_THREADS threads $*"; exit;; esac\n'
    python.write_text(python.read_text().replace("#!/bin/sh\n", told))
    done = run(recipes / "pretrain_two_processes.sh", "data", "run", "tiny")
    assert done.stdout.startswith("2 threads --standalone --nproc_per_node 2 --no-python ")
    assert "fairseq-train data " in done.stdout
    assert done.stdout.endswith("--cpu\n")
    assert "sees no GPU here" in run(recipes / "pretrain_torchrun.sh", "data", "run").stderr


def test_two_phases_in_turn(recipes: Path) -> None:
    run_folder = recipes.parent / "run"
    phase = recipes.parent / "phase.sh"
    phase.write_text('mkdir -p "$2"; [ -z "$FAILS" ] || exit 1; echo "$@"\n')
    arguments = ["data", str(run_folder), "tiny", "--lr", "1e-3", "--max-update", "1000"]
    assert run(recipes / "two_phase.sh", *arguments, HMTL_PRETRAIN=str(phase), FAILS="1").returncode == 1
    first, second, _ = run(recipes / "two_phase.sh", *arguments, HMTL_PRETRAIN=str(phase)).stdout.splitlines()
    assert first.startswith(f"data {run_folder}/phase1 tiny --lr 1e-3 --max-update 900 --tokens-per-sample 128")
    assert second.startswith(f"data {run_folder}/phase2 tiny --lr 1e-3 --max-update 100 --tokens-per-sample 512")
    phase1 = f"{run_folder}/phase1"
    assert second.endswith(f"--options-of {phase1} --finetune-from-model {phase1}/checkpoint_last.pt")
    again = run(recipes / "two_phase.sh", *arguments, HMTL_PRETRAIN=str(phase)).stdout.splitlines()
    assert len(again) == 1  # both are done
    more = run(recipes / "two_phase.sh", *arguments[:-1], "2000", HMTL_PRETRAIN=str(phase))
    assert (more.returncode, more.stdout) == (1, "") and "begun with --max-update 1000, not 2000" in more.stderr


@pytest.mark.parametrize("mine", [[], ["--positions", "learned", "--optimizer", "hmtl_adamw"]])
def test_both_phases_are_of_one_kind(mine: list[str], tmp_path: Path) -> None:
    """Whatever the options were that the first was begun with."""
    short, long = (["--tokens-per-sample", length, "--max-positions", length] for length in ("128", "512"))
    one = configuration_of(arguments_of("tiny", tmp_path / "phase1", *mine, *short, "--max-update", "900").arguments)
    last = begin(tmp_path / "phase1", one)
    start = ["--options-of", str(last.parent), "--finetune-from-model", str(last)]
    two = configuration_of(arguments_of("tiny", tmp_path / "phase2", *long, "--max-update", "100", *start).arguments)
    longer = {"max_positions": 512, "resize_positions": one["model"]["positions"] == "learned"}
    assert two["model"] == one["model"] | longer
    assert (two["optimizer"], two["optimization"]["lr"]) == (one["optimizer"], one["optimization"]["lr"])
    assert two["task"] == one["task"] | {"tokens_per_sample": 512}
    assert two["optimization"]["max_update"] == two["lr_scheduler"]["total_num_update"] == 100


@pytest.mark.parametrize("size", ["small", "base"])
def test_hydra_configs_say_what_pretrain_does(recipes: Path, size: str) -> None:
    """Every value, but where the plugin and the board lie and how the architecture is called."""
    wanted = OmegaConf.to_container(configuration(recipes / "pretrain.sh", "data/books", "runs/books", size))
    GlobalHydra.instance().clear()
    hydra_init(size)  # as fairseq-hydra-train does
    with initialize_config_dir(str(CONFIGS), version_base="1.1"):
        cfg = compose(size, overrides=["task.data=data/books", "checkpoint.save_dir=runs/books"])
    add_defaults(cfg)
    found = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    for config in (wanted, found):
        config["common"] |= {"user_dir": "", "tensorboard_logdir": ""}
        config["model"]["_name"] = "hmtl_bert"
    assert found.keys() == wanted.keys()
    for group in wanted.keys() - {"scoring"}:  # of translations
        assert found[group] == wanted[group], group


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_configs_name_options_that_exist(path: Path) -> None:
    for group, section in OmegaConf.load(path).items():
        if group == "hydra":
            continue
        if group in REGISTRIES:
            config = REGISTRIES[group][section["_name"]]
        else:
            config = FairseqConfig.__dataclass_fields__[group].default
        unknown = set(section) - {"_name"} - {field.name for field in dataclasses.fields(config)}
        assert not unknown, f"{path}: {group}: {unknown}"


def test_recipes_are_valid_bash() -> None:
    for script in [
        *REPOSITORY.glob("recipes/*.sh"),
        *REPOSITORY.glob("scripts/*.sh"),
        REPOSITORY / ".ci/run",
    ]:
        subprocess.run(["bash", "-n", str(script)], check=True)
