"""Softmax and cross-entropy, without overflow."""

import numpy as np
from numpy.typing import NDArray


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp(s) / sum exp(s) over the last axis, the largest score taken off first: exp cannot overflow."""
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def cross_entropy_step(scores: NDArray[np.float64], y_i: int) -> float:
    """-log p[y_i] for p = softmax(scores) of one sample; leaves its gradient p - onehot(y_i) in `scores`.

    -log p[y] = log sum exp(s - max s) - (s[y] - max s): finite for any finite scores.
    """
    scores -= scores.max()
    score = float(scores[y_i])
    np.exp(scores, out=scores)
    total = np.add.reduce(scores)
    scores /= total
    scores[y_i] -= 1.0
    return float(np.log(total)) - score
