"""From a study's records to a `StudyReport`: which line gives which value."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hmtl_plugin.errors import UserError
from hmtl_plugin.evaluation.word_bits import WORDS
from hmtl_plugin.hierarchy import Hierarchy
from hmtl_plugin.objectives.base import known_objectives
from hmtl_plugin.objectives.measure import Metric, find_metric
from hmtl_plugin.probing.tasks import known_task
from hmtl_plugin.reporting.study.data import (
    BASELINE,
    PRIMARY,
    PROBES,
    Cost,
    Measure,
    MixedLayers,
    Row,
    StudyReport,
    Value,
)
from hmtl_plugin.study.plan import PRETRAIN
from hmtl_plugin.study.records import Line, Records

STUDY = "study.json"
AVERAGE = "probing"
_ABOUT = ("profile", "prepared", "command", "commit", "versions")
_FINETUNING = {  # metric, trivial baseline
    "SQuAD 1.1": (
        ("f1", "baseline", Measure("squad_f1", "SQuAD F1", PRIMARY, "%")),
        ("exact", "random_exact", Measure("squad_em", "SQuAD EM", PRIMARY, "%")),
    ),
}
_MADE = {
    "commit": lambda line: line.get("commit") or "unknown",
    "versions": lambda line: ", ".join(f"{name} {version}" for name, version in line.get("versions", {}).items()),
    "device": lambda line: line["device"],
    "precision": lambda line: line.get("precision", "unknown").replace("none", "fp32"),
}
_AVERAGE = Measure(AVERAGE, "probing average", PRIMARY, "% right")

Values = dict[tuple[str, str], dict[int, Value]]


def read_study(folder: Path) -> StudyReport:
    """The report of the study in ``folder``: study.json and records/ or records.jsonl.gz.

    Raises:
        UserError: if there is no study.
    """
    try:
        about = json.loads((folder / STUDY).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{folder / STUDY}: {error.strerror}: give the folder of a study, --out of scripts/study.py"
        ) from None
    except ValueError as error:
        raise UserError(f"{folder / STUDY}: is damaged ({error}): run the study's command again") from None
    missing = [name for name in (*_ABOUT, "plan", "variants") if not isinstance(about, dict) or name not in about]
    if missing:
        raise UserError(f"{folder / STUDY}: lacks '{missing[0]}': run the study's command again")
    return collect(about, Records(folder))


def collect(about: dict[str, Any], records: Records) -> StudyReport:
    """The report of what stands in the plan and in the records."""
    collected = _Collected()
    done = 0
    for entry in about["plan"]:
        for stage, fingerprint in entry["stages"].items():
            if fingerprint in records:
                done += 1
                collected.add(entry["variant"], entry["seed"], stage, fingerprint, records.groups[fingerprint])
    planned: dict[str, list[int]] = {}
    for entry in about["plan"]:
        planned.setdefault(entry["variant"], []).append(entry["seed"])
    rows = tuple(_row(v, collected, planned.get(v["name"], ())) for v in about["variants"])
    own = frozenset(task for row in rows if row.planned for task in row.own)
    measures = [*collected.measures.values()]
    probes = [_probe_measure(task, f"probe_{task}" not in own) for task in collected.tasks()]
    averaged = [measure.name for measure in probes if measure.in_average]
    if averaged:
        measures.append(_AVERAGE)
        collected.average(averaged)
    return StudyReport(
        rows=rows,
        measures=(*sorted(measures, key=_place), *probes),  # of one place as they were found
        values=collected.values,
        chance=collected.chance,
        counts=collected.counts,
        mixes=collected.mixes,
        curves=collected.curves,
        costs=collected.costs,
        probes=collected.probes,
        plan=about["plan"],
        done_stages=done,
        not_finite=tuple(collected.not_finite),
        made=collected.made,
        remade=tuple(sorted(run for run, models in collected.models.items() if len(models) > 1)),
        about={name: about[name] for name in _ABOUT},
    )


class _Collected:
    """Values as they are found."""

    def __init__(self) -> None:
        self.values: Values = {}
        self.measures: dict[str, Measure] = {}
        self.chance: dict[str, float] = {}
        self.counts: dict[str, float] = {}
        self.curves: dict[str, dict[int, dict[str, list[float]]]] = {}
        self.costs: dict[str, dict[int, Cost]] = {}
        self.probes: list[Line] = []
        self.seen: dict[str, set[int]] = {}
        self.not_finite: list[str] = []
        self.learnt: dict[str, dict[str, bool]] = {}
        self.made: dict[str, dict[str, list[str]]] = {}
        self.models: dict[str, set[str]] = {}
        self.mixes: dict[tuple[str, str], dict[int, MixedLayers]] = {}

    def add(self, variant: str, seed: int, stage: str, fingerprint: str, group: Sequence[Line]) -> None:
        """One finished stage."""
        self.seen.setdefault(variant, set()).add(seed)
        closing, lines = group[-1], group[:-1]
        self._how(f"{variant} seed {seed}", closing, lines)
        self._cost(variant, seed, stage, closing)
        if closing.get("curve", {}).get("updates"):
            self.curves.setdefault(variant, {})[seed] = closing["curve"]
        by_task: dict[str, list[Line]] = {}
        for line in lines:
            if line["kind"] == "pretrain":
                self._pretraining(variant, seed, fingerprint, line)
            elif line["kind"] in ("glue", "squad"):
                by_task.setdefault(line["task"], []).append(line)
        for task, of_task in by_task.items():
            self._finetuning(variant, seed, fingerprint, task, of_task)
        self._probing(variant, seed, fingerprint, [line for line in lines if line["kind"] == "probe"])

    def _how(self, run: str, closing: Line, lines: Sequence[Line]) -> None:
        found = [(name, of(closing)) for name, of in _MADE.items()]
        found += [("view", _view(line)) for line in lines if line["kind"] == "pretrain"]
        for name, value in found:
            runs = self.made.setdefault(name, {}).setdefault(value, [])
            if run not in runs:
                runs.append(run)
        self.models.setdefault(run, set()).update(
            line["checkpoint_sha256"] for line in lines if line.get("checkpoint_sha256")
        )

    def _put(self, variant: str, measure: Measure, seed: int, value: float, fingerprint: str) -> None:
        self.measures.setdefault(measure.name, measure)
        if not math.isfinite(value):  # of a training that diverged: it would make every mean and p meaningless
            self.not_finite.append(f"{variant} seed {seed} {measure.title}")
            return
        self.values.setdefault((variant, measure.name), {})[seed] = Value(value, fingerprint)

    def _cost(self, variant: str, seed: int, stage: str, closing: Line) -> None:
        old = self.costs.setdefault(variant, {}).get(seed, Cost(None, None, None, 0.0, closing["device"]))
        seconds = old.seconds + closing["seconds"]
        cost = closing.get("cost") or {}
        self.costs[variant][seed] = (
            Cost(
                cost.get("parameters"),
                cost.get("tokens_per_second"),
                cost.get("training_seconds"),
                seconds,
                closing["device"],
            )
            if stage == PRETRAIN
            else Cost(old.parameters, old.tokens_per_second, old.pretraining_seconds, seconds, old.device)
        )

    def _pretraining(self, variant: str, seed: int, fingerprint: str, line: Line) -> None:
        if line["task"] == WORDS:  # they compare vocabularies, of which a study has one
            return
        metrics = line["metrics"]
        metric = find_metric(metrics["metric"])
        target, _, layer = line["task"].partition("@")
        if layer:  # of a mix, alone
            self._mix(variant, target, seed).alone[int(layer)] = metric.as_reported(metrics["value"])
            return
        if metrics.get("shares"):
            self._mix(variant, target, seed).shares.update({int(key): v for key, v in metrics["shares"].items()})
        measure = _of_target(target, metric)
        if "low" in metrics:
            less = metric.lower_is_better
            beats = metrics["high"] < metrics["baseline"] if less else metrics["low"] > metrics["baseline"]
            of_variant = self.learnt.setdefault(variant, {})
            of_variant[measure.title] = of_variant.get(measure.title, False) or beats
        as_shown = metric.as_reported
        self._put(variant, measure, seed, as_shown(metrics["value"]), fingerprint)
        self.chance.setdefault(measure.name, as_shown(metrics["baseline"]))
        counts = metrics.get("counts", metrics.get("bigrams"))  # what older versions called them
        if counts is not None:
            self.counts.setdefault(measure.name, as_shown(counts))

    def _mix(self, variant: str, target: str, seed: int) -> MixedLayers:
        return self.mixes.setdefault((variant, target), {}).setdefault(seed, MixedLayers({}, {}))

    def _finetuning(self, variant: str, seed: int, fingerprint: str, task: str, lines: Sequence[Line]) -> None:
        """Mean over the seeds of fine-tuning: what is compared is pre-training."""
        whole = (("score", "baseline", Measure(task.lower(), task, PRIMARY, "%")),)
        for metric, baseline, measure in _FINETUNING.get(task, whole):
            self._put(variant, measure, seed, statistics.fmean(line["metrics"][metric] for line in lines), fingerprint)
            if lines[0]["metrics"].get(baseline) is not None:
                self.chance.setdefault(measure.name, float(lines[0]["metrics"][baseline]))

    def _probing(self, variant: str, seed: int, fingerprint: str, lines: Sequence[Line]) -> None:
        """Accuracy on te at the layer that is best on va."""
        by_task: dict[str, list[Line]] = {}
        for line in lines:
            if line["role"] == "probe":
                by_task.setdefault(line["task"], []).append(line)
            elif line["variant"] == "majority":
                self.chance.setdefault(f"probe_{line['task']}", float(line["metrics"]["accuracy"]))
        for task, layers in by_task.items():
            best = max(layers, key=lambda line: (line["metrics"]["valid_accuracy"], -line["layer"]))
            value = Value(best["metrics"]["accuracy"], fingerprint)
            self.values.setdefault((variant, f"probe_{task}"), {})[seed] = value
        self.probes += lines

    def tasks(self) -> list[str]:
        """Probing tasks, in the order of the lines."""
        return list(dict.fromkeys(line["task"] for line in self.probes if line["role"] == "probe"))

    def average(self, names: Sequence[str]) -> None:
        """Mean over probes, for each variant and seed that has all of them."""
        for variant, seeds in self.seen.items():
            for seed in seeds:
                found = [self.values.get((variant, name), {}).get(seed) for name in names]
                whole = [value for value in found if value is not None]
                if len(whole) == len(names):
                    mean = statistics.fmean(value.value for value in whole)
                    self.values.setdefault((variant, AVERAGE), {})[seed] = Value(mean, whole[0].fingerprint)
        if all(name in self.chance for name in names):
            self.chance[AVERAGE] = statistics.fmean(self.chance[name] for name in names)


def _view(line: Line) -> str:
    """Of a held-out value; the first versions knew the one of training only."""
    return str(line.get("hyper", {}).get("view", "training"))


def _of_target(target: str, metric: Metric) -> Measure:
    """Of pre-training, as its objective titles it; its name, if that is not known here."""
    kinds = known_objectives().values()
    title, counted = next(((k.titles[target], k.counted) for k in kinds if target in k.titles), (target, ""))
    better = not metric.lower_is_better
    unit = metric.unit if metric.report_unit is None else metric.report_unit
    return Measure(target, title, PRIMARY, unit, better, pretraining=True, counted=counted)


def _row(variant: Mapping[str, Any], collected: _Collected, planned: Sequence[int]) -> Row:
    name = variant["name"]
    probed = next((p for p in collected.probes if p["variant"] == name and p["role"] == "probe"), None)
    trained_on: set[str] = set()  # the untrained encoder has heads for the evaluation, but was pre-trained on nothing
    if variant["hierarchy"]:
        trained_on = {p.objective for p in Hierarchy.parse(variant["hierarchy"], variant["transfer"]).placements}
    elif variant["checkpoint"] and probed:
        trained_on = set(dict(probed["placements"]))
    layers = ""
    if probed and variant["hierarchy"]:
        read = Hierarchy.parse(variant["hierarchy"], variant["transfer"]).mixes(probed["layers"])
        listed = [f"{o} {read[o][0]} to {read[o][-1]}" if o in read else f"{o} {at}" for o, at in probed["placements"]]
        layers = f"{', '.join(listed)} of {probed['layers']}"
    return Row(
        name,
        variant["hierarchy"],
        variant["transfer"],
        variant["weighting"],
        " ".join(variant["options"]),
        variant["why"],
        bool(variant["hierarchy"]),
        bool(variant["checkpoint"]),
        frozenset(f"probe_{task}" for task in collected.tasks() if known_task(task).objective in trained_on),
        tuple(sorted(collected.seen.get(name, ()))),
        tuple(planned),
        variant.get("against") or BASELINE,
        layers,
        collected.learnt.get(name, {}) if variant["hierarchy"] else {},
    )


def _probe_measure(task: str, in_average: bool) -> Measure:
    return Measure(f"probe_{task}", known_task(task).title, PROBES, "% right", in_average=in_average)


_ORDER = ("rte", "mnli", "snli", "squad_f1", "squad_em", AVERAGE)


def _place(measure: Measure) -> tuple[int, int]:
    """Pre-training first, what is to be low before the rest; then fine-tuning."""
    if measure.pretraining:
        return 0, int(measure.higher_is_better)
    return 1, _ORDER.index(measure.name) if measure.name in _ORDER else len(_ORDER)
