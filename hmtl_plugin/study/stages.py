"""What each stage of a run does: command lines of this project, which anyone can repeat by hand, and what they leave.

STUDY/runs/VARIANT-seedN/pretrain/model.pt, log.txt      kept while a stage still needs it
STUDY/runs/VARIANT-seedN/RTE/ ...                        of one stage, removed once it is recorded
"""

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hmtl_plugin.checkpoints import save_for_use
from hmtl_plugin.child_process import end_orphans, run_command, training_command
from hmtl_plugin.errors import UserError
from hmtl_plugin.precision import resolved
from hmtl_plugin.recipe.options import as_arguments, with_optimizer
from hmtl_plugin.results import read_results
from hmtl_plugin.study.curve import cost, learning_curve
from hmtl_plugin.study.plan import EVALUATE, PRETRAIN, PROBE, Run, Stage
from hmtl_plugin.study.prepare import CORPUS, PROBING, task_folder
from hmtl_plugin.study.profile import DEFAULT_OPTIMIZER, Finetuning, Profile
from hmtl_plugin.study.records import Line
from hmtl_plugin.study.slots import Slot
from hmtl_plugin.study.sources import SQUAD

MODEL, MARK, RESULTS = "model.pt", "fingerprint", "results.jsonl"
LOG, PROCESS = "log.txt", "process.json"
_UNTRAINED = ("nsp@100%,mlm@100%", "", "fixed")  # heads for the evaluation; their weights are as initialised too


class Stopped(Exception):
    """The study was told to stop while a command ran."""


@dataclass(frozen=True)
class Context:
    """What all runs of a study share.

    Attributes:
        study: its folder; data: prepared, see `prepare`.
    """

    study: Path
    data: Path
    profile: Profile

    def folder(self, run: Run, stage: str) -> Path:
        """Where a stage works."""
        return self.study / "runs" / run.name / stage

    def model(self, run: Run) -> Path:
        """The checkpoint that later stages start from."""
        return Path(run.variant.checkpoint) if run.variant.checkpoint else self.folder(run, PRETRAIN) / MODEL

    def has_model(self, run: Run) -> bool:
        """Whether it is there."""
        if run.variant.checkpoint:
            return True
        return _mark(self.folder(run, PRETRAIN)) == run.stages[0].fingerprint and self.model(run).is_file()


def execute(context: Context, run: Run, stage: Stage, slot: Slot, stop: threading.Event) -> tuple[list[Line], Line]:
    """Do a stage, going on where a killed one stopped; returns its result lines and what closes them.

    Raises:
        UserError: if its command fails. Stopped: if ``stop`` was set.
    """
    folder = context.folder(run, stage.name)
    end_orphans(folder / PROCESS)
    if folder.exists() and _mark(folder) != stage.fingerprint:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text(stage.fingerprint, encoding="utf-8")
    started = time.perf_counter()
    extra: Line = {}
    if stage.name == PRETRAIN:
        extra = _pretrain(context, run, slot, folder, stop)
        lines: list[Line] = []
    else:
        command = _COMMANDS.get(stage.name, _finetune)(context, run, stage.name, slot, folder)
        _run(command, folder, slot, stop)
        lines = [_of_study(line, run, context) for line in _once(read_results(folder / RESULTS))]
        if not lines:
            raise UserError(f"{stage.name} left no results (log: {folder / LOG})")
    closing = {
        "variant": run.variant.name,
        "seed": run.seed,
        "stage": stage.name,
        "seconds": round(time.perf_counter() - started, 1),
        "device": slot.device,
        "processes": slot.processes,
        "threads": slot.threads,
        "precision": resolved(context.profile.autocast, slot.device),
        **extra,
    }
    return lines, closing


def clean(context: Context, run: Run, stage: Stage) -> None:
    """Remove what a recorded stage left, but the pre-trained model."""
    if stage.name != PRETRAIN:
        shutil.rmtree(context.folder(run, stage.name), ignore_errors=True)


def _mark(folder: Path) -> str | None:
    try:
        return (folder / MARK).read_text(encoding="utf-8")
    except OSError:
        return None


def _run(command: list[str], folder: Path, slot: Slot, stop: threading.Event) -> None:
    """Raises `Stopped` if ``stop`` was set; the command and what it started have ended then."""

    def watch() -> None:
        if stop.is_set():
            raise Stopped

    run_command(command, folder / LOG, slot.environment(), watch, note=folder / PROCESS)


def _pretrain(context: Context, run: Run, slot: Slot, folder: Path, stop: threading.Event) -> Line:
    if not (folder / MODEL).is_file():
        _run(pretraining_command(context, run, slot, folder), folder, slot, stop)
        save_for_use(folder / "checkpoint_last.pt", folder / MODEL, {})
    for checkpoint in folder.glob("checkpoint*.pt"):
        checkpoint.unlink()
    curve = learning_curve(folder / LOG) if run.variant.trained else {}
    return {
        "curve": curve,
        "cost": cost(folder / LOG),
        "hierarchy": run.variant.hierarchy,
        "transfer": run.variant.transfer,
    }


