"""Control labels: a function of the first word, as frequent as the task's; baselines that need no encoder."""

from pathlib import Path

import numpy as np

from hmtl_plugin.probing.baselines import bag_of_words, majority
from hmtl_plugin.probing.control import control_labels, control_word
from hmtl_plugin.probing.tasks import read_task
from tests.probing.texts import write_task


def task_of(tmp_path: Path, words: int = 400):
    """Zipfian first words; three labels, one half of the rows."""
    random = np.random.default_rng(0)
    rank = np.minimum(random.zipf(1.3, 3000), words)
    texts = [f"w{r} follows word {i}" for i, r in enumerate(rank)]
    labels = [["x", "x", "y", "z"][i % 4] for i in range(len(texts))]
    return read_task(write_task(tmp_path / "t.txt", texts, labels, (2000, 2500)))


def test_labels_are_a_function_of_the_first_word(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    labels, seen = control_labels(task, 1), {}
    for text, label in zip(task.sentences(range(len(task))), labels.tolist()):
        assert seen.setdefault(text.split()[0], label) == label
    assert (control_labels(task, 1) == labels).all() and (control_labels(task, 2) != labels).any()


def test_labels_are_as_frequent_as_the_tasks(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    for seed in range(1, 6):
        tr = control_labels(task, seed)[task.rows("tr")]
        assert np.abs(np.bincount(tr, minlength=3) / len(tr) - [0.5, 0.25, 0.25]).max() < 0.12


def test_text_without_blanks_has_characters() -> None:
    assert control_word("  The cat") == "The" and control_word("猫在垫子上") == "猫"


def test_words_tell_a_word_task_and_nothing_else(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    assert abs(bag_of_words(task).mean() - 0.5) < 0.1
    assert majority(task).mean() == 0.5
    texts = [f"some {w} here" for w in ["cat", "dog", "sun"] * 400]
    word_task = read_task(write_task(tmp_path / "w.txt", texts, ["c", "d", "s"] * 400))
    assert bag_of_words(word_task).mean() > 0.99
