"""Stages: the command lines they are, and what is kept, removed and recorded of one, with commands that do not run."""

import dataclasses
import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hmtl_plugin.errors import UserError
from hmtl_plugin.study import stages
from hmtl_plugin.study.plan import Run, Stage, make_plan
from hmtl_plugin.study.profile import Block, Finetuning, Pretraining, Probing, Profile
from hmtl_plugin.study.slots import Slot
from hmtl_plugin.study.stages import (
    MARK,
    MODEL,
    RESULTS,
    Context,
    Stopped,
    clean,
    execute,
    finetuning_seeds,
    pretraining_command,
)
from hmtl_plugin.study.variants import Variant, reference
from tests.study.studies import PREPARED, VARIANTS, tiny

CPU, PAIR = Slot((), 3), Slot(("0", "1"), 4)
PROFILE = tiny(
    plan=[Block(["flat", "lower", "random"], [3])],
    pretraining=Pretraining(
        100,
        7,
        {"lr": "2e-3", "arch": "hmtl_bert_tiny", "dropout": 0, "yes": True, "no": False},
        batches=4,
        curve_points=5,
    ),
    finetuning=[
        Finetuning("RTE", ["lr=1e-3", "epochs=2"], seeds=2, tokens=64, options=["--resize-positions"]),
        Finetuning("SQuAD", ["lr=2e-3"]),
    ],
    probing=Probing("cls", "mlp"),
    autocast="bf16",
    workers=2,
)
KNOWN = VARIANTS | {"other": Variant("other", "mlm@100%", "", "uncertainty", ("--bigram-rate", "0.2"), "more options")}


def run_of(name: str, profile: Profile = PROFILE) -> Run:
    """The run of a variant with seed 3."""
    profile = tiny(**{**vars(profile), "plan": [Block([name], [3])]})
    return make_plan(profile, KNOWN, PREPARED)[0]


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(tmp_path / "study", tmp_path / "study" / "data", PROFILE)


def options(command: Sequence[str]) -> dict[str, list[str]]:
    """Option -> what follows it until the next one; each comes once."""
    found: dict[str, list[str]] = {}
    name = ""
    for part in command:
        if part.startswith("--"):
            assert part not in found, f"{part} is given twice"
            name = part
            found[name] = []
        elif name:
            found[name].append(part)
    return found


def pretraining(context: Context, name: str, slot: Slot = CPU) -> dict[str, list[str]]:
    return options(pretraining_command(context, run_of(name), slot, Path("folder")))


class TestPretrainingCommand:
    def test_a_variant_is_the_profile_and_its_own_options(self, context: Context) -> None:
        command = pretraining_command(context, run_of("other"), CPU, Path("folder"))
        assert command[:4] == [sys.executable, "-m", "fairseq_cli.train", str(context.data / "corpus")]
        found = options(command)
        assert found["--hierarchy"] == ["mlm@100%"] and found["--transfer"] == [""]
        assert found["--task-weighting"] == ["uncertainty"] and found["--bigram-rate"] == ["0.2"]
        assert found["--seed"] == ["3"] and found["--save-dir"] == ["folder"]
        assert found["--max-update"] == found["--total-num-update"] == ["100"] and found["--warmup-updates"] == ["7"]
        assert found["--lr"] == ["2e-3"] and found["--lr-scheduler"] == ["polynomial_decay"]
        assert found["--validate-interval-updates"] == found["--save-interval-updates"] == ["20"]  # five points
        assert found["--autocast"] == ["bf16"] and found["--num-workers"] == ["2"]
        assert found["--dropout"] == ["0"] and found["--yes"] == [] and "--no" not in found
        assert pretraining(context, "lower")["--transfer"] == ["nsp>mlm:add"]

    def test_variants_differ_in_nothing_else(self, context: Context) -> None:
        flat, lower = pretraining(context, "flat"), pretraining(context, "lower")
        assert {name for name in flat | lower if flat.get(name) != lower.get(name)} == {"--hierarchy", "--transfer"}

    @pytest.mark.parametrize(("gpus", "batches"), [(0, 4), (1, 4), (2, 2), (4, 1)])
    def test_batches_of_an_update_are_shared_among_gpus(self, context: Context, gpus: int, batches: int) -> None:
        found = pretraining(context, "flat", Slot(tuple(map(str, range(gpus))), 1))
        assert found["--update-freq"] == [str(batches)] and ("--cpu" in found) == (gpus == 0)

    def test_batches_that_do_not_divide_are_refused(self, context: Context) -> None:
        with pytest.raises(
            UserError, match=r"^4 batches an update do not divide among 3 GPUs: give --devices other groups$"
        ):
            pretraining(context, "flat", Slot(("0", "1", "2"), 1))

    def test_without_pretraining_one_update_of_size_nothing(self, context: Context) -> None:
        found = pretraining(context, "random")
        assert found["--max-update"] == ["1"] and found["--lr"] == ["0"] and found["--lr-scheduler"] == ["fixed"]
        assert "--disable-validation" in found and "--total-num-update" not in found and "--warmup-updates" not in found
        assert found["--hierarchy"] == ["nsp@100%,mlm@100%"] and found["--seed"] == ["3"]  # flat's own first weights
        assert found["--arch"] == ["hmtl_bert_tiny"]

    def test_a_profile_may_choose_another_optimizer(self, context: Context) -> None:
        """Not for the encoder without pre-training: it may refuse a rate of 0. Nor are that one's layers copies."""
        usual = {name: pretraining(context, name) for name in ("flat", "random")}
        assert usual["flat"]["--optimizer"] == usual["random"]["--optimizer"] == ["hmtl_adamw"]
        chosen = {"optimizer": "hmtl_muon", "matrix-lr": 0.01, "weight-decay": 0.1, "zero-init-outputs": True}
        settings = dataclasses.replace(PROFILE.pretraining, options={**PROFILE.pretraining.options, **chosen})
        muon = dataclasses.replace(context, profile=dataclasses.replace(PROFILE, pretraining=settings))
        assert pretraining(muon, "flat") == usual["flat"] | {
            "--optimizer": ["hmtl_muon"],
            "--matrix-lr": ["0.01"],
            "--weight-decay": ["0.1"],
            "--zero-init-outputs": [],
        }
        assert pretraining(muon, "random") == usual["random"] | {"--weight-decay": ["0.1"]}


