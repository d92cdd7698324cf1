"""Multilayer perceptron with one hidden layer and hand-written back-propagation.

Source: IST Deep Learning 2023/24, homework 1, question 1.2b: 784-200-4, weights N(.1, .1^2), biases 0, batch size 1.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dl_lab.from_scratch.parameters import check_lr, check_sizes, copy_parameters, load_parameters
from dl_lab.from_scratch.rank_one import subtract_outer
from dl_lab.from_scratch.samples import check_features, check_labels, float_blocks, float_rows, mini_batches
from dl_lab.from_scratch.softmax import cross_entropy_rows, cross_entropy_step, softmax


class MLP:
    """p = softmax(W2 relu(W1 x + b1) + b2); the class is the largest p, the first on a tie: (n, n_features) -> (n,).

    With a batch size of 1 a step rounds exactly as `W1 -= lr * np.outer(dz1, x)` and the other plain formulas do.

    Args:
        n_features: Features of a sample.
        n_classes: Number of classes.
        hidden: Number of hidden units.
        lr: Learning rate, positive and finite.
        seed: Seed of NumPy's legacy generator, which draws W1, then W2, as the course's skeleton does.
        mean: Mean of the initial weights.
        std: Standard deviation of the initial weights.
        batch_size: Samples whose mean gradient a step descends; 1 as in the source.

    Attributes:
        W1: Weights of the hidden layer, (hidden, n_features).
        b1: Biases of the hidden layer, (hidden,).
        W2: Weights of the output layer, (n_classes, hidden).
        b2: Biases of the output layer, (n_classes,).
        n_right: Samples of the last `update` that were classified right, each before its own step.

    Raises:
        ValueError: A size is below 1, or `lr` is not positive and finite.
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
        batch_size: int = 1,
    ) -> None:
        check_sizes(n_features=n_features, n_classes=n_classes, hidden=hidden, batch_size=batch_size)
        check_lr(lr)
        random = np.random.RandomState(seed)
        self.n_features = n_features
        self.n_classes = n_classes
        self.n_right = 0
        self.lr = lr
        self.batch_size = batch_size
        self.W1 = random.normal(mean, std, (hidden, n_features))
        self.b1 = np.zeros(hidden)
        self.W2 = random.normal(mean, std, (n_classes, hidden))
        self.b2 = np.zeros(n_classes)
        # Work space, so that a step allocates nothing.
        self._h = np.empty(hidden)
        self._dz1 = np.empty(hidden)
        self._z2 = np.empty(n_classes)
        self._buffer1 = np.empty_like(self.W1)
        self._buffer2 = np.empty_like(self.W2)

    def update(self, x: ArrayLike, y: ArrayLike) -> float:
        """Learn in the order given, `batch_size` samples a step; the last step takes the samples that are left.

        Args:
            x: Samples (n, n_features).
            y: Classes (n,), whole numbers in 0 .. n_classes - 1.

        Returns:
            The sum of the samples' cross-entropies, each before its own step.

        Raises:
            ValueError: The samples or the classes do not fit the model.
        """
        x = check_features(x, self.n_features)
        labels = check_labels(y, len(x), self.n_classes)
        loss = 0.0
        self.n_right = 0
        if self.batch_size > 1:
            return sum(self._step_batch(*batch) for batch in mini_batches(x, labels, self.batch_size, bias=False))
        for x_i, y_i in zip(float_rows(x, bias=False), labels, strict=True):
            loss += self._step(x_i, y_i)
        return loss

    def _step(self, x_i: NDArray[np.float64], y_i: int) -> float:
        h = np.dot(self.W1, x_i, out=self._h)  # h = relu(W1 x + b1)
        h += self.b1
        np.maximum(h, 0.0, out=h)
        z2 = np.dot(self.W2, h, out=self._z2)  # z2 = W2 h + b2
        z2 += self.b2
        self.n_right += int(z2.argmax() == y_i)

        loss = cross_entropy_step(z2, y_i)
        dz2 = z2  # dL/dz2 = p - onehot(y) has replaced z2
        dz1 = np.dot(self.W2.T, dz2, out=self._dz1)  # dL/dz1 = W2ᵀ dz2 * relu'(z1), with W2 before its step
        dz1 *= h > 0.0

        subtract_outer(self.W2, self.lr, dz2, h, self._buffer2)  # W2 -= lr dz2 hᵀ
        subtract_outer(self.W1, self.lr, dz1, x_i, self._buffer1)  # W1 -= lr dz1 xᵀ
        dz2 *= self.lr
        dz1 *= self.lr
        self.b2 -= dz2
        self.b1 -= dz1
        return loss

    def _step_batch(self, x: NDArray[np.float64], y: NDArray[np.int64]) -> float:
        h = np.maximum(x @ self.W1.T + self.b1, 0.0)  # (n, hidden)
        z2 = h @ self.W2.T + self.b2  # (n, n_classes)
        self.n_right += int((z2.argmax(axis=1) == y).sum())
        losses = cross_entropy_rows(z2, y)
        dz2 = z2 / len(y)  # the gradient of the mean loss: (p - onehot(y)) / n
        dz1 = (dz2 @ self.W2) * (h > 0.0)  # with W2 before its step

        self.W2 -= self.lr * (dz2.T @ h)
        self.W1 -= self.lr * (dz1.T @ x)
        self.b2 -= self.lr * dz2.sum(axis=0)
        self.b1 -= self.lr * dz1.sum(axis=0)
        return float(losses.sum())

    def _scores(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.maximum(x @ self.W1.T + self.b1, 0.0) @ self.W2.T + self.b2

    def probabilities(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities (n, n_classes) of the classes for x (n, n_features)."""
        x = check_features(x, self.n_features)
        return np.concatenate([softmax(self._scores(block)) for block in float_blocks(x, bias=False)])

    def predict(self, x: ArrayLike) -> NDArray[np.int64]:
        """Return the classes (n,) of x (n, n_features)."""
        x = check_features(x, self.n_features)
        return np.concatenate([self._scores(block).argmax(axis=1) for block in float_blocks(x, bias=False)])

    def _parameters(self) -> dict[str, NDArray[np.float64]]:
        return {"W1": self.W1, "b1": self.b1, "W2": self.W2, "b2": self.b2}

    def state_dict(self) -> dict[str, NDArray[np.float64]]:
        """Return copies of the weights by name."""
        return copy_parameters(self._parameters())

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Load weights; raise ValueError if names or shapes differ."""
        load_parameters(self._parameters(), state)
