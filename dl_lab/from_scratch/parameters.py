"""The parameters of a NumPy model, out and in: a mapping from name to array."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray


def copy_parameters(parameters: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Copies, which later updates leave alone."""
    return {name: values.copy() for name, values in parameters.items()}


def load_parameters(parameters: Mapping[str, NDArray[np.float64]], state: Mapping[str, ArrayLike]) -> None:
    """Overwrites the arrays by those of `state`; ValueError, nothing changed, if names or shapes differ."""
    if parameters.keys() != state.keys():
        raise ValueError(f"the state holds {sorted(state)}, the model {sorted(parameters)}")
    loaded = {name: np.asarray(values, dtype=np.float64) for name, values in state.items()}
    for name, values in parameters.items():
        if loaded[name].shape != values.shape:
            raise ValueError(f"{name} must have the shape {values.shape}, the state has {loaded[name].shape}")
    for name, values in parameters.items():
        values[...] = loaded[name]


def check_sizes(**sizes: int) -> None:
    """Every size of a layer is at least 1; else ValueError."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")


def check_lr(lr: float) -> None:
    """The learning rate is positive and finite; else ValueError."""
    if not 0 < lr < np.inf:
        raise ValueError(f"lr must be positive and finite, got {lr}")
