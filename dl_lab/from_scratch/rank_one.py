"""The step of every gradient rule here: a rank-one update, in place."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def subtract_outer(W: Floats, lr: float, column: Floats, row: Floats, buffer: Floats) -> None:
    """W -= lr * np.outer(column, row), bit for bit, without allocating; `buffer` has the shape of W.

    The matrix product of a column and a row has one term per entry, so whatever BLAS does it rounds as
    np.outer does, in half the time. BLAS also has the whole step as one call (dger), a third faster again,
    but it rounds once where this rounds three times. That matters: from weights N(.1, .1^2) the MLP's first
    epoch on OCTMNIST is chaotic, and a last bit becomes a percent of the loss.
    """
    np.dot(column[:, None], row[None, :], out=buffer)
    buffer *= lr
    W -= buffer
