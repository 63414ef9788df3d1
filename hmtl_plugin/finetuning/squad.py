"""Fine-tuning on SQuAD: `fairseq-train` options, official files and scores of the validation set."""

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from hmtl_plugin.checkpoints import load_checkpoint, save_for_use
from hmtl_plugin.files.publishing import write_whole
from hmtl_plugin.finetuning.experiment import Experiment, Metrics, Settings
from hmtl_plugin.finetuning.forward import task_logits
from hmtl_plugin.squad.dataset import SquadDataset, SquadSplit
from hmtl_plugin.squad.decoding import WindowSpans
from hmtl_plugin.squad.files import read_squad
from hmtl_plugin.squad.measure import SquadScorer
from hmtl_plugin.squad.predictions import NBEST, predict, write_predictions
from hmtl_plugin.squad.report import report
from hmtl_plugin.squad.windows import Windows, answer_positions, describe

FILES = ("predictions.json", "nbest.json", "null_odds.json")
DEFAULT_EPOCHS = "2"
WindowOptions = dict[str, int]  # tokens_per_sample, doc_stride, max_question_tokens, max_answer_tokens


def usual_windows(positions: int) -> WindowOptions:
    """How texts are cut by default, for a model with so many positions; in tokens."""
    return {
        "tokens_per_sample": min(384, positions),
        "doc_stride": 128,
        "max_question_tokens": 64,
        "max_answer_tokens": 30,
    }


class SquadExperiment(Experiment):
    """See `Experiment`.

    Args:
        folder: of the runs; data: of the prepared data, with this manifest.
    """

    kind = "squad"

    def __init__(
        self,
        folder: Path,
        data: Path,
        manifest: dict[str, Any],
        version_2: bool,
        windows: WindowOptions,
        resize: bool,
        settings: Settings,
    ) -> None:
        self.task = "SQuAD 2.0" if version_2 else "SQuAD 1.1"
        self.folder, self.data, self.version_2, self.window_options = folder, data, version_2, windows
        self.settings = settings
        self.fixed, self.usual = (
            {name.replace("_", "-"): value for name, value in options.items()}
            for options in (windows, usual_windows(settings.start.model["max_positions"]))
        )
        self._model_options = settings.start.options(windows["tokens_per_sample"], resize)
        identity = json.dumps([manifest, windows, version_2], sort_keys=True)
        self.data_version = hashlib.sha256(identity.encode()).hexdigest()
        self._train_windows = len(self._windows(SquadSplit(data / "train")))

    def _windows(self, split: SquadSplit) -> Windows:
        options = self.window_options
        return split.windows(options["tokens_per_sample"], options["doc_stride"], options["max_question_tokens"])

    def describe(self) -> list[str]:
        """A line for each split: questions, windows, and what these do not hold."""
        lines = []
        for name in ("train", "valid"):
            split = SquadSplit(self.data / name)
            windows = self._windows(split)
            labels = answer_positions(windows, split.table["begin"], split.table["end"])
            lines.append(f"{name}: {describe(windows, labels)}")
        return lines

    def options(self) -> list[str]:
        """See `Experiment`."""
        windows = [
            part for name, value in self.window_options.items() for part in (f"--{name.replace('_', '-')}", str(value))
        ]
        return [
            *(str(self.data), "--task", "squad", "--criterion", "span_qa", *windows),
            *(["--version-2"] if self.version_2 else []),
            *("--max-tokens-valid", "16384", *self._model_options),
        ]

    def batches(self, batch_size: int) -> int:
        """See `Experiment`."""
        return -(-self._train_windows // batch_size)

    def finish(self, folder: Path, model: Path) -> Metrics:
        """Write the official files and measure; the model learns the threshold that is best on the validation set."""
        split = SquadSplit(self.data / "valid")
        windows = self._windows(split)
        scorer = SquadScorer(split, windows, self.version_2)
        predictions = predict(self._decode(model, split, windows), scorer.golds.ids, scorer.text, self.version_2)
        found = scorer.score(
            [p.best for p in predictions], np.array([p.no_answer for p in predictions], dtype=np.float64)
        )
        metrics = report(found, scorer.golds, scorer.file, read_squad(self.data / "train" / "source.json"))
        threshold = metrics["threshold"] if self.version_2 else math.inf
        write_predictions(predictions, threshold, folder)
        save_for_use(model, model, {"no_answer_threshold": threshold})
        return metrics

    def _decode(self, model: Path, split: SquadSplit, windows: Windows) -> WindowSpans:
        loaded = load_checkpoint(model).model.to(self.settings.device)
        spans = WindowSpans.empty(windows.question, NBEST)
        dataset = SquadDataset(split, windows)
        for sample, logits_BT2 in task_logits(loaded, dataset, self.settings.autocast, f"{self.task} valid"):
            spans.put(
                sample["id"].cpu().numpy(),
                logits_BT2,
                sample["context_begin"],
                sample["context_length"],
                sample["window_start"],
                self.window_options["max_answer_tokens"],
            )
        return spans

    def publish(self, folder: Path) -> None:
        """The official files, in the folder of the runs."""
        for name in FILES:
            with write_whole(self.folder / name) as part:
                shutil.copyfile(folder / name, part)
