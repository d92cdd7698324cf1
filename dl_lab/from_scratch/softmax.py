"""Softmax and cross-entropy, without overflow."""

import numpy as np
from numpy.typing import NDArray


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return exp(s) / sum exp(s) over the last axis; the largest score is subtracted first, so exp cannot overflow."""
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def cross_entropy_rows(scores: NDArray[np.float64], y: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the cross-entropies -log p[y] of a mini-batch, (n,), and compute their gradients.

    Args:
        scores: Scores (n, n_classes); the gradients p - onehot(y) replace them.
        y: The classes of the samples, (n,).
    """
    rows = np.arange(len(y))
    scores -= scores.max(axis=1, keepdims=True)
    own = scores[rows, y].copy()
    np.exp(scores, out=scores)
    totals = scores.sum(axis=1)
    scores /= totals[:, None]
    scores[rows, y] -= 1.0
    return np.log(totals) - own


def cross_entropy_step(scores: NDArray[np.float64], y_i: int) -> float:
    """Return the cross-entropy -log p[y_i] of one sample, p = softmax(scores), and compute its gradient.

    -log p[y] = log sum exp(s - max s) - (s[y] - max s) is finite for any finite scores.

    Args:
        scores: Scores (n_classes,); the gradient p - onehot(y_i) replaces them.
        y_i: The class of the sample.
    """
    scores -= scores.max()
    score = float(scores[y_i])
    np.exp(scores, out=scores)
    total = np.add.reduce(scores)
    scores /= total
    scores[y_i] -= 1.0
    return float(np.log(total)) - score
