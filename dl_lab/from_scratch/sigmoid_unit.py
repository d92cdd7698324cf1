"""One sigmoid unit, learning by squared error (Padova, Deep Learning 2022/23, homework 1, exercise 1)."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dl_lab.from_scratch.parameters import check_lr, check_sizes, copy_parameters, load_parameters
from dl_lab.from_scratch.samples import checked_features, checked_labels, float_blocks, float_rows


def sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-z)); below -700, where exp(-z) would overflow, the value at -700 (1e-304)."""
    return 1.0 / (1.0 + np.exp(-np.maximum(z, -700.0)))


class SigmoidUnit:
    """(n, n_features) -> (n,) classes 0, 1: sigmoid(w x) >= .5.

    w (n_features,) uniform in [-1, 1) from NumPy's legacy generator: seed [42], a list, starts another stream
    than seed 42. With `bias` a last weight, 0 at first, belongs to a constant feature 1. Without it an
    all-zero sample gets sigmoid(0) = .5 whatever w is, and as its gradient is a multiple of x = 0 it teaches
    nothing either.
    """

    def __init__(self, n_features: int, lr: float, seed: int | Sequence[int], *, bias: bool = False) -> None:
        check_sizes(n_features=n_features)
        check_lr(lr)
        self.n_features = n_features
        self.lr = lr
        self.bias = bias
        self.w = np.zeros(n_features + bias)
        self.w[:n_features] = np.random.RandomState(seed).uniform(-1.0, 1.0, n_features)

    def update(self, x: ArrayLike, y: ArrayLike) -> float:
        """Learns from x (n, n_features), y (n,) of 0 and 1 sample by sample in this order.

        Returns the sum of the samples' squared errors (y - ŷ)^2, each one before its own step. The step
        descends half of that, the source's convention.
        """
        x = checked_features(x, self.n_features)
        labels = checked_labels(y, len(x), n_classes=2)
        loss = 0.0
        for x_i, y_i in zip(float_rows(x, self.bias), labels, strict=True):
            output = sigmoid(x_i @ self.w)
            error = y_i - output
            self.w += self.lr * (error * output * (1.0 - output)) * x_i  # d sigmoid(z) / dz = ŷ (1 - ŷ)
            loss += float(error**2)
        return loss

    def outputs(self, x: ArrayLike) -> NDArray[np.float64]:
        """(n, n_features) -> (n,) in (0, 1)."""
        x = checked_features(x, self.n_features)
        return np.concatenate([sigmoid(block @ self.w) for block in float_blocks(x, self.bias)])

    def predict(self, x: ArrayLike) -> NDArray[np.int64]:
        """(n, n_features) -> (n,) classes 0, 1."""
        return (self.outputs(x) >= 0.5).astype(np.int64)

    def state_dict(self) -> dict[str, NDArray[np.float64]]:
        return copy_parameters({"w": self.w})

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        load_parameters({"w": self.w}, state)
