"""Check the samples of a NumPy model, and hand them out as float64 rows.

All arithmetic is float64, the type of `uint8 / 256` in the IST course's skeleton. The bias feature, a constant 1, comes
last (the 785th), where the skeleton appends it.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK = 256  # rows converted at a time: with 785 features they take 1.6 MB and stay in the cache


def check_features(x: ArrayLike, n_features: int) -> NDArray:
    """Return the samples x as an array (n, n_features), not copied.

    Raises:
        ValueError: x has another shape, or holds something else than finite numbers.
    """
    x = np.asarray(x)
    if x.ndim != 2:
        raise ValueError(f"x must have the shape (n, {n_features}), got {x.shape}")
    if x.shape[1] != n_features:
        raise ValueError(f"x has {x.shape[1]} features, the model was built for {n_features}")
    if x.dtype.kind not in "buif":
        raise ValueError(f"x must hold numbers, got {x.dtype}")
    if x.dtype.kind == "f":
        _check_finite(x)
    return x


def check_labels(y: ArrayLike, n_samples: int, n_classes: int) -> list[int]:
    """Return the labels y as a list.

    Args:
        y: Labels (n_samples,), whole numbers in 0 .. n_classes - 1.
        n_samples: How many there must be.
        n_classes: Number of classes.

    Raises:
        ValueError: Their number is another, or a label is no such number.
    """
    y = np.asarray(y)
    if y.ndim != 1:
        raise ValueError(f"y must hold one label per sample, shape (n,), got {y.shape}")
    if len(y) != n_samples:
        raise ValueError(f"x has {n_samples} samples, y has {len(y)} labels")
    if n_samples and y.dtype.kind not in "bui":
        raise ValueError(f"labels must be whole numbers, got {y.dtype}")
    wrong = np.flatnonzero((y < 0) | (y >= n_classes))
    if wrong.size:
        raise ValueError(f"label {y[wrong[0]]} of sample {wrong[0]} is not one of 0 .. {n_classes - 1}")
    return [int(label) for label in y.tolist()]


def float_blocks(x: NDArray, bias: bool, size: int = BLOCK) -> Iterator[NDArray[np.float64]]:
    """Yield the samples in order as float64 blocks.

    The blocks share one buffer: a block is valid until the next one is asked for.

    Args:
        x: Samples (n, features).
        bias: Whether a constant feature 1 follows the others.
        size: Rows of a block at most.

    Yields:
        A block (at most `size`, features), with one column more for `bias`; one empty block if n is 0.
    """
    n_samples, n_features = x.shape
    buffer = np.ones((min(size, n_samples), n_features + bias))
    for start in range(0, max(n_samples, 1), size):
        rows = x[start : start + size]
        buffer[: len(rows), :n_features] = rows
        yield buffer[: len(rows)]


def float_rows(x: NDArray, bias: bool) -> Iterator[NDArray[np.float64]]:
    """Yield the samples one by one, as `float_blocks` does; a row is valid until the next one is asked for."""
    for block in float_blocks(x, bias):
        yield from block


def mini_batches(
    x: NDArray, labels: list[int], size: int, bias: bool
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Yield the samples and their labels in order; the last batch holds the samples that are left.

    Args:
        x: Samples (n, features).
        labels: Their labels.
        size: Samples of a batch.
        bias: Whether a constant feature 1 follows the others.

    Yields:
        Rows (at most `size`, features), with one column more for `bias`, and labels (at most `size`,). The rows are
        valid until the next batch is asked for.
    """
    y = np.array(labels, dtype=np.int64)
    if not labels:
        return
    for i, rows in enumerate(float_blocks(x, bias, size)):
        yield rows, y[i * size : (i + 1) * size]


def _check_finite(x: NDArray) -> None:
    # A sum is finite only if its terms are, so one pass needs no mask as large as x. Huge finite values can add up to
    # infinity, so each suspect is checked again by itself.
    with np.errstate(over="ignore", invalid="ignore"):
        suspects = np.flatnonzero(~np.isfinite(x.sum(axis=1)))
    for i in suspects:
        if not np.isfinite(x[i]).all():
            raise ValueError(f"x has NaN or infinity in sample {i}")
