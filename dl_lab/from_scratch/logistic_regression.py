"""Multinomial logistic regression, one sample or one mini-batch a step.

Sources: IST Deep Learning 2023/24, homework 1, question 1.1b; with other initial weights also the softmax regression of
the University of Padova's homework 1, exercise 3.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dl_lab.from_scratch.parameters import check_lr, check_sizes, copy_parameters, load_parameters
from dl_lab.from_scratch.rank_one import subtract_outer
from dl_lab.from_scratch.samples import check_features, check_labels, float_blocks, float_rows, mini_batches
from dl_lab.from_scratch.softmax import cross_entropy_rows, cross_entropy_step, softmax


class LogisticRegression:
    """p = softmax(W x); the class is the largest p, the first on a tie: (n, n_features) -> (n,) classes.

    Args:
        n_features: Features of a sample.
        n_classes: Number of classes.
        lr: Learning rate, positive and finite.
        bias: Whether W has a last column for a constant feature 1.
        initial: Initial W (see `uniform`); None starts from zeros.
        guard: Added to the probability in the reported loss, -log(p[y] + guard). Some sources do this to avoid log 0.
            The cross-entropy here does not need it, and the gradient (p - onehot(y)) xᵀ ignores it.
        batch_size: Samples whose mean gradient a step descends; 1 is the sources' stochastic gradient descent.

    Attributes:
        W: Weights (n_classes, n_features + 1), or (n_classes, n_features) without `bias`.
        n_right: Samples of the last `update` that were classified right, each before its own step.

    Raises:
        ValueError: A size is below 1, `lr` is not positive and finite, `guard` is negative, or `initial` has another
            shape.
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
        batch_size: int = 1,
    ) -> None:
        check_sizes(n_features=n_features, n_classes=n_classes, batch_size=batch_size)
        check_lr(lr)
        if guard < 0:
            raise ValueError(f"guard must not be negative, got {guard}")
        self.n_features = n_features
        self.n_classes = n_classes
        self.lr = lr
        self.bias = bias
        self.guard = guard
        self.batch_size = batch_size
        self.W = np.zeros((n_classes, n_features + bias))
        self.n_right = 0
        self._scores = np.empty(n_classes)
        self._buffer = np.empty_like(self.W)
        if initial is not None:
            self.load_state_dict({"W": initial})

    def update(self, x: ArrayLike, y: ArrayLike) -> float:
        """Learn in the order given, `batch_size` samples a step; the last step takes the samples that are left.

        Args:
            x: Samples (n, n_features).
            y: Classes (n,), whole numbers in 0 .. n_classes - 1.

        Returns:
            The sum of the samples' losses, each before its own step.

        Raises:
            ValueError: The samples or the classes do not fit the model.
        """
        x = check_features(x, self.n_features)
        labels = check_labels(y, len(x), self.n_classes)
        loss = 0.0
        self.n_right = 0
        if self.batch_size > 1:
            return sum(self._step_batch(*batch) for batch in mini_batches(x, labels, self.batch_size, self.bias))
        for x_i, y_i in zip(float_rows(x, self.bias), labels, strict=True):
            loss += self._step(x_i, y_i)
        return loss

    def _step(self, x_i: NDArray[np.float64], y_i: int) -> float:
        error = np.dot(self.W, x_i, out=self._scores)
        self.n_right += int(error.argmax() == y_i)
        loss = cross_entropy_step(error, y_i)  # error: p - onehot(y)
        subtract_outer(self.W, self.lr, error, x_i, self._buffer)  # W -= lr (p - onehot(y)) xᵀ
        return loss if self.guard == 0 else -float(np.log(np.exp(-loss) + self.guard))

    def _step_batch(self, x: NDArray[np.float64], y: NDArray[np.int64]) -> float:
        errors = x @ self.W.T  # (n, n_classes): the scores, then p - onehot(y)
        self.n_right += int((errors.argmax(axis=1) == y).sum())
        losses = cross_entropy_rows(errors, y)
        self.W -= self.lr / len(y) * (errors.T @ x)
        return float(losses.sum() if self.guard == 0 else -np.log(np.exp(-losses) + self.guard).sum())

    def probabilities(self, x: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities (n, n_classes) of the classes for x (n, n_features)."""
        x = check_features(x, self.n_features)
        return np.concatenate([softmax(block @ self.W.T) for block in float_blocks(x, self.bias)])

    def predict(self, x: ArrayLike) -> NDArray[np.int64]:
        """Return the classes (n,) of x (n, n_features)."""
        x = check_features(x, self.n_features)
        return np.concatenate([(block @ self.W.T).argmax(axis=1) for block in float_blocks(x, self.bias)])

    def state_dict(self) -> dict[str, NDArray[np.float64]]:
        """Return copies of the weights by name."""
        return copy_parameters({"W": self.W})

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Load weights; raise ValueError if names or shapes differ."""
        load_parameters({"W": self.W}, state)


def uniform(n_features: int, n_classes: int, bound: float, seed: int | Sequence[int]) -> NDArray[np.float64]:
    """Draw an initial W (n_classes, n_features + 1), uniform in [-bound, bound).

    The order is that of the Padova homework: first the weights, an array (n_features, n_classes), then the biases.

    Args:
        n_features: Features of a sample.
        n_classes: Number of classes.
        bound: Largest absolute value.
        seed: Seed of NumPy's legacy generator. The list [42] starts another stream than the number 42.
    """
    random = np.random.RandomState(seed)
    weights = random.uniform(-bound, bound, (n_features, n_classes))
    biases = random.uniform(-bound, bound, n_classes)
    return np.column_stack([weights.T, biases])
