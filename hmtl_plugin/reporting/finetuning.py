"""Tables of fine-tuning results: GLUE and SQuAD, each pre-training's best cell over its seeds."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hmtl_plugin.finetuning.grid import OPTIONS
from hmtl_plugin.glue.tasks import TASKS
from hmtl_plugin.reporting.text_table import text_table
from hmtl_plugin.results import check_results
from hmtl_plugin.statistics import t_half_width

_NO_METRICS = ("score", "low", "high", "baseline")
_NOT_IN_AVERAGE = ("SNLI",)
Line = dict[str, Any]


@dataclass(frozen=True)
class Summary:
    """The cell of a grid with the best median score, over its seeds. Scores in percent.

    Attributes:
        sd: standard deviation over seeds; 0 for one seed.
        low, high: 95 % interval of the mean, for other validation rows and other seeds, see `interval`.
    """

    variant: str
    task: str
    hyper: dict[str, Any]
    lines: list[Line]
    median: float
    mean: float
    sd: float
    low: float
    high: float

    @property
    def baseline(self) -> float | None:
        """The score of the best constant answer."""
        value = self.lines[0]["metrics"].get("baseline")
        return None if value is None else float(value)

    def average(self, metric: str) -> float:
        """Mean of a metric over the seeds."""
        return statistics.fmean(line["metrics"][metric] for line in self.lines)


def summarise(lines: Iterable[Line]) -> list[Summary]:
    """One summary for each pre-training and task, in the order of the lines.

    Of equal runs the last counts, and runs from a checkpoint that was trained anew since do not.
    """
    runs: dict[tuple[str, str], dict[str, dict[int, Line]]] = {}
    lines = list(lines)
    check_results(lines)
    latest = {(line["variant"], line["task"]): line.get("checkpoint_sha256") for line in lines}
    for line in lines:
        if line.get("checkpoint_sha256") != latest[line["variant"], line["task"]]:
            continue
        cells = runs.setdefault((str(line["variant"]), str(line["task"])), {})
        cells.setdefault(repr(sorted(line["hyper"].items())), {})[line["seed"]] = line
    return [_best(variant, task, list(cells.values())) for (variant, task), cells in runs.items()]


def _best(variant: str, task: str, cells: Sequence[dict[int, Line]]) -> Summary:
    def scores(cell: dict[int, Line]) -> list[float]:
        return [line["metrics"]["score"] for line in cell.values()]

    best = max(cells, key=lambda cell: statistics.median(scores(cell)))
    lines, values = list(best.values()), scores(best)
    low, high = interval(lines)
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    mean, median = statistics.fmean(values), statistics.median(values)
    return Summary(variant, task, lines[0]["hyper"], lines, median, mean, sd, low, high)


def interval(lines: Sequence[Line]) -> tuple[float, float]:
    """95 % interval of the mean score over seeds.

    Two errors that are independent are added as squares: that of the rows (half the mean width of the runs' bootstrap
    intervals, which the seeds share) and that of the seeds (Student's t on their standard error; none from one seed).
    """
    values = [line["metrics"]["score"] for line in lines]
    rows = statistics.fmean((line["metrics"]["high"] - line["metrics"]["low"]) / 2 for line in lines)
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    half = float(np.hypot(rows, t_half_width(deviation, len(values))))
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def glue_table(lines: Iterable[Line]) -> str:
    """All tasks of all pre-trainings with intervals and baselines, then a line of averages for each pre-training."""
    summaries = summarise(line for line in lines if line.get("kind") == "glue")
    if not summaries:
        return "no GLUE results yet"
    order = {name: number for number, name in enumerate(TASKS)}
    summaries.sort(key=lambda summary: order.get(summary.task, len(order)))
    header = ["task", "pre-training", "score", "sd", "seeds", "median", "95 % interval", "baseline", "beats it"]
    rows = [[s.task, s.variant, *_columns(s), _metrics(s), _hyper(s)] for s in summaries]
    return f"{text_table([*header, 'metrics', 'hyperparameters'], rows)}\n\n{_averages(summaries)}"


def squad_table(lines: Iterable[Line]) -> str:
    """F1 and exact match of all pre-trainings on SQuAD."""
    summaries = summarise(line for line in lines if line.get("kind") == "squad")
    if not summaries:
        return "no SQuAD results yet"
    header = ["task", "pre-training", "F1", "sd", "seeds", "median", "95 % interval", "baseline", "beats it"]
    rows = [[s.task, s.variant, *_columns(s), _metrics(s), _hyper(s)] for s in summaries]
    return text_table([*header, "metrics", "hyperparameters"], rows)


def _columns(s: Summary) -> list[str]:
    return [
        f"{s.mean:.1f}",
        f"{s.sd:.1f}" if len(s.lines) > 1 else "-",
        str(len(s.lines)),
        f"{s.median:.1f}",
        f"{s.low:.1f} to {s.high:.1f}",
        "-" if s.baseline is None else f"{s.baseline:.1f}",
        "-" if s.baseline is None else "yes" if s.low > s.baseline else "no",
    ]


def _metrics(s: Summary) -> str:
    shared = [n for n in s.lines[0]["metrics"] if all(line["metrics"].get(n) is not None for line in s.lines)]
    names = [name for name in shared if name not in _NO_METRICS]
    return ", ".join(f"{name} {s.average(name):.1f}" for name in names)


def _hyper(s: Summary) -> str:
    return " ".join(f"{name}={value}" for name, value in s.hyper.items() if name in OPTIONS)


def _averages(summaries: Sequence[Summary]) -> str:
    """Macro-averages, with and without WNLI, whose development set rewards the wrong answer."""
    rows = []
    for variant in dict.fromkeys(s.variant for s in summaries):
        means = {s.task: s.mean for s in summaries if s.variant == variant and s.task not in _NOT_IN_AVERAGE}
        without = [value for task, value in means.items() if task != "WNLI"]
        if means:
            plain = f"{statistics.fmean(without):.1f}" if without else "-"
            rows.append([variant, f"{statistics.fmean(means.values()):.1f}", plain, str(len(means))])
    return text_table(["pre-training", "average", "without WNLI", "tasks"], rows) if rows else ""
