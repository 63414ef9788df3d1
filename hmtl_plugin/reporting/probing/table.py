"""The probing table as text: tasks by layers, for each encoder and pooling."""

import numpy as np

from hmtl_plugin.models.mix import in_words
from hmtl_plugin.probing.results import Probed, ProbedEncoder, ProbedTask, ProbingResults
from hmtl_plugin.reporting.text_table import text_table

_LEGEND = "accuracy on te in percent; [best layer on va]"
_DIFFERENCE = "; * differs from {baseline} (paired test, Holm over tasks and layers, p < 0.05)"
_OWN = "; + pre-trained on this very task; averages leave out tasks that any encoder was pre-trained on or lacks"


def probing_table(study: ProbingResults) -> str:
    """One table an encoder and pooling, averages last, and what the marks mean."""
    tables = [
        f"{_title(encoder)}, {pooling} pooling\n{_table(study, encoder, pooling)}"
        for encoder in study.encoders
        for pooling in study.poolings
        if any((encoder.name, task.name, pooling) in study.probed for task in study.tasks)
    ]
    legend = _LEGEND + (_DIFFERENCE.format(baseline=study.baseline) if study.differences else "")
    return "\n\n".join([*tables, legend + _OWN])


def _title(encoder: ProbedEncoder) -> str:
    where = ", ".join(
        f"{objective} at a mix of {in_words(encoder.mixes[objective])}"
        if objective in encoder.mixes
        else f"{objective} at {layer}"
        for objective, layer in encoder.placements
    )
    return f"{encoder.name} ({where})" if where else encoder.name


def _table(study: ProbingResults, encoder: ProbedEncoder, pooling: str) -> str:
    layers = [f"{layer}" if layer else "emb" for layer in range(encoder.layers + 1)]
    header = ["task", *layers, "best", "95 % interval", "majority", "words", "control"]
    rows, averaged = [], []
    for task in study.tasks:
        probed = study.probed.get((encoder.name, task.name, pooling))
        if probed is None:
            continue
        own = encoder.name in task.in_distribution
        averaged += [probed.accuracy] if _comparable(study, task, pooling) else []
        rows.append(
            [task.title + " +" * own, *_cells(study, (encoder.name, task.name, pooling), probed), *_rest(task, probed)]
        )
    if averaged and len(rows) > 1:
        mean = np.mean(averaged, 0)
        rows.append(["average", *(f"{value:.1f}" for value in mean), "", "", "", "", ""])
    return text_table(header, rows)


def _comparable(study: ProbingResults, task: ProbedTask, pooling: str) -> bool:
    """Whether all encoders with this pooling have the task, and none was pre-trained on it."""
    with_pooling = {name for name, _, how in study.probed if how == pooling}
    return not task.in_distribution and all((name, task.name, pooling) in study.probed for name in with_pooling)


def _cells(study: ProbingResults, key: tuple[str, str, str], probed: Probed) -> list[str]:
    difference = study.differences.get(key)
    marked = difference.significant if difference else np.zeros(0, dtype=bool)
    cells = []
    for layer, value in enumerate(probed.accuracy):
        mark = "*" if layer < len(marked) and marked[layer] else ""
        text = f"[{value:.1f}]" if layer == probed.best else f"{value:.1f}"
        cells.append(text + mark)
    return cells


def _rest(task: ProbedTask, probed: Probed) -> list[str]:
    best = probed.best
    return [
        f"{probed.accuracy[best]:.1f}",
        f"{probed.low[best]:.1f} to {probed.high[best]:.1f}",
        f"{task.majority:.1f}",
        "-" if task.bag_of_words is None else f"{task.bag_of_words:.1f}",
        "-" if probed.control is None else f"{probed.control[best]:.1f}",
    ]
