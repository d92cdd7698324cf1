"""What every NumPy model asks of its samples, and the samples as float64 rows.

All arithmetic is float64: that is what `uint8 / 256` gives in the IST skeleton. The bias feature, a constant
1, comes last (the 785th), as the skeleton appends it.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK = 256  # rows converted at a time: 1.6 MB of 785 features stay in the cache, all of them are 612 MB


def checked_features(x: ArrayLike, n_features: int) -> NDArray:
    """x as an array (n, n_features) of finite numbers, not copied; else ValueError."""
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


def checked_labels(y: ArrayLike, n_samples: int, n_classes: int) -> list[int]:
    """y as a list of n_samples whole numbers in 0 .. n_classes - 1; else ValueError."""
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


def float_blocks(x: NDArray, bias: bool) -> Iterator[NDArray[np.float64]]:
    """The samples (n, features) in order, as float64 blocks (<= 256, features [+ 1]); an empty one for n = 0.

    The buffer is reused: a block is valid until the next one is asked for.
    """
    n_samples, n_features = x.shape
    buffer = np.ones((min(BLOCK, n_samples), n_features + bias))
    for start in range(0, max(n_samples, 1), BLOCK):
        rows = x[start : start + BLOCK]
        buffer[: len(rows), :n_features] = rows
        yield buffer[: len(rows)]


def float_rows(x: NDArray, bias: bool) -> Iterator[NDArray[np.float64]]:
    """The samples one by one, (features [+ 1],) each; valid until the next one is asked for."""
    for block in float_blocks(x, bias):
        yield from block


def _check_finite(x: NDArray) -> None:
    # A sum is finite only if its terms are: one pass without a mask as large as x. The reverse fails for huge
    # values that overflow together, so a suspect is looked at again.
    with np.errstate(over="ignore", invalid="ignore"):
        suspects = np.flatnonzero(~np.isfinite(x.sum(axis=1)))
    for i in suspects:
        if not np.isfinite(x[i]).all():
            raise ValueError(f"x has NaN or infinity in sample {i}")
