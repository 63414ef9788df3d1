"""Every cell of a grid with every seed: trained, measured, recorded; the best published. Runs that are finished stay.

FOLDER/lr=3e-4,batch-size=32,epochs=3/seed1/               outcome.json, train.log, what the experiment writes
FOLDER/lr=3e-4,batch-size=32,epochs=3,clip-norm=2/seed1/   the same of a command with more options
FOLDER/model.pt                                            the best run's, for use
FOLDER/published.json                                      which run that was, of what checkpoint, data and options
"""

import hashlib
import json
import re
import shutil
import statistics
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hmtl_plugin.checkpoints import plain_config, read_state, save_for_use
from hmtl_plugin.errors import UserError
from hmtl_plugin.files.publishing import write_json, write_whole
from hmtl_plugin.files.run_lock import alone_in
from hmtl_plugin.files.shape import misfit, whole
from hmtl_plugin.finetuning.grid import OPTIONS, Cell, cell_name, cell_options
from hmtl_plugin.finetuning.pretrained import PretrainedCheckpoint
from hmtl_plugin.finetuning.training import fairseq_train
from hmtl_plugin.models.pooling import canonical
from hmtl_plugin.progress import progress_bar
from hmtl_plugin.results import append_results

OUTCOME, MODEL, PUBLISHED = "outcome.json", "model.pt", "published.json"
WARMUP_SHARE = 10  # a tenth of the updates
IN_GRID = {
    "--batch-size": "--grid batch-size=N",
    "--max-sentences": "--grid batch-size=N",
    "--max-tokens": "--grid batch-size=N",
    "--max-epoch": "--grid epochs=N",
    "--lr": "--grid lr=N",
}
"""Options of `fairseq-train` that are not passed on, and what takes their place."""
Metrics = dict[str, float]


@dataclass(frozen=True)
class Settings:
    """What all experiments of one command share.

    Attributes:
        run: the folder the user named, for the records; results: the store they go to.
        variant: name of the pre-training in tables.
        options: more options of `fairseq-train`; the last win.
        keep_models: keep the weights of every run, not of the best alone.
    """

    start: PretrainedCheckpoint
    run: str
    results: Path
    variant: str
    seeds: list[int]
    processes: int = 1
    autocast: str = "auto"
    options: tuple[str, ...] = ()
    keep_models: bool = False

    @property
    def device(self) -> str:
        """Where predictions are made."""
        return "cuda" if torch.cuda.is_available() and "--cpu" not in self.options else "cpu"


class Experiment(ABC):
    """One task on one checkpoint.

    Attributes:
        kind: "glue" or "squad"; task: its name in records; folder: where its runs go.
        data_version: fingerprint of the prepared data and of options that are no part of a cell.
        fixed: these options, for the records. usual: their defaults.
    """

    kind: str
    task: str
    folder: Path
    data_version: str
    fixed: Mapping[str, Any]
    usual: Mapping[str, Any]

    @abstractmethod
    def options(self) -> list[str]:
        """Options of `fairseq-train`: data, task, criterion, model."""

    @abstractmethod
    def batches(self, batch_size: int) -> int:
        """Batches of an epoch."""

    @abstractmethod
    def finish(self, folder: Path, model: Path) -> Metrics:
        """Predict and measure with the run's ``model`` (which it may extend); ``score`` chooses among runs."""

    @abstractmethod
    def publish(self, folder: Path) -> None:
        """Give the predictions of the run that was chosen to the user."""


