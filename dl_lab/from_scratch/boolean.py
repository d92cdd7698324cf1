"""A Boolean function of a sum, by two hidden units with integer weights (IST 2023/24, homework 1, Q3).

f(x) = +1 if low <= x_1 + ... + x_D <= high, else -1, for x in {-1, +1}^D and integers -D <= low <= high <= D.
sign(0) = +1 throughout.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


def sign(z: NDArray) -> NDArray[np.int64]:
    """+1 where z >= 0, else -1."""
    return np.where(z >= 0, 1, -1)


def relu(z: NDArray) -> NDArray:
    """max(z, 0)."""
    return np.maximum(z, 0)


@dataclass(frozen=True)
class BooleanNet:
    """(n, D) real inputs -> (n,) of -1, +1: sign(v · activation(W x + b) + c), all parameters integers.

    W (hidden, D), b (hidden,), v (hidden,), c a number.
    """

    W: NDArray[np.int64]
    b: NDArray[np.int64]
    v: NDArray[np.int64]
    c: int
    activation: Callable[[NDArray], NDArray]

    def hidden(self, x: NDArray) -> NDArray:
        """(n, D) -> (n, hidden), before the activation."""
        return x @ self.W.T + self.b

    def __call__(self, x: NDArray) -> NDArray[np.int64]:
        return sign(self.activation(self.hidden(x)) @ self.v + self.c)


def sign_net(n_inputs: int, low: int, high: int) -> BooleanNet:
    """sign(h1 + h2 - 1) of h1 = sign(2Σx - 2 low + 1), h2 = sign(-2Σx + 2 high + 1): both limits are kept."""
    _check_band(n_inputs, low, high)
    ones = np.ones(n_inputs, dtype=np.int64)
    b = np.array([-2 * low + 1, 2 * high + 1])
    return BooleanNet(W=np.stack([2 * ones, -2 * ones]), b=b, v=np.array([1, 1]), c=-1, activation=sign)


def relu_net(n_inputs: int, low: int, high: int) -> BooleanNet:
    """sign(-r1 - r2) of r1 = relu(2Σx - 2 high - 1), r2 = relu(-2Σx + 2 low - 1): how far Σx leaves the band.

    Inside the band the output unit stands at sign(0) = +1, but not on an edge: r1 and r2 are zero around x as
    well.
    """
    _check_band(n_inputs, low, high)
    ones = np.ones(n_inputs, dtype=np.int64)
    b = np.array([-2 * high - 1, 2 * low - 1])
    return BooleanNet(W=np.stack([2 * ones, -2 * ones]), b=b, v=np.array([-1, -1]), c=0, activation=relu)


def truth_table(n_inputs: int) -> NDArray[np.int64]:
    """All inputs (2^D, D), from -1 ... -1 to +1 ... +1, the last one changing fastest."""
    if not 1 <= n_inputs <= 20:
        raise ValueError(f"a truth table needs 1 to 20 inputs, got {n_inputs}")
    bits = np.arange(2**n_inputs)[:, None] >> np.arange(n_inputs)[::-1] & 1
    return 2 * bits - 1


def in_band(x: NDArray, low: int, high: int) -> NDArray[np.int64]:
    """f itself: (n, D) -> (n,) of -1, +1."""
    total = x.sum(axis=1)
    return np.where((low <= total) & (total <= high), 1, -1)


def mistakes(net: BooleanNet, low: int, high: int, shift: ArrayLike = 0) -> int:
    """How many of the 2^D rows the net gets wrong when it sees x + shift; shift broadcasts to (2^D, D)."""
    x = truth_table(net.W.shape[1])
    return int((net(x + np.asarray(shift)) != in_band(x, low, high)).sum())


def margin(net: BooleanNet) -> float:
    """The perturbation a net withstands: no row's hidden unit changes sides while every |shift_i| < margin.

    For a unit w x + b that is |w x + b| / Σ|w_i|. Both nets have odd integers w x + b and weights of +-2, so
    it is at least 1 / (2 D). Their outputs depend on the sides alone: a ReLU that stays on its zero side
    gives exactly 0.
    """
    distance = np.abs(net.hidden(truth_table(net.W.shape[1]))) / np.abs(net.W).sum(axis=1)
    return float(distance.min())


def single_unit(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], float] | None:
    """Weights w (D,) and bias b with sign(w x + b) = y for all rows of x (n, D), y (n,) of -1, +1; else None.

    A linear program: y_i (w x_i + b) >= 1. The 1 loses nothing: of finitely many rows the negative ones keep
    a distance from 0, so b can be raised a little until all are strictly on their sides, and (w, b) scaled.
    """
    from scipy.optimize import linprog

    signed = _signed_rows(x, y)
    n, columns = signed.shape
    solution = linprog(np.zeros(columns), A_ub=-signed, b_ub=-np.ones(n), bounds=(None, None))
    return (solution.x[:-1], float(solution.x[-1])) if solution.status == 0 else None


def contradiction(x: ArrayLike, y: ArrayLike) -> NDArray[np.float64] | None:
    """Why no single unit exists: m (n,) >= 0, Σ m_i = 1, Σ m_i y_i x_i = 0, Σ m_i y_i = 0; None if one does.

    Of the conditions y_i (w x_i + b) > 0 the sum weighted by m is 0 > 0, for any w and b. Exactly one of
    `single_unit` and `contradiction` has an answer (Gordan 1873). XOR has m = 1/4 each: both classes have the
    same mean.
    """
    from scipy.optimize import linprog

    signed = _signed_rows(x, y)
    n, columns = signed.shape
    equations = np.vstack([signed.T, np.ones(n)])
    solution = linprog(np.zeros(n), A_eq=equations, b_eq=np.append(np.zeros(columns), 1.0), bounds=(0, None))
    return solution.x if solution.status == 0 else None


def _signed_rows(x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """y_i [x_i, 1], (n, D + 1)."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 2 or y.shape != (len(x),):
        raise ValueError(f"x must have the shape (n, D) and y (n,), got {x.shape} and {y.shape}")
    if not np.isin(y, (-1.0, 1.0)).all():
        raise ValueError("y must hold -1 and +1 only")
    return y[:, None] * np.column_stack([x, np.ones(len(x))])


def _check_band(n_inputs: int, low: int, high: int) -> None:
    if n_inputs < 1:
        raise ValueError(f"n_inputs must be at least 1, got {n_inputs}")
    if not -n_inputs <= low <= high <= n_inputs:
        raise ValueError(f"the band [{low}, {high}] must satisfy -{n_inputs} <= low <= high <= {n_inputs}")
