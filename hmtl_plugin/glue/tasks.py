"""The GLUE tasks (Wang et al. 2019), AX and SNLI as one table: files, columns, labels, metrics, leaderboard names.

Everything that differs between the tasks is said here; readers, training, metrics and submissions look it up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hmtl_plugin.errors import UserError

TRAIN, VALID, TEST = "train", "valid", "test"
MISMATCHED = "_mm"  # MNLI's second validation and test set: valid_mm, test_mm
DIAGNOSTIC = "ax"  # predicted by the MNLI model


@dataclass(frozen=True)
class GlueTask:
    """One task.

    Attributes:
        name: as the official folder is called.
        text: names of the columns (fields) with the sentences, one or two.
        label: name of the column with the label.
        labels: the classes in the order of their ids; none for regression.
        metrics: what is computed on a validation set; their mean selects the model.
        files: split -> possible file names, the first that exists is read. With ``../`` from a sibling folder.
        submissions: test split -> file of the leaderboard.
        headless: column numbers, from 0, of files without a header (CoLA's train and dev).
        skip_broken: rows with another number of columns are left out and counted (the official QQP has some);
            elsewhere they are an error.
        unlabelled: labels that mark a row as having none (SNLI's and MNLI's annotators who disagreed).
    """

    name: str
    text: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    files: Mapping[str, tuple[str, ...]]
    submissions: Mapping[str, str]
    headless: Mapping[str, int] = field(default_factory=dict)
    skip_broken: bool = False
    unlabelled: tuple[str, ...] = ()

    @property
    def regression(self) -> bool:
        """Whether the label is a number."""
        return not self.labels

    @property
    def outputs(self) -> int:
        """Width of the head's last layer."""
        return len(self.labels) or 1

    @property
    def validation_splits(self) -> tuple[str, ...]:
        """Splits with known labels that models are chosen on."""
        return tuple(split for split in self.files if split.startswith(VALID))


def _tsv(**more: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {TRAIN: ("train.tsv",), VALID: ("dev.tsv",), TEST: ("test.tsv",), **more}


_ENTAILMENT = ("entailment", "not_entailment")
_NLI = ("contradiction", "neutral", "entailment")
_PAIR = ("sentence1", "sentence2")

_TASKS = (
    GlueTask(
        "CoLA",
        ("sentence",),
        "label",
        ("0", "1"),
        ("matthews",),
        _tsv(),
        {TEST: "CoLA.tsv"},
        headless={"sentence": 3, "label": 1},
    ),
    GlueTask("SST-2", ("sentence",), "label", ("0", "1"), ("accuracy",), _tsv(), {TEST: "SST-2.tsv"}),
    GlueTask(
        "MRPC",
        ("#1 String", "#2 String"),
        "Quality",
        ("0", "1"),
        ("f1", "accuracy"),
        _tsv(),
        {TEST: "MRPC.tsv"},
    ),
    GlueTask("STS-B", _PAIR, "score", (), ("pearson", "spearman"), _tsv(), {TEST: "STS-B.tsv"}),
    GlueTask(
        "QQP",
        ("question1", "question2"),
        "is_duplicate",
        ("0", "1"),
        ("f1", "accuracy"),
        _tsv(),
        {TEST: "QQP.tsv"},
        skip_broken=True,
    ),
    GlueTask(
        "MNLI",
        _PAIR,
        "gold_label",
        _NLI,
        ("accuracy",),
        {
            TRAIN: ("train.tsv",),
            VALID: ("dev_matched.tsv",),
            VALID + MISMATCHED: ("dev_mismatched.tsv",),
            TEST: ("test_matched.tsv",),
            TEST + MISMATCHED: ("test_mismatched.tsv",),
            DIAGNOSTIC: ("diagnostic.tsv", "../diagnostic/diagnostic.tsv", "../AX/AX.tsv", "../AX/test.tsv"),
        },
        {TEST: "MNLI-m.tsv", TEST + MISMATCHED: "MNLI-mm.tsv", DIAGNOSTIC: "AX.tsv"},
        unlabelled=("-",),
    ),
    GlueTask("QNLI", ("question", "sentence"), "label", _ENTAILMENT, ("accuracy",), _tsv(), {TEST: "QNLI.tsv"}),
    GlueTask("RTE", _PAIR, "label", _ENTAILMENT, ("accuracy",), _tsv(), {TEST: "RTE.tsv"}),
    GlueTask("WNLI", _PAIR, "label", ("0", "1"), ("accuracy",), _tsv(), {TEST: "WNLI.tsv"}),
    GlueTask(  # not on GLUE's leaderboard; its test labels are known
        "SNLI",
        _PAIR,
        "gold_label",
        _NLI,
        ("accuracy",),
        {
            split: (f"{name}.tsv", f"snli_1.0_{name}.txt", f"snli_1.0_{name}.jsonl")
            for split, name in ((TRAIN, "train"), (VALID, "dev"), (TEST, "test"))
        },
        {},
        unlabelled=("-",),
    ),
)

TASKS: Mapping[str, GlueTask] = {task.name: task for task in _TASKS}


def _named(name: str) -> GlueTask | None:
    wanted = name.replace("-", "").lower()
    return next((task for task in _TASKS if task.name.replace("-", "").lower() == wanted), None)


def is_task(name: str) -> bool:
    """Whether `find_task` finds it."""
    return _named(name) is not None


def find_task(name: str) -> GlueTask:
    """The task of that name, upper or lower case, with or without the hyphen; `UserError` for any other."""
    if (task := _named(name)) is not None:
        return task
    raise UserError(f"'{name}' is no GLUE task: choose from {', '.join(TASKS)}")


def choose_tasks(names: list[str], glue_dir: Path) -> list[GlueTask]:
    """The tasks of these names, each once; ``all`` means those that have a folder in ``glue_dir``.

    Raises:
        UserError: for a name that is no task's, or a folder without any.
    """
    if not glue_dir.is_dir():
        raise UserError(f"--glue-dir {glue_dir}: no such folder")
    if [name.lower() for name in names] != ["all"]:
        return list({task.name: task for task in map(find_task, names)}.values())
    there = [task for task in _TASKS if (glue_dir / task.name).is_dir()]
    if not there:
        raise UserError(f"--glue-dir {glue_dir}: holds none of the folders {', '.join(TASKS)}")
    return there
