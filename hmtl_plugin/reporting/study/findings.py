"""What a study found, in sentences that its numbers make, and what it cannot say."""

from collections.abc import Sequence

from hmtl_plugin.reporting.study.comparisons import SEEDS_FOR_TEST, Comparison
from hmtl_plugin.reporting.study.data import BASELINE, PRIMARY, Measure, StudyReport
from hmtl_plugin.reporting.study.tables import COUNTS, signed
from hmtl_plugin.statistics import LEVEL

PAPER_OPEN = (
    "the layer of each task (here: a third and two thirds of the depth, rounded up to whole layers; see the table of variants)",
    "how information of next-sentence prediction reaches the masked language model (here: four operators, concat the main one)",
    "the exact definition of bigram shift and its rate (here: a tenth of the words, two neighbours change places, one label a word)",
    "the sizes, the budget, the seeds and every table of results",
)
"""What of Aksoy, Ahmetoğlu, Güngör (2020) is not known to us, and what stands in its place."""

ALWAYS_DIFFERS = (
    "The paper's numbers are not available to us: nothing here is a replication, and nothing is compared with it."
)
OWN_TEXT = "Pre-training text is the downstream tasks' own, as in the paper, but those tasks and amounts that the table of data names."
GIVEN_TEXT = "Pre-training text is a corpus that was given, not the downstream tasks' own as in the paper."
_LISTED = 12


def findings(study: StudyReport, comparisons: Sequence[Comparison]) -> list[str]:
    """Sentences for the top of a report, computed from the comparisons."""
    own = [c for c in comparisons if c.family == PRIMARY and c.against == BASELINE]
    ablations = [c for c in comparisons if c.family == PRIMARY and c.against != BASELINE]
    found = [_progress(study), *_not_alike(study), *_not_learnt(study), *_less_than_counting(study)]
    if study.not_finite:
        found.append(f"Not a finite number, and left out of everything: {', '.join(study.not_finite)}.")
    if not own:
        return [*found, f"Nothing can be compared with {BASELINE} yet."]
    measurable = [c for c in own if len(c.seeds) > 1]
    trained = {row.name for row in study.rows if row.trained}
    found += _differences(
        study, [c for c in measurable if c.variant in trained], f"pre-trained variants with {BASELINE}", len(measurable)
    )
    ablations = [c for c in ablations if len(c.seeds) > 1]
    found += _differences(study, ablations, "variants with the one that lacks only what they add", len(ablations))
    found += [_worth(study, [c for c in measurable if c.variant not in trained]), _out_of_reach(own)]
    few = sorted({len(c.seeds) for c in own if c.descriptive})
    if few:
        counts = " or ".join(map(str, few))
        found.append(
            f"With {counts} seed{'s' * (few[-1] > 1)} these are descriptions, not tests (a test begins at {SEEDS_FOR_TEST} seeds)."
        )
    return [sentence for sentence in found if sentence]


def _differences(study: StudyReport, among: Sequence[Comparison], who: str, corrected_for: int) -> list[str]:
    """How many intervals exclude zero, and which."""
    if not among:
        return []
    alone, together = [c for c in among if c.excludes_zero], [c for c in among if c.excludes_zero_among_all]
    found = [
        f"Of {len(among)} comparisons of {who}, {len(alone)} have a 95 % interval that excludes zero "
        f"(about {0.05 * len(among):.1f} expected by chance), and {len(together)} after correction for all "
        f"{corrected_for} here."
    ]
    listed = sorted(alone, key=lambda c: not c.excludes_zero_among_all)  # those that are surest first
    found += [_sentence(study, c) for c in listed[:_LISTED]]
    more = len(listed) - _LISTED
    return [*found, f"{more} more are in the table of differences."] if more > 0 else found


def _not_alike(study: StudyReport) -> list[str]:
    """Records that were not all made in one way, which may be what differs between two variants."""
    found = [
        f"Records were not all made alike: {name} is {'; '.join(f'{value} ({_runs(runs)})' for value, runs in values.items())}. What differs between "
        "such runs may be that."
        for name, values in study.made.items()
        if len(values) > 1
    ]
    if study.remade:
        found.append(
            f"Some results come from another training of the same model than the rest of its run: {', '.join(study.remade)}."
        )
    return found


