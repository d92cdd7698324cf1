"""The score of the Numenta Anomaly Benchmark, by its published rules.

Source: A. Lavin, S. Ahmad, "Evaluating real-time anomaly detection algorithms: the Numenta Anomaly Benchmark", 2015,
section II, and the rules of its scorer (version 1.1). A labelled window earns the weight of its earliest detection; a
missed window costs. A detection outside costs by its distance from the window before. Rows of the probation are not
judged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Profile:
    """The weights of an application.

    Attributes:
        true_positive: What a found window earns.
        false_negative: What a missed window costs.
        false_positive: What a false detection costs at most.
    """

    true_positive: float = 1.0
    false_negative: float = 1.0
    false_positive: float = 0.11


PROFILES = {
    "standard": Profile(),
    "reward_low_FP_rate": Profile(false_positive=0.22),
    "reward_low_FN_rate": Profile(false_negative=2.0),
}


def scaled_sigmoid(position: float) -> float:
    """Return 2 sigmoid(-5 position) - 1: +1 well before the right edge of a window (0), -1 well behind it."""
    return -1.0 if position >= 3 else 2 / (1 + math.exp(5 * position)) - 1


def probation(n_rows: int, share: float = 0.15) -> int:
    """Return how many rows at the start are not judged: 15 %, at most 750."""
    return int(min(math.floor(share * n_rows), share * 5000))


def row_weights(n_rows: int, labelled: Sequence[tuple[int, int]], profile: Profile) -> np.ndarray:
    """Return the worth of a detection at each row, (n_rows,).

    Args:
        n_rows: Rows of the series.
        labelled: (first row, last row) of each window, in order, both inclusive.
        profile: The weights of the application.
    """
    weights = np.empty(n_rows)
    best = scaled_sigmoid(-1.0)
    for row in range(n_rows):
        inside = next((w for w in labelled if w[0] <= row <= w[1]), None)
        if inside:
            first, last = inside
            position = -(last - row + 1) / (last - first + 1)
            weights[row] = profile.true_positive * scaled_sigmoid(position) / best
            continue
        before = [w for w in labelled if w[1] < row]
        width = before[-1][1] - before[-1][0] if before else 0
        position = (row - before[-1][1]) / width if width else 3.0
        weights[row] = profile.false_positive * scaled_sigmoid(position)
    return weights


def nab_score(
    detected: np.ndarray,
    labelled: Sequence[tuple[int, int]],
    profile: Profile,
    weights: np.ndarray | None = None,
) -> float:
    """Return the normalised score: 0 without a detection, 100 for perfect detections.

    A window that lies wholly in the probation does not count.

    Args:
        detected: Which rows are called anomalous, (n_rows,) bool.
        labelled: (first row, last row) of each window, in order, both inclusive.
        profile: The weights of the application.
        weights: The weights of the rows, if they are known already.

    Raises:
        ValueError: No window lies after the probation.
    """
    start = probation(len(detected))
    judged = [window for window in labelled if window[1] >= start]
    if not judged:
        raise ValueError("no labelled window lies after the probation")
    if weights is None:
        weights = row_weights(len(detected), labelled, profile)
    outside = detected.copy()
    outside[:start] = False
    raw = 0.0
    for first, last in judged:
        rows = np.flatnonzero(outside[first : last + 1]) + first
        raw += weights[rows].max() if len(rows) else -profile.false_negative
        outside[first : last + 1] = False
    raw += weights[outside].sum()
    null = -profile.false_negative * len(judged)
    perfect = profile.true_positive * len(judged)
    return 100 * (raw - null) / (perfect - null)


def best_score(scores: np.ndarray, labelled: Sequence[tuple[int, int]], profile: Profile) -> float:
    """Return the score at the best of 200 thresholds, in hindsight: the benchmark's own table chooses by the labels."""
    weights = row_weights(len(scores), labelled, profile)
    thresholds = [*np.unique(np.quantile(scores[np.isfinite(scores)], np.linspace(0.5, 1, 200))), np.inf]
    return max(nab_score(scores >= threshold, labelled, profile, weights) for threshold in thresholds)
