"""Multinomial logistic regression, one sample a step.

IST Deep Learning 2023/24, homework 1, question 1.1b; with other initial weights also the softmax regression
of the University of Padova's homework 1, exercise 3.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dl_lab.from_scratch.parameters import check_lr, check_sizes, copy_parameters, load_parameters
from dl_lab.from_scratch.rank_one import subtract_outer
from dl_lab.from_scratch.samples import checked_features, checked_labels, float_blocks, float_rows
from dl_lab.from_scratch.softmax import cross_entropy_step, softmax


class LogisticRegression:
    """(n, n_features) -> (n,) classes: p = softmax(W x), the largest p, the first one on a tie.

    W (n_classes, n_features + 1); the last column belongs to the constant feature 1 (none of it without
    `bias`). It starts from zeros or from `initial`, an array of that shape (see `uniform`).

    `guard` is added to the probability in the reported loss, -log(p[y] + guard), as some sources do against
    log 0. The cross-entropy here needs no such help, and the gradient (p - onehot(y)) xᵀ is the one without.
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        lr: float,
        *,
        bias: bool = True,
        initial: ArrayLike | None = None,
        guard: float = 0.0,
    ) -> None:
        check_sizes(n_features=n_features, n_classes=n_classes)
        check_lr(lr)
        if guard < 0:
            raise ValueError(f"guard must not be negative, got {guard}")
        self.n_features = n_features
        self.n_classes = n_classes
        self.lr = lr
        self.bias = bias
        self.guard = guard
        self.W = np.zeros((n_classes, n_features + bias))
        self._scores = np.empty(n_classes)
        self._buffer = np.empty_like(self.W)
        if initial is not None:
            self.load_state_dict({"W": initial})

    def update(self, x: ArrayLike, y: ArrayLike) -> float:
        """Learns from x (n, n_features), y (n,) sample by sample in this order.

        Returns the sum of the samples' losses, each one before its own step.
        """
        x = checked_features(x, self.n_features)
        labels = checked_labels(y, len(x), self.n_classes)
        loss = 0.0
        for x_i, y_i in zip(float_rows(x, self.bias), labels, strict=True):
            loss += self._step(x_i, y_i)
        return loss

    def _step(self, x_i: NDArray[np.float64], y_i: int) -> float:
        error = np.dot(self.W, x_i, out=self._scores)
        loss = cross_entropy_step(error, y_i)  # error: p - onehot(y)
        subtract_outer(self.W, self.lr, error, x_i, self._buffer)  # W -= lr (p - onehot(y)) xᵀ
        return loss if self.guard == 0 else -float(np.log(np.exp(-loss) + self.guard))

    def probabilities(self, x: ArrayLike) -> NDArray[np.float64]:
        """(n, n_features) -> (n, n_classes), rows that sum to 1."""
        x = checked_features(x, self.n_features)
        return np.concatenate([softmax(block @ self.W.T) for block in float_blocks(x, self.bias)])

    def predict(self, x: ArrayLike) -> NDArray[np.int64]:
        """(n, n_features) -> (n,) classes."""
        x = checked_features(x, self.n_features)
        return np.concatenate([(block @ self.W.T).argmax(axis=1) for block in float_blocks(x, self.bias)])

    def state_dict(self) -> dict[str, NDArray[np.float64]]:
        return copy_parameters({"W": self.W})

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        load_parameters({"W": self.W}, state)


def uniform(n_features: int, n_classes: int, bound: float, seed: int | Sequence[int]) -> NDArray[np.float64]:
    """Initial W (n_classes, n_features + 1), uniform in [-bound, bound).

    Drawn as the Padova homework does: first the weights, an array (n_features, n_classes), then the n_classes
    biases. NumPy's legacy generator: seed [42], a list, starts another stream than seed 42.
    """
    random = np.random.RandomState(seed)
    weights = random.uniform(-bound, bound, (n_features, n_classes))
    biases = random.uniform(-bound, bound, n_classes)
    return np.column_stack([weights.T, biases])
