"""Numbers like -999 that stand for "no value" in a column of measurements."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MARKERS = (-200.0, -999.0, -9999.0, -99999.0, -99.0, -99.9, -999.9, 999999.0, 9999999.0)


class Marker(NamedTuple):
    """A number that probably stands for "no value".

    Attributes:
        value: The number.
        n: How often it occurs.
        first: The row of its first occurrence.
        low: The least of the other values.
        high: The greatest of the other values.
    """

    value: float
    n: int
    first: int
    low: float
    high: float


def find_marker(values: np.ndarray) -> Marker | None:
    """Find the common marker in a column.

    A marker occurs at least twice, and is further away from all other values than these are from each other.

    Args:
        values: The column (n,), with NaN for cells that are known to be empty.

    Returns:
        The marker; None where the column has none.
    """
    for marker in MARKERS:
        same = values == marker
        others = values[np.isfinite(values) & ~same]
        if same.sum() < 2 or not len(others):
            continue
        low = float(others.min())
        high = float(others.max())
        if not low - (high - low) <= marker <= high + (high - low):
            return Marker(marker, int(same.sum()), int(np.flatnonzero(same)[0]), low, high)
    return None
