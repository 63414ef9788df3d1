"""Area under the ROC curve from counts: a histogram of log-odds adds up over batches, ranks and bootstrap draws.

Scikit-learn's `roc_auc_score` would need every score in one place.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BINS, _RANGE = 512, 6.0


def score_bin(selected_M2: Tensor, labels_M: Tensor) -> Tensor:
    """(M,) int64 place of each log-odds in a histogram of 2 * BINS counts, those of label 0 first; no device
    synchronisation.
    """
    odds_M = (selected_M2[:, 1] - selected_M2[:, 0]).detach().clamp(-_RANGE, _RANGE)
    # a loss that is not finite is reported as such, not as an index out of range here
    return ((torch.nan_to_num(odds_M) + _RANGE) * ((BINS - 1) / (2 * _RANGE))).long() + labels_M * BINS


def histogram(selected_M2: Tensor, labels_M: Tensor) -> Tensor:
    """(2 * BINS,) counts of the log-odds."""
    counts = torch.zeros(2 * BINS, device=selected_M2.device)
    return counts.index_add_(0, score_bin(selected_M2, labels_M), torch.ones_like(selected_M2[:, 0]))


def one_hot(selected_M2: Tensor, labels_M: Tensor) -> Tensor:
    """(M, 2 * BINS) uint8, the histogram of each."""
    result = torch.zeros(len(labels_M), 2 * BINS, dtype=torch.uint8)
    result[torch.arange(len(labels_M)), score_bin(selected_M2, labels_M)] = 1
    return result


def area_under_curve(histogram: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(...) probability that a 1 scores above a 0, ties counting one half, of (..., 2 * BINS) counts; NaN without
    either.
    """
    negative, positive = histogram[..., :BINS], histogram[..., BINS:]
    below = np.cumsum(negative, -1) - 0.5 * negative
    with np.errstate(invalid="ignore"):
        area: npt.NDArray[np.float64] = (positive * below).sum(-1) / (positive.sum(-1) * negative.sum(-1))
    return area