def pretraining_command(context: Context, run: Run, slot: Slot, folder: Path) -> list[str]:
    """`fairseq-train` for a run; without pre-training one update with a step of size 0, which gives the weights as
    initialised.

    Raises:
        UserError: if the batches of an update do not divide among the slot's GPUs.
    """
    settings, variant = context.profile.pretraining, run.variant
    if settings.batches % slot.processes:
        raise UserError(
            f"{settings.batches} batches an update do not divide among {slot.processes} GPUs: give --devices other groups"
        )
    hierarchy, transfer, weighting = (
        (variant.hierarchy, variant.transfer, variant.weighting) if variant.trained else _UNTRAINED
    )
    options = {"optimizer": DEFAULT_OPTIMIZER, **settings.options}
    updates, rate = settings.updates, options.pop("lr")
    interval = max(1, updates // settings.curve_points)
    schedule = ["--lr", str(rate), "--lr-scheduler", "polynomial_decay", "--total-num-update", str(updates)]
    schedule += ["--warmup-updates", str(settings.warmup), "--validate-interval-updates", str(interval)]
    if not variant.trained:
        updates, schedule = 1, ["--lr", "0", "--lr-scheduler", "fixed", "--disable-validation"]
        options = with_optimizer(options, DEFAULT_OPTIMIZER)  # others may refuse a learning rate of 0
        options.pop("zero-init-outputs", None)  # all its layers would be copies of the embeddings, and no control
    arguments = [
        *(str(context.data / CORPUS), "--task", "hmtl_pretraining", "--criterion", "hmtl"),
        *("--hierarchy", hierarchy, "--transfer", transfer, "--task-weighting", weighting),
        *("--max-update", str(updates), *schedule),
        *("--update-freq", str(settings.batches // slot.processes), "--seed", str(run.seed)),
        *("--autocast", context.profile.autocast, "--num-workers", str(context.profile.workers)),
        *("--validate-interval", "1000000", "--save-interval", "1000000"),
        *("--save-interval-updates", str(interval), "--keep-interval-updates", "1", "--no-epoch-checkpoints"),
        *("--log-interval", str(max(1, min(100, interval // 2)))),
        *([] if slot.gpus else ["--cpu"]),
        *as_arguments(options),
        *variant.options,
    ]
    return training_command(arguments, folder)


def _evaluate(context: Context, run: Run, stage: str, slot: Slot, folder: Path) -> list[str]:
    return [
        *(
            *_command("evaluate"),
            str(context.model(run)),
            "--data",
            str(context.data / CORPUS),
        ),
        *("--samples", str(context.profile.pretraining.valid_samples), "--results", str(folder / RESULTS)),
        *("--autocast", context.profile.autocast, "--device", slot.device),
    ]


def _finetune(context: Context, run: Run, stage: str, slot: Slot, folder: Path) -> list[str]:
    settings = next(f for f in context.profile.finetuning if f.task == stage)
    files, model = task_folder(context.data, stage), str(context.model(run))
    if stage == SQUAD:
        dev = ["--train", str(files / "train.json"), "--dev", str(files / "dev.json")]
        command = [*_command("finetune_squad"), model, *dev]
    else:
        command = [*_command("finetune_glue"), model, stage, "--glue-dir", str(files.parent)]
    return [
        *(*command, "--out", str(folder / "runs"), "--results", str(folder / RESULTS)),
        *("--seeds", ",".join(map(str, finetuning_seeds(run.seed, settings))), "--variant", run.variant.name),
        *("--tokens-per-sample", str(settings.tokens), "--autocast", context.profile.autocast),
        *("--processes", str(slot.processes), "--workers", str(slot.threads)),
        *settings.options,
        *([] if slot.gpus else ["--cpu"]),
        *("--grid", *settings.grid),
    ]


def finetuning_seeds(seed: int, settings: Finetuning) -> list[int]:
    """Seeds of fine-tuning after pre-training with a seed: others for each, the same for all variants."""
    return [100 * seed + number for number in range(settings.seeds)]


def _probe(context: Context, run: Run, stage: str, slot: Slot, folder: Path) -> list[str]:
    settings = context.profile.probing
    return [
        *(
            *_command("probe"),
            str(context.model(run)),
            "--tasks",
            str(context.data / PROBING),
        ),
        *("--out", str(folder), "--pooling", settings.pooling, "--probe", settings.probe, "--seeds", str(run.seed)),
        *("--no-untrained", "--no-controls", "--no-plots", "--drop-features", "--device", slot.device),
    ]


_COMMANDS: dict[str, Callable[[Context, Run, str, Slot, Path], list[str]]] = {EVALUATE: _evaluate, PROBE: _probe}


def _command(name: str) -> list[str]:
    """Of the package, wherever it is run; -P keeps that folder's modules out of it."""
    return [sys.executable, "-P", "-m", "hmtl_plugin", name]


def _once(lines: list[Line]) -> list[Line]:
    """Of equal results the last: a script that was killed between recording one and noting that it did makes it again."""
    names = ("kind", "role", "variant", "task", "split", "seed", "layer", "pooling")
    return list({tuple(str(line.get(name)) for name in names): line for line in lines}.values())


def _of_study(line: Line, run: Run, context: Context) -> Line:
    """A script's line as one of the study: its variant and seed; the script's own seed beside them."""
    if line.get("role") == "baseline":
        return line
    model = os.path.relpath(context.model(run), context.study)
    return {
        **line,
        "variant": run.variant.name,
        "seed": run.seed,
        "own_seed": line["seed"],
        "run": run.name,
        "checkpoint": model,
    }
