"""The step that every gradient rule here takes: a rank-one update in place."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def subtract_outer(W: Floats, lr: float, column: Floats, row: Floats, buffer: Floats) -> None:
    """Do W -= lr * np.outer(column, row), bit for bit, without allocating memory.

    The matrix product of a column and a row has one term per entry: BLAS rounds it as np.outer does, in half the time.
    BLAS also has the whole step as one call (dger), three times faster still. But dger rounds once where the formula
    rounds three times, and the difference shows: the MLP's training from weights N(.1, .1^2) is chaotic, and on 5,654
    OCT images a difference in the last bits became 1 % of the first epoch's loss.

    Args:
        W: The weights (rows, columns), which change.
        lr: Learning rate.
        column: (rows,).
        row: (columns,).
        buffer: Work space of the shape of W.
    """
    np.dot(column[:, None], row[None, :], out=buffer)
    buffer *= lr
    W -= buffer
