"""The downstream tasks' files in a folder of data, and copies of them, capped, that a study fine-tunes and probes on.

DATA/glue/{RTE,MNLI,SNLI}/   as published
DATA/squad*/                 train-v1.1*.json, dev-v1.1*.json
DATA/probing/                SentEval's layout, at any depth
"""

import itertools
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hmtl_plugin.errors import UserError
from hmtl_plugin.glue.files import GlueFile, find_files
from hmtl_plugin.glue.tasks import TASKS, TRAIN, VALID
from hmtl_plugin.probing.tasks import SPLITS, find_tasks, read_task
from hmtl_plugin.study.profile import Finetuning, Profile

SQUAD = "SQuAD"
ENTAILMENT = ("RTE", "MNLI", "SNLI")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class TaskFiles:
    """One task to fine-tune on.

    Attributes:
        train, valid: official files.
        evaluation: validation and test files: no pre-training document may share a sentence with them.
        format: of `PrepareOptions`, of its text.
    """

    name: str
    train: Path
    valid: Path
    evaluation: tuple[Path, ...]
    format: str


@dataclass(frozen=True)
class Sources:
    """What a study reads. ``missing``: optional tasks without files."""

    tasks: tuple[TaskFiles, ...]
    probing: tuple[Path, ...]
    missing: tuple[str, ...] = ()

    def text(self) -> dict[str, list[str]]:
        """Format -> training files."""
        return {
            format: [str(task.train) for task in self.tasks if task.format == format]
            for format in dict.fromkeys(task.format for task in self.tasks)
        }

    def evaluation(self) -> list[str]:
        """Files whose text is kept out of pre-training."""
        return [str(path) for task in self.tasks for path in task.evaluation]


def find_sources(profile: Profile, data: Path) -> Sources:
    """Files of every task of a profile.

    Raises:
        UserError: naming what is missing and where to get it.
    """
    if not data.is_dir():
        raise UserError(f"--data {data}: no such folder: give one with glue/, squad/ and probing/")
    tasks, missing = [], []
    for wanted in profile.finetuning:
        if wanted.task not in (*ENTAILMENT, SQUAD):
            raise UserError(f"finetuning.task '{wanted.task}': use {', '.join(ENTAILMENT)} or {SQUAD}")
        if wanted.optional and not _there(wanted.task, data):
            missing.append(wanted.task)
        else:
            tasks.append((_squad if wanted.task == SQUAD else _glue)(wanted.task, data))
    probing = [task.path for task in find_tasks([_probing_folder(data)])]
    return Sources(tuple(tasks), tuple(probing), tuple(missing))


def _there(name: str, data: Path) -> bool:
    return any(data.glob("squad*/*-v1.1*.json")) if name == SQUAD else (data / "glue" / name).is_dir()


def _glue(name: str, data: Path) -> TaskFiles:
    if not (data / "glue" / name).is_dir():
        raise UserError(f"--data {data}: no glue/{name}: bash scripts/download_glue.sh {data / 'glue'} {name}")
    files: dict[str, GlueFile] = {file.split: file for file in find_files(TASKS[name], data / "glue")}
    train = Path(files[TRAIN].path)
    return TaskFiles(
        name,
        train,
        Path(files[VALID].path),
        tuple(Path(file.path) for split, file in files.items() if split != TRAIN),
        "nli-jsonl" if train.suffix == ".jsonl" else "pairs",
    )


def _squad(name: str, data: Path) -> TaskFiles:
    found = []
    for part in ("train", "dev"):
        files = sorted(data.glob(f"squad*/{part}-v1.1*.json"))
        if len(files) != 1:
            what = "no" if not files else f"{len(files)} files"
            raise UserError(
                f"--data {data}: {what} squad*/{part}-v1.1*.json: bash scripts/download_squad.sh {data / 'squad'} 1.1"
            )
        found.append(files[0])
    return TaskFiles(name, found[0], found[1], (found[1],), "squad")


def _probing_folder(data: Path) -> Path:
    folders = sorted({file.parent for file in (data / "probing").rglob("*.txt")})
    if len(folders) != 1:
        raise UserError(
            f"--data {data}: {'no' if not folders else len(folders)} folders with .txt files under probing/: put SentEval's "
            "probing tasks there (data/probing of its repository), or make some: scripts/make_probing.py"
        )
    return folders[0]


def copy_capped(task: TaskFiles, wanted: Finetuning, folder: Path) -> None:
    """Write the task's train and validation files into ``folder``, the first rows (questions) of each where capped."""
    for path, rows in ((task.train, wanted.train_rows), (task.valid, wanted.valid_rows)):
        target = (
            folder / ("train.json" if path == task.train else "dev.json") if task.name == SQUAD else folder / path.name
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        if not rows:
            shutil.copyfile(path, target)
        elif task.name == SQUAD:
            _copy_questions(path, target, rows)
        else:
            _copy_lines(path, target, rows + (path.suffix != ".jsonl"))


def _copy_lines(path: Path, target: Path, lines: int) -> None:
    with path.open("rb") as source, target.open("wb") as file:
        file.writelines(itertools.islice(source, lines))


def _copy_questions(path: Path, target: Path, questions: int) -> None:
    """The first articles, the last cut short, that hold so many questions."""
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    left, articles = questions, []
    for article in content["data"]:
        paragraphs = []
        for paragraph in article["paragraphs"] if left > 0 else ():
            asked = paragraph["qas"][: max(left, 0)]
            left -= len(asked)
            paragraphs += [{**paragraph, "qas": asked}] if asked else []
        articles += [{**article, "paragraphs": paragraphs}] if paragraphs else []
    target.write_text(json.dumps({**content, "data": articles}, ensure_ascii=False) + "\n", encoding="utf-8")


def copy_probing(files: Iterable[Path], rows: Sequence[int], folder: Path) -> None:
    """Write probing tasks into ``folder``: the first ``rows`` of tr, va and te, but every label of tr kept for va and
    te; 0: all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    caps = {split.encode(): count for split, count in zip(SPLITS, rows, strict=True)}
    for path in files:
        if not any(rows):
            shutil.copyfile(path, folder / path.name)
            continue
        left, labels = dict(caps), set()
        with path.open("rb") as source, (folder / path.name).open("wb") as target:
            rows_of = [line.removeprefix(_BOM).split(b"\t", 2) for line in source if line.removeprefix(_BOM).strip()]
            for fields in sorted(rows_of, key=lambda fields: list(caps).index(fields[0].strip())):
                split, label = fields[0].strip(), fields[1].strip()
                if left[split] and (split == SPLITS[0].encode() or label in labels):
                    left[split] -= 1
                    labels |= {label} if split == SPLITS[0].encode() else set()
                    target.write(b"\t".join(fields).rstrip(b"\r\n") + b"\n")
        read_task(folder / path.name)  # a cap too low for the task's labels is found here
