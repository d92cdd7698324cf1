"""Read, write and check the parameters of a NumPy model, a mapping from name to array."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray


def copy_parameters(parameters: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Return copies, which later updates do not change."""
    return {name: values.copy() for name, values in parameters.items()}


def load_parameters(parameters: Mapping[str, NDArray[np.float64]], state: Mapping[str, ArrayLike]) -> None:
    """Overwrite the arrays of `parameters` with those of `state`.

    Raises:
        ValueError: The names or the shapes differ; nothing has changed.
    """
    if parameters.keys() != state.keys():
        raise ValueError(f"the state holds {sorted(state)}, but the model has {sorted(parameters)}")
    loaded = {name: np.asarray(values, dtype=np.float64) for name, values in state.items()}
    for name, values in parameters.items():
        if loaded[name].shape != values.shape:
            raise ValueError(f"{name} must have the shape {values.shape}, the state has {loaded[name].shape}")
    for name, values in parameters.items():
        values[...] = loaded[name]


def check_sizes(**sizes: int) -> None:
    """Refuse a size of a layer that is below 1.

    Raises:
        ValueError: A size is below 1.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")


def check_lr(lr: float) -> None:
    """Refuse a learning rate that is not positive and finite.

    Raises:
        ValueError: The learning rate is not positive and finite.
    """
    if not 0 < lr < np.inf:
        raise ValueError(f"lr must be positive and finite, got {lr}")
