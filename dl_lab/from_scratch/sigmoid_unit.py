"""One sigmoid unit that learns by squared error (Padova, Deep Learning 2022/23, homework 1, exercise 1)."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dl_lab.from_scratch.parameters import check_lr, check_sizes, copy_parameters, load_parameters
from dl_lab.from_scratch.samples import check_features, check_labels, float_blocks, float_rows, mini_batches


def sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-z)); below -700, where exp(-z) would overflow, the value at -700 (1e-304)."""
    return 1.0 / (1.0 + np.exp(-np.maximum(z, -700.0)))


class SigmoidUnit:
    """The class is 1 where sigmoid(w x) >= .5: (n, n_features) -> (n,) classes 0 and 1.

    A step descends half the mean squared error, as the source does. Without a bias an all-zero sample gets
    sigmoid(0) = .5 for every w. Its gradient is a multiple of x = 0, so the unit learns nothing from it.

    Args:
        n_features: Features of a sample.
        lr: Learning rate, positive and finite.
        seed: Seed of NumPy's legacy generator, which draws w. The list [42] starts another stream than the number 42.
        bias: Whether w has a last weight, 0 at first, for a constant feature 1.
        batch_size: Samples whose mean gradient a step descends; 1 as in the source.

    Attributes:
        w: Weights (n_features,), or (n_features + 1,) with `bias`; uniform in [-1, 1) at first.

    Raises:
        ValueError: A size is below 1, or `lr` is not positive and finite.
    """

    def __init__(
        self, n_features: int, lr: float, seed: int | Sequence[int], *, bias: bool = False, batch_size: int = 1
    ) -> None:
        check_sizes(n_features=n_features, batch_size=batch_size)
        check_lr(lr)
        self.n_features = n_features
        self.lr = lr
        self.bias = bias
        self.batch_size = batch_size
        self.w = np.zeros(n_features + bias)
        self.w[:n_features] = np.random.RandomState(seed).uniform(-1.0, 1.0, n_features)

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
            return sum(self._step_batch(*batch) for batch in mini_batches(x, labels, self.batch_size, self.bias))
        for x_i, y_i in zip(float_rows(x, self.bias), labels, strict=True):
            output = sigmoid(x_i @ self.w)
            error = y_i - output
            self.w += self.lr * (error * output * (1.0 - output)) * x_i  # d sigmoid(z) / dz = ŷ (1 - ŷ)
            loss += float(error**2)
        return loss

    def _step_batch(self, x: NDArray[np.float64], y: NDArray[np.int64]) -> float:
        outputs = sigmoid(x @ self.w)  # (n,)
        errors = y - outputs
        self.w += self.lr / len(y) * ((errors * outputs * (1.0 - outputs)) @ x)
        return float((errors**2).sum())

    def outputs(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return the outputs (n,) in (0, 1) for x (n, n_features)."""
        x = check_features(x, self.n_features)
        return np.concatenate([sigmoid(block @ self.w) for block in float_blocks(x, self.bias)])

    def predict(self, x: ArrayLike) -> NDArray[np.int64]:
        """Return the classes (n,), 0 or 1, of x (n, n_features)."""
        return (self.outputs(x) >= 0.5).astype(np.int64)

    def state_dict(self) -> dict[str, NDArray[np.float64]]:
        """Return copies of the weights by name."""
        return copy_parameters({"w": self.w})

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Load weights; raise ValueError if names or shapes differ."""
        load_parameters({"w": self.w}, state)
