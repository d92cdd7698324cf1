"""Two layers of sigmoids, learning by squared error (Padova, Deep Learning 2022/23, homework 1, ex. 2)."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dl_lab.from_scratch.parameters import check_lr, check_sizes, copy_parameters, load_parameters
from dl_lab.from_scratch.samples import checked_features, checked_labels, float_blocks, float_rows
from dl_lab.from_scratch.sigmoid_unit import sigmoid


class TwoLayer:
    """(n, n_features) -> (n,) classes 0, 1: sigmoid(sigmoid(x W1) w2) >= .5, no biases.

    W1 (n_features, hidden), then w2 (hidden,), uniform in [-1, 1) from NumPy's legacy generator, after its
    first `drawn_before` numbers: in the source the single unit of three weights has drawn from the same
    stream.
    """

    def __init__(
        self, n_features: int, hidden: int, lr: float, seed: int | Sequence[int], drawn_before: int = 0
    ) -> None:
        check_sizes(n_features=n_features, hidden=hidden)
        check_lr(lr)
        random = np.random.RandomState(seed)
        random.uniform(size=drawn_before)
        self.n_features = n_features
        self.lr = lr
        self.W1 = random.uniform(-1.0, 1.0, (n_features, hidden))
        self.w2 = random.uniform(-1.0, 1.0, hidden)

    def update(self, x: ArrayLike, y: ArrayLike) -> float:
        """Learns from x (n, n_features), y (n,) of 0 and 1 sample by sample in this order.

        Returns the sum of the samples' squared errors (y - ŷ)^2, each one before its own step. The step
        descends half of that, the source's convention.
        """
        x = checked_features(x, self.n_features)
        labels = checked_labels(y, len(x), n_classes=2)
        loss = 0.0
        for x_i, y_i in zip(float_rows(x, bias=False), labels, strict=True):
            loss += self._step(x_i, y_i)
        return loss

    def _step(self, x_i: NDArray[np.float64], y_i: int) -> float:
        h = sigmoid(x_i @ self.W1)
        output = sigmoid(h @ self.w2)
        error = y_i - output
        delta2 = error * output * (1.0 - output)
        delta1 = delta2 * self.w2 * h * (1.0 - h)  # by w2 before its own step
        self.w2 += self.lr * delta2 * h
        self.W1 += self.lr * np.outer(x_i, delta1)
        return float(error**2)

    def outputs(self, x: ArrayLike) -> NDArray[np.float64]:
        """(n, n_features) -> (n,) in (0, 1)."""
        x = checked_features(x, self.n_features)
        blocks = float_blocks(x, bias=False)
        return np.concatenate([sigmoid(sigmoid(block @ self.W1) @ self.w2) for block in blocks])

    def predict(self, x: ArrayLike) -> NDArray[np.int64]:
        """(n, n_features) -> (n,) classes 0, 1."""
        return (self.outputs(x) >= 0.5).astype(np.int64)

    def _parameters(self) -> dict[str, NDArray[np.float64]]:
        return {"W1": self.W1, "w2": self.w2}

    def state_dict(self) -> dict[str, NDArray[np.float64]]:
        return copy_parameters(self._parameters())

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        load_parameters(self._parameters(), state)
