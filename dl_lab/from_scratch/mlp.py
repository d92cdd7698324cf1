"""Multilayer perceptron with one hidden layer and hand-written back-propagation.

IST Deep Learning 2023/24, homework 1, question 1.2b: 784-200-4, weights N(.1, .1^2), biases 0, batch size 1.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dl_lab.from_scratch.parameters import check_lr, check_sizes, copy_parameters, load_parameters
from dl_lab.from_scratch.rank_one import subtract_outer
from dl_lab.from_scratch.samples import checked_features, checked_labels, float_blocks, float_rows
from dl_lab.from_scratch.softmax import cross_entropy_step, softmax


class MLP:
    """(n, n_features) -> (n,) classes: the largest p = softmax(W2 relu(W1 x + b1) + b2), the first on a tie.

    W1 (hidden, n_features), b1 (hidden,), W2 (n_classes, hidden), b2 (n_classes,). The weights are drawn W1
    first, then W2, from NumPy's legacy generator, as the skeleton does.

    A step rounds exactly as `W1 -= lr * np.outer(dz1, x)` and the other formulas written plainly do.
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        hidden: int,
        lr: float,
        seed: int | Sequence[int],
        *,
        mean: float = 0.1,
        std: float = 0.1,
    ) -> None:
        check_sizes(n_features=n_features, n_classes=n_classes, hidden=hidden)
        check_lr(lr)
        random = np.random.RandomState(seed)
        self.n_features = n_features
        self.n_classes = n_classes
        self.lr = lr
        self.W1 = random.normal(mean, std, (hidden, n_features))
        self.b1 = np.zeros(hidden)
        self.W2 = random.normal(mean, std, (n_classes, hidden))
        self.b2 = np.zeros(n_classes)
        # Work space: a step allocates nothing.
        self._h, self._dz1, self._z2 = np.empty(hidden), np.empty(hidden), np.empty(n_classes)
        self._buffer1, self._buffer2 = np.empty_like(self.W1), np.empty_like(self.W2)

    def update(self, x: ArrayLike, y: ArrayLike) -> float:
        """Learns from x (n, n_features), y (n,) sample by sample in this order.

        Returns the sum of the samples' cross-entropies, each one before its own step.
        """
        x = checked_features(x, self.n_features)
        labels = checked_labels(y, len(x), self.n_classes)
        loss = 0.0
        for x_i, y_i in zip(float_rows(x, bias=False), labels, strict=True):
            loss += self._step(x_i, y_i)
        return loss

    def _step(self, x_i: NDArray[np.float64], y_i: int) -> float:
        h = np.dot(self.W1, x_i, out=self._h)  # h = relu(W1 x + b1)
        h += self.b1
        np.maximum(h, 0.0, out=h)
        z2 = np.dot(self.W2, h, out=self._z2)  # z2 = W2 h + b2
        z2 += self.b2

        loss = cross_entropy_step(z2, y_i)
        dz2 = z2  # dL/dz2 = p - onehot(y), left in place of z2
        dz1 = np.dot(self.W2.T, dz2, out=self._dz1)  # dL/dz1 = W2ᵀ dz2 * relu'(z1), by W2 before its own step
        dz1 *= h > 0.0

        subtract_outer(self.W2, self.lr, dz2, h, self._buffer2)  # W2 -= lr dz2 hᵀ
        subtract_outer(self.W1, self.lr, dz1, x_i, self._buffer1)  # W1 -= lr dz1 xᵀ
        dz2 *= self.lr
        dz1 *= self.lr
        self.b2 -= dz2
        self.b1 -= dz1
        return loss

    def _scores(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.maximum(x @ self.W1.T + self.b1, 0.0) @ self.W2.T + self.b2

    def probabilities(self, x: ArrayLike) -> NDArray[np.float64]:
        """(n, n_features) -> (n, n_classes), rows that sum to 1."""
        x = checked_features(x, self.n_features)
        return np.concatenate([softmax(self._scores(block)) for block in float_blocks(x, bias=False)])

    def predict(self, x: ArrayLike) -> NDArray[np.int64]:
        """(n, n_features) -> (n,) classes."""
        x = checked_features(x, self.n_features)
        return np.concatenate([self._scores(block).argmax(axis=1) for block in float_blocks(x, bias=False)])

    def _parameters(self) -> dict[str, NDArray[np.float64]]:
        return {"W1": self.W1, "b1": self.b1, "W2": self.W2, "b2": self.b2}

    def state_dict(self) -> dict[str, NDArray[np.float64]]:
        return copy_parameters(self._parameters())

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        load_parameters(self._parameters(), state)
