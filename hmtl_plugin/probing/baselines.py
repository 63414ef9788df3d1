"""What needs no encoder: the most frequent label, and naive Bayes on words (the bag-of-words baseline of Conneau et al.
2018).
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hmtl_plugin.probing.tasks import ProbingTask

_CHUNK = 4096
_CELLS = 1 << 24  # of the table classes x words (128 MB)
_SMOOTHING = (0.01, 0.1, 1.0)


def majority(task: ProbingTask, labels_N: npt.NDArray[np.int32] | None = None) -> npt.NDArray[np.bool_]:
    """(test rows,) whether the most frequent label of ``tr`` is right; of other labels than the task's if given."""
    labels_N = task.label_N if labels_N is None else labels_N
    counts = np.bincount(labels_N[task.rows("tr")], minlength=len(task.labels))
    return np.asarray(labels_N[task.rows("te")] == counts.argmax())


def bag_of_words(task: ProbingTask) -> npt.NDArray[np.bool_]:
    """(test rows,) whether multinomial naive Bayes on hashed words is right; its smoothing is chosen on ``va``.

    Words are split off by scikit-learn, case and punctuation kept. Rows are streamed.
    """
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.naive_bayes import MultinomialNB

    width = int(np.clip(2 ** int(np.log2(_CELLS / len(task.labels))), 2**10, 2**18))
    words = HashingVectorizer(
        n_features=width, alternate_sign=False, norm=None, lowercase=False, token_pattern=r"\w+|[^\w\s]"
    )
    classes, labels_N = np.arange(len(task.labels)), task.label_N
    valid, best = -1.0, np.zeros(task.sizes[2], dtype=bool)
    for alpha in _SMOOTHING:
        model = MultinomialNB(alpha=alpha)
        for rows in _chunks(task, "tr"):
            model.partial_fit(words.transform(task.sentences(rows)), labels_N[rows], classes)
        va, te = (
            np.concatenate([model.predict(words.transform(task.sentences(r))) == labels_N[r] for r in _chunks(task, s)])
            for s in ("va", "te")
        )
        if va.mean() > valid:
            valid, best = float(va.mean()), te
    return best


def _chunks(task: ProbingTask, split: str) -> Iterator[npt.NDArray[np.int64]]:
    rows = task.rows(split)
    for start in range(rows.start, rows.stop, _CHUNK):
        yield np.arange(start, min(rows.stop, start + _CHUNK))
