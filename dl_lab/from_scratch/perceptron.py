"""Multiclass perceptron (Rosenblatt 1958; IST Deep Learning 2023/24, homework 1, question 1.1a)."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dl_lab.from_scratch.parameters import check_sizes, copy_parameters, load_parameters
from dl_lab.from_scratch.samples import check_features, check_labels, float_blocks, float_rows


class Perceptron:
    """The class is the largest score of W x, the first on a tie: (n, n_features) -> (n,) classes.

    There is no learning rate: it would only scale W, which changes no prediction.

    With pixels k / 256 every product and sum is an exact float64 (a multiple of 2^-16 below 2^37). So the result
    depends neither on the order of summation nor on the BLAS nor on the machine.

    Args:
        n_features: Features of a sample.
        n_classes: Number of classes.
        bias: Whether W has a last column for a constant feature 1.

    Attributes:
        W: Weights (n_classes, n_features + 1), or (n_classes, n_features) without `bias`; zeros at first.
        n_right: Samples of the last `update` that were classified right, each before its own step.

    Raises:
        ValueError: A size is below 1.
    """

    def __init__(self, n_features: int, n_classes: int, *, bias: bool = True) -> None:
        check_sizes(n_features=n_features, n_classes=n_classes)
        self.n_features = n_features
        self.n_classes = n_classes
        self.bias = bias
        self.W = np.zeros((n_classes, n_features + bias))
        self.n_right = 0
        self._scores = np.empty(n_classes)

    def update(self, x: ArrayLike, y: ArrayLike) -> float:
        """Learn sample by sample, in the order given.

        Args:
            x: Samples (n, n_features).
            y: Classes (n,), whole numbers in 0 .. n_classes - 1.

        Returns:
            The number of mistakes.

        Raises:
            ValueError: The samples or the classes do not fit the model.
        """
        x = check_features(x, self.n_features)
        labels = check_labels(y, len(x), self.n_classes)
        mistakes = 0
        for x_i, y_i in zip(float_rows(x, self.bias), labels, strict=True):
            mistakes += self._step(x_i, y_i)
        self.n_right = len(labels) - mistakes
        return float(mistakes)

    def _step(self, x_i: NDArray[np.float64], y_i: int) -> bool:
        predicted = np.dot(self.W, x_i, out=self._scores).argmax()
        if predicted == y_i:
            return False
        self.W[y_i] += x_i
        self.W[predicted] -= x_i
        return True

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
