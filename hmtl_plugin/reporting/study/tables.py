"""The tables of a study's report, as texts that Markdown and HTML share."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hmtl_plugin.models.mix import centre_of
from hmtl_plugin.reporting.probing.heatmaps import DAGGER
from hmtl_plugin.reporting.study.comparisons import Comparison, mean_and_sd
from hmtl_plugin.reporting.study.data import BASELINE, PRIMARY, PROBES, Measure, Row, StudyReport

_BASELINES = ("bag of words",)
COUNTS, TRIVIAL = "counts", "trivial baseline"
NOT_RUN, NOT_YET, NOTHING = "not run", "not yet", "–"


@dataclass(frozen=True)
class Table:
    """One table. ``numbers``: from which column on they stand to the right."""

    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: int = 1


def variants_table(study: StudyReport) -> Table:
    """What each variant is; those of this study's plan first."""
    rows = [
        (
            row.name,
            row.hierarchy or NOTHING,
            row.layers or NOTHING,
            row.transfer or NOTHING,
            _weighting(row),
            row.against if row.against != BASELINE else NOTHING,
            row.why,
            _state(row),
        )
        for row in (*_planned(study.rows), *_not_run(study.rows))
    ]
    header = (
        *("variant", "hierarchy", "layers", "transfer", "weighting, options", "compared with, too", "what for"),
        "seeds here",
    )
    caption = (
        "All variants of the table, those of this study's plan first. Hierarchy: objective @ percent of the depth; layers: what that comes to, rounded up. "
        f"{NOT_RUN}: not in this study's plan."
    )
    return Table("Variants", caption, header, tuple(rows), len(header))


def _state(row: Row) -> str:
    if not row.seeds:
        return NOT_YET if row.planned else NOT_RUN
    seeds = ", ".join(map(str, row.seeds))
    missing = [seed for seed in row.planned if seed not in row.seeds]
    return f"{seeds} (not yet: {', '.join(map(str, missing))})" if missing else seeds


def _weighting(row: Row) -> str:
    return " ".join(part for part in (row.weighting if row.trained else "", row.options) if part) or NOTHING


def main_table(study: StudyReport) -> Table:
    """Variants by primary measures: mean and standard deviation over seeds."""
    measures = [m for m in study.measures if m.family == PRIMARY]
    caption = (
        "Mean ± standard deviation over seeds of pre-training (one seed: no deviation). Higher is better but for perplexity. "
        "MLM perplexity: of masked pieces, the exponential of the loss; NSP: next sentence or one of another document; shift: which words changed places (AUC: area "
        "under the ROC curve, 50 is chance); EM: exact match. "
        f"{NOT_RUN}: not in this study's plan; {NOTHING}: not measured for this variant, or not yet; (n): only n of its seeds have a value, so compare "
        "variants in the table of differences, which pairs seeds. The trivial baseline: unigrams, the majority, random "
        "spans."
    )
    if study.counts:
        caption += (
            f" {COUNTS}: what counting the text of pre-training reaches: pairs of neighbouring pieces (MLM, shift), "
            "and the pieces that two segments share (NSP)."
        )
    if any(row.reference for row in study.rows):
        caption += " A published checkpoint is one pre-training: its deviation is that of fine-tuning."
    return _values_table("Main measures", caption, study, measures, study.rows)


def probes_table(study: StudyReport) -> Table:
    """Variants that ran by probes."""
    measures = [m for m in study.measures if m.family == PROBES]
    left_out = [m.title for m in measures if not m.in_average]
    caption = "Accuracy (%) of the layer that is best on the validation rows, mean ± standard deviation over seeds. "
    if left_out:
        own = f"{DAGGER} the variant was pre-trained on this very task; "
        caption += f"{own}{', '.join(left_out)} is therefore left out of everyone's probing average."
    rows = sorted({rows for line in study.probes for rows in [tuple(line["data"]["rows"])]})
    if rows:
        low, high = (
            " / ".join(f"{count:,}" for count in counts) for counts in (map(min, zip(*rows)), map(max, zip(*rows)))
        )
        caption += f" Rows (train / validation / test): {low}" + (f" to {high}." if low != high else ".")
    table = _values_table("Probes", caption, study, measures, [row for row in study.rows if row.seeds])
    others = tuple((name, *_baseline(study, name, measures)) for name in _BASELINES)
    return replace(
        table, rows=(*table.rows[:-1], *(row for row in others if set(row[1:]) != {NOTHING}), table.rows[-1])
    )


def _baseline(study: StudyReport, name: str, measures: Sequence[Measure]) -> list[str]:
    """Accuracies of a baseline that is no encoder, the mean over seeds where it has several lines."""
    found: dict[str, list[float]] = {}
    for line in study.probes:
        if line["role"] == "baseline" and line["variant"] == name:
            found.setdefault(f"probe_{line['task']}", []).append(float(line["metrics"]["accuracy"]))
    return [_number(_mean(found.get(m.name, [])), m.digits) for m in measures]


