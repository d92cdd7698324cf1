"""Multiclass perceptron (Rosenblatt 1958; IST Deep Learning 2023/24, homework 1, question 1.1a)."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dl_lab.from_scratch.parameters import check_sizes, copy_parameters, load_parameters
from dl_lab.from_scratch.samples import checked_features, checked_labels, float_blocks, float_rows


class Perceptron:
    """(n, n_features) -> (n,) classes: the largest score of W x, the first one on a tie.

    W (n_classes, n_features + 1), zeros at first; the last column belongs to the constant feature 1 (none of
    it without `bias`). A learning rate would only scale W, which changes no prediction: there is none.

    Pixels k / 256 make every product and sum here an exact float64 (multiples of 2^-16 below 2^37): the
    result does not depend on the order of summation, hence neither on the BLAS nor on the machine.
    """

    def __init__(self, n_features: int, n_classes: int, *, bias: bool = True) -> None:
        check_sizes(n_features=n_features, n_classes=n_classes)
        self.n_features = n_features
        self.n_classes = n_classes
        self.bias = bias
        self.W = np.zeros((n_classes, n_features + bias))
        self._scores = np.empty(n_classes)

    def update(self, x: ArrayLike, y: ArrayLike) -> float:
        """Learns from x (n, n_features), y (n,) sample by sample, in this order; the number of mistakes."""
        x = checked_features(x, self.n_features)
        labels = checked_labels(y, len(x), self.n_classes)
        mistakes = 0
        for x_i, y_i in zip(float_rows(x, self.bias), labels, strict=True):
            mistakes += self._step(x_i, y_i)
        return float(mistakes)

    def _step(self, x_i: NDArray[np.float64], y_i: int) -> bool:
        predicted = np.dot(self.W, x_i, out=self._scores).argmax()
        if predicted == y_i:
            return False
        self.W[y_i] += x_i
        self.W[predicted] -= x_i
        return True

    def predict(self, x: ArrayLike) -> NDArray[np.int64]:
        """(n, n_features) -> (n,) classes."""
        x = checked_features(x, self.n_features)
        return np.concatenate([(block @ self.W.T).argmax(axis=1) for block in float_blocks(x, self.bias)])

    def state_dict(self) -> dict[str, NDArray[np.float64]]:
        return copy_parameters({"W": self.W})

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        load_parameters({"W": self.W}, state)
