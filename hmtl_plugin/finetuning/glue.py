"""Fine-tuning on one GLUE task: `fairseq-train` options, predictions of all sets, metrics on the validation sets."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hmtl_plugin.checkpoints import load_checkpoint
from hmtl_plugin.files.array_file import load_array
from hmtl_plugin.finetuning.experiment import Experiment, Metrics, Settings
from hmtl_plugin.finetuning.forward import task_logits
from hmtl_plugin.glue.dataset import open_split, read_labels
from hmtl_plugin.glue.metrics import compute, score
from hmtl_plugin.glue.submission import answers, check_rows, write_predictions
from hmtl_plugin.glue.tasks import TRAIN, VALID, find_task

PREDICTIONS = "predictions"
_FEW_ROWS = 20_000


def usual_tokens(positions: int) -> int:
    """Longest row by default, for a model with so many positions."""
    return min(128, positions)


class GlueExperiment(Experiment):
    """See `Experiment`.

    Args:
        folder: of the task's runs; data: of its prepared data, with this manifest.
        max_tokens: longest row.
    """

    kind = "glue"

    def __init__(
        self, folder: Path, data: Path, manifest: dict[str, Any], max_tokens: int, resize: bool, settings: Settings
    ) -> None:
        self.glue = find_task(manifest["task"])
        self.task, self.folder, self.data, self.manifest = self.glue.name, folder, data, manifest
        self.max_tokens, self.settings = max_tokens, settings
        for split in set(self.glue.submissions) & set(manifest["splits"]):
            check_rows(self.glue, manifest, split)
        self.fixed = {"tokens-per-sample": max_tokens}
        self.usual = {"tokens-per-sample": usual_tokens(settings.start.model["max_positions"])}
        self._model_options = settings.start.options(max_tokens, resize)
        self.data_version = hashlib.sha256(json.dumps([manifest, max_tokens], sort_keys=True).encode()).hexdigest()

    @property
    def default_epochs(self) -> str:
        """Ten for small sets (as RoBERTa's), three for large ones (as BERT's)."""
        return "10" if self.manifest["splits"][TRAIN]["rows"] < _FEW_ROWS else "3"

    def options(self) -> list[str]:
        """See `Experiment`."""
        return [
            *(str(self.data), "--task", "glue", "--criterion", "glue", "--tokens-per-sample", str(self.max_tokens)),
            *("--max-tokens-valid", "16384", *self._model_options),
        ]

    def batches(self, batch_size: int) -> int:
        """See `Experiment`."""
        return -(-int(self.manifest["splits"][TRAIN]["rows"]) // batch_size)

    def finish(self, folder: Path, model: Path) -> Metrics:
        """Predict every set but train; the logits stay in ``predictions/SPLIT.npy``, (rows, classes) fp32."""
        loaded = load_checkpoint(model).model.to(self.settings.device)
        (folder / PREDICTIONS).mkdir(exist_ok=True)
        metrics: Metrics = {}
        for split in self.manifest["splits"]:
            if split != TRAIN:
                logits_RC = self._predict(loaded, split)
                np.save(folder / PREDICTIONS / f"{split}.npy", logits_RC)
                if split.startswith(VALID):
                    metrics |= self._measure(split, logits_RC)
        return metrics

    def _predict(self, model: Any, split: str) -> npt.NDArray[np.float32]:
        dataset = open_split(self.data, self.manifest, split, self.max_tokens)
        logits_RC = np.zeros((len(dataset), self.glue.outputs), dtype=np.float32)
        for sample, logits in task_logits(model, dataset, self.settings.autocast, f"{self.task} {split}"):
            logits_RC[sample["id"].cpu().numpy()] = logits.cpu().numpy()
        return logits_RC

    def _measure(self, split: str, logits_RC: npt.NDArray[np.float32]) -> Metrics:
        given, true = answers(self.glue, logits_RC), read_labels(self.data, self.glue, split)
        metrics = compute(self.glue, given, true)
        if split != VALID:
            return {f"{name}{split.removeprefix(VALID)}": value for name, value in metrics.items() if name != "score"}
        found = score(self.glue, given, true, read_labels(self.data, self.glue, TRAIN))
        return metrics | {"low": found.low, "high": found.high, "baseline": found.baseline}

    def publish(self, folder: Path) -> None:
        """Leaderboard files of the test sets there are, in the task's folder."""
        for split in self.glue.submissions:
            if split in self.manifest["splits"]:
                path = folder / PREDICTIONS / f"{split}.npy"
                logits_RC = load_array(path, f"remove {folder}, and its run is made again")
                write_predictions(self.glue, self.manifest, split, logits_RC, self.folder)