def _values_table(
    title: str, caption: str, study: StudyReport, measures: Sequence[Measure], shown: Sequence[Row]
) -> Table:
    rows = [(row.name, *_values(study, row, measures)) for row in _planned(shown)]
    for name, known in ((COUNTS, study.counts), (TRIVIAL, study.chance)):
        if name != COUNTS or any(m.name in known for m in measures):
            rows.append((name, *(_number(known.get(m.name, math.nan), m.digits) for m in measures)))
    rows += [(row.name, *_values(study, row, measures)) for row in _not_run(shown)]
    header = ("variant", *(f"{m.title} ({m.unit})" if m.family == PRIMARY and m.unit else m.title for m in measures))
    return Table(title, caption, header, tuple(rows))


def _planned(rows: Sequence[Row]) -> list[Row]:
    """Those of this study's plan, or of which there is something."""
    return [row for row in rows if row.seeds or row.planned]


def _not_run(rows: Sequence[Row]) -> list[Row]:
    """The others, which stand below all that has values."""
    return [row for row in rows if not (row.seeds or row.planned)]


def _values(study: StudyReport, row: Row, measures: Sequence[Measure]) -> list[str]:
    if not row.seeds:
        return [NOT_YET if row.planned else NOT_RUN, *[NOTHING] * (len(measures) - 1)] if measures else []
    return [_cell(study, row, measure) for measure in measures]


def _cell(study: StudyReport, row: Row, measure: Measure) -> str:
    values = study.by_seed(row.name, measure.name)
    if not values:
        return NOTHING
    mean, sd = mean_and_sd(values)
    text = _number(mean, measure.digits) + ("" if math.isnan(sd) else f" ± {_number(sd, measure.digits)}")
    fewer = f" ({len(values)})" if len(values) < len(row.seeds) else ""
    return text + (DAGGER if measure.name in row.own else "") + fewer


def differences_table(study: StudyReport, comparisons: Sequence[Comparison], family: str) -> Table:
    """Every comparison of a family with the baseline, one a row."""
    own = [c for c in comparisons if c.family == family and c.against == BASELINE]
    caption = f"Each variant less {BASELINE}, paired by seed. {_HOW} {_corrected(own)}"
    return _differences("Differences", caption, study, own)


def ablation_table(study: StudyReport, comparisons: Sequence[Comparison]) -> Table:
    """Every main comparison with another variant than the baseline."""
    own = [c for c in comparisons if c.family == PRIMARY and c.against != BASELINE]
    caption = (
        "Each variant less the one that lacks just what it adds, where both ran: what that part alone does. Columns as above. "
        f"{_corrected(own)}"
    )
    return _differences("What a part adds", caption, study, own)


_HOW = (
    "Interval: Student's t over the seeds of pre-training, for these development rows; other rows are not covered. Effect size: mean over standard deviation "
    "of the differences (from few seeds far too large: by three quarters with three). Detectable: the true difference that a paired test at 5 % finds four times out of "
    "five, were the spread what it was here; in brackets at the corrected level. p: permutation of signs, from six seeds on; below, the row is "
    "descriptive and has no mark. * the interval alone excludes zero, ** the corrected one too; no mark where all seeds differ alike, which leaves no "
    "spread to judge by."
)


def _corrected(own: Sequence[Comparison]) -> str:
    number = sum(len(c.seeds) > 1 for c in own)
    return (
        f"Corrected: wide enough that all {number} intervals here hold together (Bonferroni)."
        if number
        else "One seed has no interval."
    )


def _differences(title: str, caption: str, study: StudyReport, own: Sequence[Comparison]) -> Table:
    titles = {m.name: m for m in study.measures}
    own_tasks = {row.name: row.own for row in study.rows}
    rows = tuple(_difference_row(c, titles[c.measure], c.measure in own_tasks[c.variant]) for c in own)
    header = (
        *("variant", "measure", "seeds", "difference", "95 % interval", "corrected interval"),
        *("effect size", "detectable", "p (Holm)"),
    )
    if any(c.measure in own_tasks[c.variant] for c in own):
        caption += f" {DAGGER} the variant was pre-trained on this very task."
    if any(row.reference for row in study.rows):
        caption += " Published checkpoints are not compared: their seeds are those of fine-tuning."
    return Table(title, caption, header, rows, 2)


