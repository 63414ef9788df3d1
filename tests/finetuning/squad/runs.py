"""Questions that a small model learns to answer in seconds, and command lines to train it."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hmtl_plugin.checkpoints import save_for_use
from hmtl_plugin.finetuning.experiment import Settings
from hmtl_plugin.finetuning.pretrained import PretrainedCheckpoint
from hmtl_plugin.finetuning.squad import SquadExperiment
from hmtl_plugin.squad.prepare import prepare_squad, read_squad_manifest
from hmtl_plugin.tokenizers.base import Tokenizer
from tests.finetuning.conftest import WORDS
from tests.finetuning.squad.texts import entry, write
from tests.training.runs import PLUGIN, train

TINY = (
    "--arch hmtl_bert --encoder-layers 2 --encoder-embed-dim 32 --encoder-attention-heads 2 --max-positions 64".split()
)
WINDOWS = {"tokens_per_sample": 32, "doc_stride": 9, "max_question_tokens": 8, "max_answer_tokens": 4}
ASKED = ("cat", "dogs", "birds", "towns")
OTHERS = [word for word in WORDS if word not in ASKED]


def named_words(path: Path, seed: int, contexts: int, impossible: bool = False, longest: int = 30) -> Path:
    """Two questions a context, each names a word: that is the answer, together with an "old" before it.

    With ``impossible`` a context lacks about every other word that is asked for.
    """
    random = np.random.default_rng(seed)
    articles: list[list[tuple[str, list[dict[str, Any]]]]] = [[], []]
    for place in range(contexts):
        words = random.choice(OTHERS, random.integers(1, longest + 1)).tolist()
        asked = random.choice(ASKED, 2, replace=False).tolist()
        here = [word for word in asked if not impossible or random.random() < 0.5]
        for word in here:
            words.insert(int(random.integers(len(words) + 1)), word)
        qas = []
        for number, word in enumerate(asked):
            answers = []
            if word in here:
                last = words.index(word)
                first = last - (last > 0 and words[last - 1] == "old")
                answers = [(" ".join(words[first : last + 1]), len(" ".join([*words[:first], ""])))]
            extra = {"is_impossible": word not in here} if impossible else {}
            qas.append(entry(2 * place + number, answers, f"which {word}", **extra))
        articles[place % 2].append((" ".join(words), qas))
    return write(path, articles)


def arguments(data: Path, save_dir: Path, *extra: str) -> list[str]:
    """A fairseq-train command line; ``extra`` options come last and win."""
    windows = [part for name, value in WINDOWS.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return [
        *(str(data), "--user-dir", PLUGIN, "--task", "squad", "--criterion", "span_qa", *TINY, *windows),
        *"--optimizer hmtl_adamw --lr 3e-3 --lr-scheduler fixed --seed 3 --cpu --num-workers 0 --batch-size 32".split(),
        *"--best-checkpoint-metric score --maximize-best-checkpoint-metric --no-epoch-checkpoints".split(),
        *("--save-dir", str(save_dir), "--init-std", "0.2", "--dropout", "0", "--attention-dropout", "0"),
        *("--head-dropout", "0", *extra),
    ]


class Trained(NamedTuple):
    """A model that knows its questions.

    Attributes:
        data: prepared; dev: the file of its validation set.
        folder: with ``checkpoint_best.pt``, and what `SquadExperiment.finish` leaves, ``model.pt`` and the official
            files.
        lines: what `train` logged; metrics: what ``finish`` measured.
    """

    version_2: bool
    data: Path
    dev: Path
    folder: Path
    lines: list[dict[str, float]]
    metrics: dict[str, float]

    @property
    def best(self) -> dict[str, float]:
        """The validation with the best score."""
        return max((line for line in self.lines if "valid_score" in line), key=lambda line: line["valid_score"])


def train_words(folder: Path, tokenizer: Tokenizer, version_2: bool) -> Trained:
    """Make data in ``folder`` and train on it."""
    files = [
        named_words(folder / f"{name}.json", seed, contexts, version_2)
        for seed, (name, contexts) in enumerate((("train", 300), ("dev", 60)))
    ]
    data, save_dir = folder / "data", folder / "run"
    prepare_squad(*files, None, data, tokenizer.dictionary(), tokenizer, 1)
    flags = ["--version-2"] if version_2 else []
    lines = train(arguments(data, save_dir, "--max-epoch", "7" if version_2 else "4", *flags))
    save_for_use(save_dir / "checkpoint_best.pt", save_dir / "model.pt", {})
    metrics = experiment(data, save_dir, version_2).finish(save_dir, save_dir / "model.pt")
    return Trained(version_2, data, files[1], save_dir, lines, metrics)


def experiment(data: Path, save_dir: Path, version_2: bool) -> SquadExperiment:
    """On prepared data, with the checkpoint of a run."""
    start = PretrainedCheckpoint.find(save_dir)
    settings = Settings(start, str(save_dir), save_dir / "results.jsonl", "tiny", [3], autocast="none")
    manifest = read_squad_manifest(data)
    assert manifest is not None
    return SquadExperiment(save_dir, data, manifest, version_2, WINDOWS, False, settings)
