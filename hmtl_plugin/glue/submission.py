"""Prediction files as GLUE's leaderboard takes them, and the zip of all of them."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hmtl_plugin.errors import UserError
from hmtl_plugin.files.publishing import write_whole
from hmtl_plugin.glue.tasks import TASKS, GlueTask

ZIP = "submission.zip"
_SCORES = (0.0, 5.0)  # of STS-B


def answers(task: GlueTask, logits_RC: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """(R,) class ids, or scores."""
    return logits_RC[:, 0] if task.regression else logits_RC.argmax(-1)


def check_rows(task: GlueTask, manifest: Mapping[str, Any], split: str) -> None:
    """Raise `UserError` if rows of a test set were left out, so that numbers would not be the leaderboard's."""
    counts = manifest["splits"][split]
    if counts["broken_rows"] or counts["unlabelled_rows"]:
        raise UserError(
            f"{counts['file']} of {task.name} has rows with another number of columns, which were left out: "
            "predictions would not be for the leaderboard's rows; fetch the file again"
        )


def write_predictions(
    task: GlueTask, manifest: Mapping[str, Any], split: str, logits_RC: npt.NDArray[np.float32], folder: Path
) -> Path:
    """``index TAB prediction`` for every row of a test set, under the leaderboard's name for it."""
    check_rows(task, manifest, split)
    given = answers(task, logits_RC)
    if task.regression:
        texts = [f"{value:.3f}" for value in np.clip(given, *_SCORES)]
    else:
        texts = [task.labels[number] for number in given]
    path = folder / task.submissions[split]
    lines = [f"{row}\t{text}\n" for row, text in enumerate(texts)]
    with write_whole(path) as part:
        part.write_text("index\tprediction\n" + "".join(lines), encoding="utf-8")
    return path


def zip_submission(folders: Mapping[str, Path], target: Path) -> list[str]:
    """Put the prediction files that there are into ``target``; the names of those that the leaderboard also wants.

    Args:
        folders: task -> folder with its prediction files.
    """
    missing = []
    with write_whole(target) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for task in TASKS.values():
            for name in task.submissions.values():
                path = folders[task.name] / name if task.name in folders else None
                if path is not None and path.is_file():
                    archive.write(path, name)
                else:
                    missing.append(name)
    return missing