def _difference_row(c: Comparison, measure: Measure, own: bool) -> tuple[str, ...]:
    digits = measure.digits + 1
    marks = "" if c.descriptive else "**" if c.excludes_zero_among_all else "*" if c.excludes_zero else ""
    p = "descriptive" if c.p is None or c.p_holm is None else f"{_p(c.p)} ({_p(c.p_holm)})"
    found = _number(c.detectable, digits)
    return (
        f"{c.variant} − {c.against}",
        measure.title + (DAGGER if own else "") + ("" if measure.higher_is_better else " (lower is better)"),
        str(len(c.seeds)),
        signed(c.mean, digits) + marks,
        _interval(c.low, c.high, digits),
        _interval(c.low_all, c.high_all, digits),
        signed(c.effect, 1),
        found if found == NOTHING else f"{found} ({_number(c.detectable_all, digits)})",
        p,
    )


def mixes_table(study: StudyReport) -> Table:
    """Of objectives that read a mix of layers: what was learnt, and what each layer alone gives."""
    measures = {m.name: m for m in study.measures}
    rows = []
    for (variant, target), of_seed in sorted(study.mixes.items()):
        measure, runs = measures[target], [run for run in of_seed.values() if run.shares]
        centres = [centre_of(run.shares) for run in runs]
        own = list(study.by_seed(variant, target).values())
        rows.append((variant, measure.title, "centre of gravity", _spread(centres, 2), _spread(own, measure.digits)))
        for layer in sorted({layer for run in runs for layer in run.shares}):
            shares = [run.shares[layer] for run in runs if layer in run.shares]
            alone = [run.alone[layer] for run in runs if layer in run.alone]
            rows.append((variant, measure.title, f"layer {layer}", _spread(shares, 2), _spread(alone, measure.digits)))
    caption = (
        "Of objectives placed at a mix of layers: the share of each layer, and the held-out value that the trained head "
        "reaches with that layer alone (of the centre of gravity, the mean layer weighted by shares, with the mix); mean "
        "over seeds, in brackets from the lowest to the highest. Weights of normalised states are no importance by "
        "themselves, and the head was trained on the mix."
    )
    return Table("Learnt placements", caption, ("variant", "objective", "", "share", "held out"), tuple(rows), 3)


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return NOTHING
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def cost_table(study: StudyReport) -> Table:
    """What a run took, mean over seeds."""
    rows = []
    for row in study.rows:
        costs = list(study.costs.get(row.name, {}).values())
        if costs:
            parameters = _mean([c.parameters for c in costs])
            speed, training = _mean([c.tokens_per_second for c in costs]), _mean([c.pretraining_seconds for c in costs])
            rows.append(
                (
                    row.name,
                    f"{parameters:,.0f}" if not math.isnan(parameters) else NOTHING,
                    f"{speed:,.0f}" if not math.isnan(speed) else NOTHING,
                    f"{training / 3600:.2f}" if not math.isnan(training) else NOTHING,
                    f"{statistics.fmean(c.seconds for c in costs) / 3600:.2f}",
                    ", ".join(sorted({c.device for c in costs})),
                )
            )
    header = ("variant", "parameters", "tokens/s", "pre-training (h)", "all stages (h)", "device")
    caption = (
        "Mean over seeds of one run, as far as it is done, on what it had for itself (one core on the CPU where runs go side by "
        "side). Parameters: heads and transfers included. Tokens/s: median over the intervals of the log, so not the tokens over the hours. All stages: of one "
        "that was resumed, the last part. Times depend on the machine and what else it does."
    )
    return Table("Cost", caption, header, tuple(rows))


def seeds_table(study: StudyReport) -> Table:
    """Every value, and the stage whose records it comes from."""
    rows = []
    for row in study.rows:
        for measure in study.measures:
            for seed, found in sorted(study.values.get((row.name, measure.name), {}).items()):
                rows.append(
                    (row.name, measure.title, str(seed), _number(found.value, measure.digits + 2), found.fingerprint)
                )
    caption = "Every value with its seed and the fingerprint of the stage whose records (field stage_fingerprint) it is computed from."
    return Table("By seed", caption, ("variant", "measure", "seed", "value", "records"), tuple(rows), 2)


def signed(value: float, digits: int) -> str:
    """With a sign; one that rounds to 0 has none."""
    if math.isnan(value):
        return NOTHING
    text = f"{value:+.{digits}f}"
    return text[1:] if not float(text) else text.replace("-", "−")


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.0005 else "<0.001"


def _interval(low: float, high: float, digits: int) -> str:
    return NOTHING if math.isnan(low) else f"{signed(low, digits)} to {signed(high, digits)}"


def _number(value: float, digits: int) -> str:
    return NOTHING if math.isnan(value) else f"{value:.{digits}f}"


def _mean(values: Sequence[float | None]) -> float:
    found = [value for value in values if value is not None]
    return statistics.fmean(found) if found else math.nan