@dataclass(frozen=True)
class Run:
    """One training."""

    folder: Path
    cell: Cell
    seed: int
    identity: dict[str, Any]

    def outcome(self) -> Metrics | None:
        """What it reached, if it is finished and of the same checkpoint, data and options."""
        found = self._stored()
        return found["metrics"] if found and "metrics" in found else None

    def begin(self) -> None:
        """Remember what is trained; what another checkpoint or other data left here is removed."""
        if self.folder.exists() and self._stored() is None:
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write({"identity": self.identity})

    def belongs(self) -> bool:
        """Whether its folder holds a training, finished or not, of the same checkpoint, data and options."""
        return self._stored() is not None

    def end(self, metrics: Metrics) -> None:
        """Mark as finished."""
        self._write({"identity": self.identity, "metrics": metrics})

    def _stored(self) -> dict[str, Any] | None:
        try:
            found = json.loads((self.folder / OUTCOME).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if misfit(found, {"identity": dict, "metrics?": {"score": (int, float)}}) is not None:
            return None
        return found if _comparable(found["identity"]) == _comparable(self.identity) else None

    def _write(self, content: Mapping[str, Any]) -> None:
        write_json(self.folder / OUTCOME, content)


def run_grid(experiment: Experiment, cells: list[Cell], settings: Settings) -> Run:
    """Train what is not finished, publish the best run and return it.

    Raises:
        UserError: when a training fails; those before it stay finished.
    """
    for cell in cells:
        _batch_of_a_process(cell, settings.processes)
        if int(cell.get("reinit-layers", 0)) and settings.start.head in (experiment.task, experiment.kind):
            raise UserError(
                f"--grid reinit-layers: {settings.start.path} was fine-tuned on {experiment.task} already, whose layers are "
                "kept as when a run is resumed: start from the pre-training checkpoint"
            )
    runs = [_run(experiment, cell, seed, settings) for cell in cells for seed in settings.seeds]
    open_runs = [run for run in runs if run.outcome() is None]
    with progress_bar(
        f"{experiment.task}: {len(open_runs)} runs", _updates(experiment, open_runs, settings), "it"
    ) as bar:
        for run in open_runs:
            _train(experiment, run, settings, bar)
    best = choose(runs)
    if not (best.folder / MODEL).exists():  # removed by an earlier command, before others were better
        with progress_bar(f"{experiment.task}: best run again", _updates(experiment, [best], settings), "it") as bar:
            _train(experiment, best, settings, bar)
    if better := _better_before(experiment, best):
        print(better, file=sys.stderr, flush=True)
    with write_whole(experiment.folder / MODEL) as part:
        shutil.copyfile(best.folder / MODEL, part)
    experiment.publish(best.folder)
    published = {**best.identity, "run": str(best.folder.relative_to(experiment.folder)), "score": _score(best)}
    write_json(experiment.folder / PUBLISHED, published)
    for run in runs:
        if run is not best and not settings.keep_models:
            (run.folder / MODEL).unlink(missing_ok=True)
    return best


def _better_before(experiment: Experiment, best: Run) -> str:
    """A line, if what an earlier command published here, of the same checkpoint and data, has a better score."""
    try:
        before = json.loads((experiment.folder / PUBLISHED).read_text(encoding="utf-8"))
        same = all(before[name] == best.identity[name] for name in ("checkpoint", "data"))
        run, reached = before["run"], float(before["score"])
    except (OSError, ValueError, KeyError, TypeError):  # none, or of an earlier version, which wrote no score
        return ""
    if not same or reached <= _score(best):
        return ""
    return (
        f"{experiment.folder}: {best.folder.relative_to(experiment.folder)} ({_score(best):.1f}) replaces {run} "
        f"({reached:.1f}), which an earlier command chose: run that command again to restore it, "
        "or give both in one --grid to choose between them"
    )


def _score(run: Run) -> float:
    return (run.outcome() or {})["score"]


def published_checkpoint(folder: Path) -> str | None:
    """Fingerprint of the checkpoint whose fine-tuning is published in a folder; None where there is none."""
    try:
        return str(json.loads((folder / PUBLISHED).read_text(encoding="utf-8"))["checkpoint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def choose(runs: list[Run]) -> Run:
    """The run with the best score in the cell with the best median over its seeds."""
    scores = {run.folder: _score(run) for run in runs}
    medians: dict[str, float] = {}
    for name in dict.fromkeys(cell_name(run.cell) for run in runs):
        medians[name] = statistics.median(scores[run.folder] for run in runs if cell_name(run.cell) == name)
    best = max(medians, key=lambda name: medians[name])
    return max((run for run in runs if cell_name(run.cell) == best), key=lambda run: scores[run.folder])


def _run(experiment: Experiment, cell: Cell, seed: int, settings: Settings) -> Run:
    identity = {
        "checkpoint": settings.start.sha256,
        "data": experiment.data_version,
        "options": [*settings.options, settings.autocast],
        "cell": dict(cell),
        "seed": seed,
    }
    run = Run(experiment.folder / cell_name(cell) / f"seed{seed}", cell, seed, identity)
    more = [f"{name}={value}" for name, value in experiment.fixed.items() if experiment.usual.get(name) != value]
    more += written(settings.options) + ([f"autocast={settings.autocast}"] if settings.autocast != "auto" else [])
    if not more or run.belongs():  # trained by a version that named no options
        return run
    return Run(experiment.folder / f"{cell_name(cell)},{_as_file_name(more)}" / f"seed{seed}", cell, seed, identity)


def _as_file_name(options: Sequence[str]) -> str:
    text = ",".join(options)
    if re.fullmatch(r"[\w.,=+-]{1,100}", text):
        return text
    return f"options={hashlib.sha256(text.encode(errors='replace')).hexdigest()[:10]}"


def _comparable(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The same for options that are written ``--name=value`` and ``--name value``."""
    *options, autocast = identity.get("options") or [""]
    return {**identity, "options": [*written(options), autocast]}


def _batch_of_a_process(cell: Cell, processes: int) -> int:
    rows = int(cell["batch-size"])
    if rows % processes:
        raise UserError(f"--grid batch-size={rows} does not divide among --processes {processes}: give a multiple")
    return rows // processes


def _updates(experiment: Experiment, runs: Iterable[Run], settings: Settings) -> int:
    """Updates that fairseq will make: processes share a batch, ``--update-freq`` puts several into one."""
    together = update_frequency(settings.options)
    return sum(
        -(-experiment.batches(int(run.cell["batch-size"])) // together) * int(run.cell["epochs"]) for run in runs
    )


def named(options: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names of options for `fairseq-train` and what follows each, written ``--name=value`` or ``--name value``."""
    for number, option in enumerate(options):
        name, equals, value = option.partition("=")
        yield name, value if equals else next(iter(options[number + 1 : number + 2]), "")


def written(options: Sequence[str]) -> list[str]:
    """Options for `fairseq-train` as ``name=value`` or ``name``, without their dashes."""
    found: list[str] = []
    for option in options:
        if option.startswith("--"):
            found.append(option[2:])
        elif found:
            found[-1] += ("=" if "=" not in found[-1] else " ") + option
    return found


def update_frequency(options: Sequence[str]) -> int:
    """Of options for `fairseq-train`; `UserError` for those that would contradict the grid's."""
    found = 1
    for name, value in named(options):
        if name in IN_GRID:
            raise UserError(f"{name}: the learning rate's schedule is made for the grid's: give {IN_GRID[name]}")
        if name == "--update-freq":
            if not (number := whole(value)):
                raise UserError(f"--update-freq {value}: give one whole number, the same for all epochs")
            found = number
    return found


def _train(experiment: Experiment, run: Run, settings: Settings, bar: Any) -> None:
    """Under a lock: another command with other options would begin by removing what is trained here."""
    with alone_in(run.folder):
        _train_alone(experiment, run, settings, bar)


def _train_alone(experiment: Experiment, run: Run, settings: Settings, bar: Any) -> None:
    started, before, again = time.perf_counter(), bar.n, run.outcome() is not None
    run.begin()
    updates = _updates(experiment, [run], settings)
    options = [
        *experiment.options(),
        *("--optimizer", "hmtl_adamw", "--adam-betas", "(0.9, 0.999)", "--clip-norm", "1.0"),
        *("--lr-scheduler", "polynomial_decay", "--warmup-updates", str(updates // WARMUP_SHARE)),
        *("--total-num-update", str(updates), "--required-batch-size-multiple", "1", "--num-workers", "0"),
        *("--best-checkpoint-metric", "score", "--maximize-best-checkpoint-metric", "--no-epoch-checkpoints"),
        *("--autocast", settings.autocast, "--seed", str(run.seed), "--log-interval", "20"),
        *cell_options(run.cell),
        *("--batch-size", str(_batch_of_a_process(run.cell, settings.processes))),
        *(["--distributed-world-size", "1"] if settings.processes == 1 else []),  # fairseq takes all GPUs
        *settings.options,
    ]
    bar.set_postfix_str(f"{cell_name(run.cell)} seed {run.seed}")
    fairseq_train(options, run.folder, settings.processes, lambda update: _move(bar, before + update))
    _move(bar, before + updates)
    model = run.folder / MODEL
    save_for_use(run.folder / "checkpoint_best.pt", model, {})
    metrics = experiment.finish(run.folder, model)
    if not again:
        # as it was trained: an option that was passed on wins over the cell
        task = plain_config(read_state(model), model)["task"]
        record = _record(experiment, run, settings, task, metrics, time.perf_counter() - started)
        append_results(settings.results, [record])
    run.end(metrics)
    for name in ("checkpoint_best.pt", "checkpoint_last.pt"):
        (run.folder / name).unlink(missing_ok=True)


def _move(bar: Any, position: int) -> None:
    bar.update(max(0, position - bar.n))


def _record(
    experiment: Experiment, run: Run, settings: Settings, task: Mapping[str, Any], metrics: Metrics, seconds: float
) -> dict[str, Any]:
    layer = int(task["head_layer"])
    return {
        "kind": experiment.kind,
        "run": settings.run,
        "checkpoint": str(settings.start.path),
        "checkpoint_sha256": settings.start.sha256,
        "variant": settings.variant,
        "hierarchy": settings.start.hierarchy,
        "transfer": settings.start.transfer,
        "seed": run.seed,
        "task": experiment.task,
        "split": "valid",
        "layer": layer if layer > 0 else layer + settings.start.layers + 1,
        "pooling": canonical(str(task["head_pooling"])) if experiment.kind == "glue" else None,
        "metrics": metrics,
        "hyper": {name: OPTIONS[name].kind(value) for name, value in run.cell.items()}
        | dict(experiment.fixed)
        | {"autocast": settings.autocast, "options": list(settings.options)},
        "seconds": round(seconds, 1),
    }
