"""Two layers of sigmoids that learn by squared error (Padova, Deep Learning 2022/23, homework 1, exercise 2)."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dl_lab.from_scratch.parameters import check_lr, check_sizes, copy_parameters, load_parameters
from dl_lab.from_scratch.samples import check_features, check_labels, float_blocks, float_rows, mini_batches
from dl_lab.from_scratch.sigmoid_unit import sigmoid


class TwoLayer:
    """The class is 1 where sigmoid(sigmoid(x W1) w2) >= .5: (n, n_features) -> (n,) classes 0 and 1. No biases.

    A step descends half the mean squared error, as the source does.

    Args:
        n_features: Features of a sample.
        hidden: Number of hidden units.
        lr: Learning rate, positive and finite.
        seed: Seed of NumPy's legacy generator, which draws W1, then w2, uniform in [-1, 1).
        drawn_before: How many numbers of the stream are skipped. In the source the single unit of three weights has
            drawn from the same stream before.
        batch_size: Samples whose mean gradient a step descends; 1 as in the source.

    Attributes:
        W1: Weights of the hidden layer, (n_features, hidden).
        w2: Weights of the output unit, (hidden,).

    Raises:
        ValueError: A size is below 1, or `lr` is not positive and finite.
    """

    def __init__(
        self,
        n_features: int,
        hidden: int,
        lr: float,
        seed: int | Sequence[int],
        drawn_before: int = 0,
        batch_size: int = 1,
    ) -> None:
        check_sizes(n_features=n_features, hidden=hidden, batch_size=batch_size)
        check_lr(lr)
        random = np.random.RandomState(seed)
        random.uniform(size=drawn_before)
        self.n_features = n_features
        self.lr = lr
        self.batch_size = batch_size
        self.W1 = random.uniform(-1.0, 1.0, (n_features, hidden))
        self.w2 = random.uniform(-1.0, 1.0, hidden)

    def update(self, x: ArrayLike, y: ArrayLike) -> float:
        """Learn in the order given, `batch_size` samples a step; the last step takes the samples that are left.

        Args:
            x: Samples (n, n_features).
            y: Classes (n,), 0 or 1.

        Returns:
            The sum of the samples' squared errors (y - ŷ)^2, each before its own step.

        Raises:
            ValueError: The samples or the classes do not fit the model.
        """
        x = check_features(x, self.n_features)
        labels = check_labels(y, len(x), n_classes=2)
        loss = 0.0
        if self.batch_size > 1:
            return sum(self._step_batch(*batch) for batch in mini_batches(x, labels, self.batch_size, bias=False))
        for x_i, y_i in zip(float_rows(x, bias=False), labels, strict=True):
            loss += self._step(x_i, y_i)
        return loss

    def _step(self, x_i: NDArray[np.float64], y_i: int) -> float:
        h = sigmoid(x_i @ self.W1)
        output = sigmoid(h @ self.w2)
        error = y_i - output
        delta2 = error * output * (1.0 - output)
        delta1 = delta2 * self.w2 * h * (1.0 - h)  # with w2 before its step
        self.w2 += self.lr * delta2 * h
        self.W1 += self.lr * np.outer(x_i, delta1)
        return float(error**2)

    def _step_batch(self, x: NDArray[np.float64], y: NDArray[np.int64]) -> float:
        h = sigmoid(x @ self.W1)  # (n, hidden)
        outputs = sigmoid(h @ self.w2)
        errors = y - outputs
        delta2 = errors * outputs * (1.0 - outputs) / len(y)
        delta1 = delta2[:, None] * self.w2 * h * (1.0 - h)  # with w2 before its step
        self.w2 += self.lr * (delta2 @ h)
        self.W1 += self.lr * (x.T @ delta1)
        return float((errors**2).sum())

    def outputs(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return the outputs (n,) in (0, 1) for x (n, n_features)."""
        x = check_features(x, self.n_features)
        blocks = float_blocks(x, bias=False)
        return np.concatenate([sigmoid(sigmoid(block @ self.W1) @ self.w2) for block in blocks])

    def predict(self, x: ArrayLike) -> NDArray[np.int64]:
        """Return the classes (n,), 0 or 1, of x (n, n_features)."""
        return (self.outputs(x) >= 0.5).astype(np.int64)

    def _parameters(self) -> dict[str, NDArray[np.float64]]:
        return {"W1": self.W1, "w2": self.w2}

    def state_dict(self) -> dict[str, NDArray[np.float64]]:
        """Return copies of the weights by name."""
        return copy_parameters(self._parameters())

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Load weights; raise ValueError if names or shapes differ."""
        load_parameters(self._parameters(), state)