class Commands:
    """Takes the place of `run_command`.

    Attributes:
        given: commands that a stage gave, with the environment they got.
        leaves: what a command does in its folder.
        during: what happens while one runs.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: list[tuple[list[str], Mapping[str, str]]] = []
        self.leaves: Callable[[Path], object] = lambda folder: leave(folder, [line()])
        self.during: Callable[[], object] = lambda: None
        monkeypatch.setattr(stages, "run_command", self.run)

    def run(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str], watch: Callable[[], None], note: Path
    ) -> None:
        assert (log.name, note) == ("log.txt", log.parent / "process.json")
        self.given.append((list(command), environment))
        self.during()
        watch()
        self.leaves(log.parent)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(monkeypatch)


def line(**changes: Any) -> dict[str, Any]:
    """A result of a script, under its own names."""
    return {"kind": "glue", "task": "RTE", "variant": "pretrain", "seed": 300, "metrics": {"score": 50.0}} | changes


def leave(folder: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Results, as a script appends them."""
    with (folder / RESULTS).open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(one) + "\n" for one in lines)


def do(context: Context, run: Run, name: str, slot: Slot = CPU) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Execute a stage of a run."""
    return execute(context, run, stage(run, name), slot, threading.Event())


def stage(run: Run, name: str) -> Stage:
    return next(stage for stage in run.stages if stage.name == name)


class TestCommands:
    def given(self, context: Context, commands: Commands, run: Run, name: str, slot: Slot = CPU) -> list[str]:
        do(context, run, name, slot)
        (command, environment) = commands.given[-1]
        assert command[:4] == [sys.executable, "-P", "-m", "hmtl_plugin"]
        assert environment["OMP_NUM_THREADS"] == str(slot.threads)
        return command[4:]

    def test_evaluation(self, context: Context, commands: Commands) -> None:
        command = self.given(context, commands, run_of("flat"), "evaluate")
        folder = context.study / "runs" / "flat-seed3"
        assert command[0] == "evaluate" and command[1] == str(folder / "pretrain" / MODEL)
        found = options(command)
        assert found["--data"] == [str(context.data / "corpus")] and found["--samples"] == ["1000"]
        assert found["--device"] == ["cpu"] and found["--autocast"] == ["bf16"]
        assert found["--results"] == [str(folder / "evaluate" / RESULTS)]

    def test_glue(self, context: Context, commands: Commands) -> None:
        command = self.given(context, commands, run_of("flat"), "RTE")
        assert command[0] == "finetune_glue" and command[2] == "RTE"
        found = options(command)
        assert found["--glue-dir"] == [str(context.data / "glue")] and found["--seeds"] == ["300,301"]
        assert found["--variant"] == ["flat"] and found["--tokens-per-sample"] == ["64"]
        assert found["--grid"] == ["lr=1e-3", "epochs=2"] and "--resize-positions" in found and "--cpu" in found
        assert found["--processes"] == ["1"] and found["--workers"] == ["3"]

    def test_squad_on_two_gpus(self, context: Context, commands: Commands) -> None:
        command = self.given(context, commands, run_of("lower"), "SQuAD", PAIR)
        assert command[0] == "finetune_squad"
        found = options(command)
        assert found["--train"] == [str(context.data / "squad" / "train.json")]
        assert found["--dev"] == [str(context.data / "squad" / "dev.json")]
        assert found["--processes"] == ["2"] and "--cpu" not in found and found["--seeds"] == ["300"]
        assert commands.given[-1][1]["CUDA_VISIBLE_DEVICES"] == "0,1"

    def test_probing(self, context: Context, commands: Commands) -> None:
        command = self.given(context, commands, run_of("flat"), "probe", PAIR)
        assert command[0] == "probe"
        found = options(command)
        assert found["--tasks"] == [str(context.data / "probing")] and found["--device"] == ["cuda"]
        assert (found["--pooling"], found["--probe"], found["--seeds"]) == (["cls"], ["mlp"], ["3"])

    def test_a_reference_starts_from_its_checkpoint(self, context: Context, commands: Commands, tmp_path: Path) -> None:
        (tmp_path / "bert.pt").touch()
        *_, run = make_plan(PROFILE, KNOWN, PREPARED, [reference("bert", str(tmp_path / "bert.pt"))])
        assert [s.name for s in run.stages] == ["RTE", "SQuAD", "probe"]
        for one in run.stages:
            assert str(tmp_path / "bert.pt") in self.given(context, commands, run, one.name)

    def test_seeds_of_finetuning_are_the_variants_and_differ_by_pretraining(self) -> None:
        settings = Finetuning("RTE", ["lr=1"], seeds=100)
        seeds = [seed for pretrained in (1, 2, 3) for seed in finetuning_seeds(pretrained, settings)]
        assert len(set(seeds)) == 300


class TestExecute:
    def test_lines_are_the_study_s(self, context: Context, commands: Commands) -> None:
        lines, closing = do(context, run_of("flat"), "RTE")
        assert lines == [
            line(variant="flat", seed=3, own_seed=300, run="flat-seed3", checkpoint="runs/flat-seed3/pretrain/model.pt")
        ]
        assert (closing["variant"], closing["seed"], closing["stage"]) == ("flat", 3, "RTE")
        assert (closing["device"], closing["processes"], closing["threads"]) == ("cpu", 1, 3)
        assert closing["precision"] == "bf16" and closing["seconds"] >= 0

    def test_baselines_stay_as_they_are(self, context: Context, commands: Commands) -> None:
        baseline = line(kind="probe", role="baseline", variant="majority", seed=0, layer=None)
        commands.leaves = lambda folder: leave(folder, [baseline, line(kind="probe", role="probe", layer=1)])
        lines, _ = do(context, run_of("flat"), "probe")
        assert lines[0] == baseline and lines[1]["variant"] == "flat"

    def test_what_is_there_twice_counts_once(self, context: Context, commands: Commands) -> None:
        """A script that was killed after it recorded a result makes it again; seeds and layers are results of their
        own.
        """
        second = {"metrics": {"score": 60.0}}
        several = [line(), line(seed=301), line(**second), line(kind="probe", layer=0), line(kind="probe", layer=1)]
        commands.leaves = lambda folder: leave(folder, several)
        lines, _ = do(context, run_of("flat"), "RTE")
        assert [(one["own_seed"], one.get("layer"), one["metrics"]["score"]) for one in lines] == [
            (300, None, 60.0),
            (301, None, 50.0),
            (300, 0, 50.0),
            (300, 1, 50.0),
        ]

    def test_no_results_are_a_failure(self, context: Context, commands: Commands) -> None:
        commands.leaves = lambda folder: None
        with pytest.raises(UserError, match=r"^RTE left no results \(log: .*RTE/log\.txt\)$"):
            do(context, run_of("flat"), "RTE")

    @pytest.mark.parametrize("name", ["pretrain", "RTE"])
    def test_a_study_that_stops_ends_the_command(self, context: Context, commands: Commands, name: str) -> None:
        run, stop = run_of("flat"), threading.Event()
        commands.during = stop.set
        with pytest.raises(Stopped):
            execute(context, run, stage(run, name), CPU, stop)
        assert len(commands.given) == 1 and not (context.folder(run, name) / RESULTS).exists()

    @pytest.mark.parametrize("same", [True, False])
    def test_a_killed_stage_goes_on_only_if_it_is_the_same(
        self, context: Context, commands: Commands, same: bool
    ) -> None:
        run = run_of("flat")
        folder = context.folder(run, "RTE")
        folder.mkdir(parents=True)
        (folder / MARK).write_text(stage(run, "RTE").fingerprint if same else "of other options")
        leave(folder, [line(seed=301)])
        lines, _ = do(context, run, "RTE")
        assert [one["own_seed"] for one in lines] == ([301, 300] if same else [300])
        assert (folder / MARK).read_text() == stage(run, "RTE").fingerprint

    def test_a_folder_without_a_mark_is_done_anew(self, context: Context, commands: Commands) -> None:
        run = run_of("flat")
        context.folder(run, "RTE").mkdir(parents=True)
        leave(context.folder(run, "RTE"), [line(seed=301)])
        assert [one["own_seed"] for one in do(context, run, "RTE")[0]] == [300]


class TestPretraining:
    @pytest.fixture(autouse=True)
    def checkpoints(self, commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
        """A training that logs a validation and leaves checkpoints."""
        valid = json.dumps({"valid_num_updates": "20", "valid_mlm_loss": "6.5"})
        inner = json.dumps({"wps": "100", "train_wall": "7"})

        def train(folder: Path) -> None:
            (folder / "log.txt").write_text(f"INFO | valid | {valid}\nINFO | train_inner | {inner}\n", encoding="utf-8")
            for name in ("checkpoint_last.pt", "checkpoint_3_20.pt"):
                (folder / name).write_text("trained", encoding="utf-8")

        commands.leaves = train
        monkeypatch.setattr(stages, "save_for_use", lambda source, target, more: target.write_text(source.read_text()))

    def test_it_leaves_the_model_a_curve_and_its_cost(self, context: Context, commands: Commands) -> None:
        run = run_of("lower")
        assert not context.has_model(run)
        lines, closing = do(context, run, "pretrain")
        assert lines == [] and context.has_model(run)
        assert closing["curve"] == {"updates": [20.0], "mlm_loss": [6.5]}
        assert closing["cost"] == {"parameters": None, "tokens_per_second": 100.0, "training_seconds": 7.0}
        assert (closing["hierarchy"], closing["transfer"]) == ("nsp@50%,mlm@100%", "nsp>mlm:add")
        assert sorted(p.name for p in context.folder(run, "pretrain").iterdir()) == [MARK, "log.txt", MODEL]

    def test_the_untrained_encoder_has_no_curve(self, context: Context, commands: Commands) -> None:
        assert do(context, run_of("random"), "pretrain")[1]["curve"] == {}

    def test_killed_after_the_model_was_saved_it_is_not_trained_again(
        self, context: Context, commands: Commands
    ) -> None:
        run = run_of("flat")
        do(context, run, "pretrain")
        (context.folder(run, "pretrain") / "checkpoint_last.pt").touch()
        do(context, run, "pretrain")
        assert len(commands.given) == 1 and not (context.folder(run, "pretrain") / "checkpoint_last.pt").exists()

    def test_a_model_of_other_options_is_trained_again(self, context: Context, commands: Commands) -> None:
        run = run_of("flat")
        do(context, run, "pretrain")
        (context.folder(run, "pretrain") / MARK).write_text("of other options")
        assert not context.has_model(run)
        do(context, run, "pretrain")
        assert len(commands.given) == 2 and context.has_model(run)

    def test_cleaning_keeps_the_model_alone(self, context: Context, commands: Commands) -> None:
        run = run_of("flat")
        do(context, run, "pretrain")
        commands.leaves = lambda folder: leave(folder, [line()])
        do(context, run, "RTE")
        for one in run.stages:
            clean(context, run, one)
        assert [p.name for p in (context.study / "runs" / run.name).iterdir()] == ["pretrain"]
        assert context.has_model(run)


def test_a_reference_has_its_model(context: Context, tmp_path: Path) -> None:
    (tmp_path / "bert.pt").touch()
    *_, run = make_plan(PROFILE, KNOWN, PREPARED, [reference("bert", str(tmp_path / "bert.pt"))])
    assert context.has_model(run) and context.model(run) == tmp_path / "bert.pt"
