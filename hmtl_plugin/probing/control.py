"""Control task (Hewitt and Liang 2019): labels that only a probe which memorises words can know.

The label of a sentence is a fixed random function of the type of its first word (its first character where the text has
no blanks). What a probe scores on it, it owes to word identity and its own capacity; selectivity is the accuracy on the
task less that on the control. Labels are as frequent in ``tr`` as the task's: a few words begin many sentences, and an
unlucky draw for them would make the control easy without any memory.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hmtl_plugin.probing.tasks import ProbingTask

MAX_CLASSES = 100  # with more, too few rows a label to memorise anything
_CHUNK = 4096


def control_labels(task: ProbingTask, seed: int) -> npt.NDArray[np.int32]:
    """(N,) labels in place of the task's, the same for the same word, file and seed."""
    share_C = np.bincount(task.label_N[task.rows("tr")], minlength=len(task.labels)) / task.sizes[0]
    counts: Counter[str] = Counter()
    for _, words in _words(task, task.rows("tr")):
        counts.update(words)
    label_of = _assign(counts, share_C, seed)
    labels = np.empty(len(task), dtype=np.int32)
    edges = np.cumsum(share_C)[:-1]
    for rows, words in _words(task, slice(0, len(task))):
        labels[rows] = [
            label_of[word] if word in label_of else np.searchsorted(edges, _uniform(word, seed), side="right")
            for word in words
        ]
    return labels


def control_word(sentence: str) -> str:
    """What decides the label."""
    words = sentence.split(maxsplit=1)
    return words[0] if len(words) > 1 else sentence[:1]


def _assign(counts: Counter[str], share_C: npt.NDArray[np.float64], seed: int) -> dict[str, int]:
    """Words in order of frequency; each draws among the labels by what they still lack of their share."""
    lacking_C = share_C * counts.total()
    label_of = {}
    for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        edges = np.cumsum(np.maximum(lacking_C, 0))
        label = int(np.searchsorted(edges[:-1], _uniform(word, seed) * edges[-1], side="right"))
        label_of[word] = label
        lacking_C[label] -= count
    return label_of


def _words(task: ProbingTask, rows: slice) -> Iterator[tuple[npt.NDArray[np.int64], list[str]]]:
    for start in range(rows.start, rows.stop, _CHUNK):
        chunk = np.arange(start, min(rows.stop, start + _CHUNK))
        yield chunk, [control_word(sentence) for sentence in task.sentences(chunk)]


def _uniform(word: str, seed: int) -> float:
    """In [0, 1), a fixed function of the word."""
    digest = hashlib.blake2b(f"{seed}:{word}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "little") / 2**48