def _runs(runs: Sequence[str]) -> str:
    return ", ".join(runs[:3]) + (f" and {len(runs) - 3} more" if len(runs) > 3 else "")


def _not_learnt(study: StudyReport) -> list[str]:
    """An objective that taught nothing cannot be what a variant's difference comes from."""
    not_learnt: dict[str, list[str]] = {}
    for row in study.rows:
        for title, learnt in row.learnt.items():
            if not learnt:
                not_learnt.setdefault(title, []).append(row.name)
    return [
        f"{title}: not learnt by {', '.join(names)} (each seed's 95 % interval over samples includes the "
        "trivial baseline), so no difference there comes from having learnt it."
        for title, names in not_learnt.items()
    ]


def _less_than_counting(study: StudyReport) -> list[str]:
    """Where counting the text of pre-training gives more than any model reached."""
    trained = [row.name for row in study.rows if row.trained]
    found = []
    for measure in study.measures:
        reached = [value for name in trained for value in study.by_seed(name, measure.name).values()]
        if not reached or measure.name not in study.counts:
            continue
        best, counts = (max if measure.higher_is_better else min)(reached), study.counts[measure.name]
        if (best < counts) == measure.higher_is_better and best != counts:
            what = measure.counted or "less than the text gives to whoever counts."
            found.append(f"{measure.title}: the best run reaches {best:.1f}, {COUNTS} {counts:.1f}: {what}")
    return found


def _worth(study: StudyReport, untrained: Sequence[Comparison]) -> str:
    """What pre-training is worth at all: without it, no difference between ways of pre-training means much."""
    titles = {m.name: m for m in study.measures}
    downstream = [c for c in untrained if not titles[c.measure].pretraining]
    clear = [c for c in downstream if c.excludes_zero]
    better = [c for c in clear if (c.mean < 0) == titles[c.measure].higher_is_better]
    worse = [c for c in clear if c not in better]
    if not downstream:
        return ""
    listed = ", ".join(f"{titles[c.measure].title} ({signed(-c.mean, titles[c.measure].digits)})" for c in better)
    text = (
        f"{BASELINE} less the encoder that was never trained, fine-tuned and probed alike: on {len(downstream)} of the main "
        f"measures, the 95 % interval is on the better side of zero at {listed or 'none'}"
    )
    return text + (f", on the worse side at {', '.join(titles[c.measure].title for c in worse)}." if worse else ".")


def _out_of_reach(own: Sequence[Comparison]) -> str:
    """With n seeds no p is below 2 / 2 ** n, which a correction for many comparisons lifts above any level."""
    tested = [c for c in own if c.p is not None]
    smallest = min((2.0 ** (1 - len(c.seeds)) for c in tested), default=0.0)
    if smallest * len(tested) <= LEVEL:
        return ""
    return (
        f"No permutation test of so few seeds can give a p below {smallest:.3f}, so none of {len(tested)} could stay below {LEVEL} "
        "after correction: what is said to hold after correction rests on Student's t intervals."
    )


def _progress(study: StudyReport) -> str:
    ran = [row for row in study.rows if row.seeds]
    if study.done_stages < study.planned_stages:
        listed = ", ".join(
            f"{row.name}: seed{'s' * (len(row.seeds) > 1)} {', '.join(map(str, row.seeds))}" for row in ran
        )
        return f"The study is not finished: {study.done_stages} of {study.planned_stages} stages are done ({listed or 'no variant yet'})."
    names = ", ".join(row.name for row in ran)
    return f"All {study.planned_stages} stages of the plan are done: {names}; seeds {', '.join(map(str, study.seeds))}."


def _sentence(study: StudyReport, c: Comparison) -> str:
    """Better or worse is said of tests alone; of fewer seeds, the number."""
    measure: Measure = next(m for m in study.measures if m.name == c.measure)
    better = "better" if (c.mean > 0) == measure.higher_is_better else "worse"
    digits = measure.digits + 1
    after = "after correction too" if c.excludes_zero_among_all else "not after correction"
    numbers = f"{signed(c.mean, digits)} ({signed(c.low, digits)} to {signed(c.high, digits)})"
    if c.descriptive:
        return f"{c.variant} − {c.against} at {measure.title}: {numbers} over {len(c.seeds)} seeds, the {better} side; excludes zero {after}."
    return f"{c.variant} is {better} than {c.against} at {measure.title}: {numbers}, {after}."
