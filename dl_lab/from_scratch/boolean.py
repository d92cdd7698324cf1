"""A Boolean function of a sum, computed by two hidden units with integer weights (IST 2023/24, homework 1, Q3).

f(x) = +1 if low <= x_1 + ... + x_D <= high, else -1, for x in {-1, +1}^D and integers -D <= low <= high <= D.
The interval [low, high] is called the band. sign(0) = +1 throughout.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


def sign(z: NDArray) -> NDArray[np.int64]:
    """Return +1 where z >= 0, else -1."""
    return np.where(z >= 0, 1, -1)


def relu(z: NDArray) -> NDArray:
    """Return max(z, 0)."""
    return np.maximum(z, 0)


@dataclass(frozen=True)
class BooleanNet:
    """sign(v · activation(W x + b) + c) with integer parameters: real inputs (n, D) -> (n,) of -1 and +1.

    Attributes:
        W: Weights of the hidden units, (hidden, D).
        b: Biases of the hidden units, (hidden,).
        v: Weights of the output unit, (hidden,).
        c: Bias of the output unit.
        activation: Activation of the hidden units.
    """

    W: NDArray[np.int64]
    b: NDArray[np.int64]
    v: NDArray[np.int64]
    c: int
    activation: Callable[[NDArray], NDArray]

    def hidden(self, x: NDArray) -> NDArray:
        """Return the hidden units of x (n, D) before the activation, (n, hidden)."""
        return x @ self.W.T + self.b

    def __call__(self, x: NDArray) -> NDArray[np.int64]:
        """Return the outputs (n,) of -1 and +1 for x (n, D)."""
        return sign(self.activation(self.hidden(x)) @ self.v + self.c)


def sign_net(n_inputs: int, low: int, high: int) -> BooleanNet:
    """Build sign(h1 + h2 - 1) from h1 = sign(2Σx - 2 low + 1) and h2 = sign(-2Σx + 2 high + 1).

    It is +1 where Σx respects both limits.

    Args:
        n_inputs: Number D of inputs.
        low: Lower end of the band.
        high: Upper end of the band.

    Raises:
        ValueError: The band is empty or outside [-D, D].
    """
    _check_band(n_inputs, low, high)
    ones = np.ones(n_inputs, dtype=np.int64)
    b = np.array([-2 * low + 1, 2 * high + 1])
    return BooleanNet(W=np.stack([2 * ones, -2 * ones]), b=b, v=np.array([1, 1]), c=-1, activation=sign)


def relu_net(n_inputs: int, low: int, high: int) -> BooleanNet:
    """Build sign(-r1 - r2) from r1 = relu(2Σx - 2 high - 1) and r2 = relu(-2Σx + 2 low - 1).

    r1 and r2 measure how far Σx leaves the band. Inside the band the output unit is at sign(0) = +1. That is no edge,
    because r1 and r2 are also zero around x.

    Args:
        n_inputs: Number D of inputs.
        low: Lower end of the band.
        high: Upper end of the band.

    Raises:
        ValueError: The band is empty or outside [-D, D].
    """
    _check_band(n_inputs, low, high)
    ones = np.ones(n_inputs, dtype=np.int64)
    b = np.array([-2 * high - 1, 2 * low - 1])
    return BooleanNet(W=np.stack([2 * ones, -2 * ones]), b=b, v=np.array([-1, -1]), c=0, activation=relu)


def truth_table(n_inputs: int) -> NDArray[np.int64]:
    """Return all inputs (2^D, D), from -1 ... -1 to +1 ... +1; the last input changes fastest.

    Raises:
        ValueError: `n_inputs` is not between 1 and 20.
    """
    if not 1 <= n_inputs <= 20:
        raise ValueError(f"a truth table needs 1 to 20 inputs, got {n_inputs}")
    bits = np.arange(2**n_inputs)[:, None] >> np.arange(n_inputs)[::-1] & 1
    return 2 * bits - 1


def in_band(x: NDArray, low: int, high: int) -> NDArray[np.int64]:
    """Return f(x), the function itself: (n, D) -> (n,) of -1 and +1."""
    total = x.sum(axis=1)
    return np.where((low <= total) & (total <= high), 1, -1)


def count_mistakes(net: BooleanNet, low: int, high: int, shift: ArrayLike = 0) -> int:
    """Count the rows of the truth table that a net gets wrong.

    Args:
        net: The net.
        low: Lower end of the band.
        high: Upper end of the band.
        shift: Added to the inputs that the net sees; broadcast to (2^D, D).

    Returns:
        The number of mistakes among 2^D rows.
    """
    x = truth_table(net.W.shape[1])
    return int((net(x + np.asarray(shift)) != in_band(x, low, high)).sum())


def margin(net: BooleanNet) -> float:
    """Return the perturbation that a net withstands.

    As long as every |shift_i| < margin, no hidden unit changes sides on any row. For a unit w x + b the margin is
    |w x + b| / Σ|w_i|. Both nets have odd integers w x + b and weights of +-2, so it is at least 1 / (2 D). Their
    outputs depend on the sides alone, because a ReLU that stays on its zero side gives exactly 0.
    """
    distance = np.abs(net.hidden(truth_table(net.W.shape[1]))) / np.abs(net.W).sum(axis=1)
    return float(distance.min())


def find_single_unit(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], float] | None:
    """Find a single unit with sign(w x + b) = y on all rows, by a linear program: y_i (w x_i + b) >= 1.

    The 1 excludes no unit. There are finitely many rows, so the negative ones keep a distance from 0; b can be raised
    until every row is strictly on its side, and then (w, b) can be scaled.

    Args:
        x: Inputs (n, D).
        y: Wanted outputs (n,) of -1 and +1.

    Returns:
        The weights w (D,) and the bias b; None if there is no such unit.

    Raises:
        ValueError: The shapes do not fit, or `y` has other numbers.
    """
    from scipy.optimize import linprog

    signed = _sign_rows(x, y)
    n, columns = signed.shape
    solution = linprog(np.zeros(columns), A_ub=-signed, b_ub=-np.ones(n), bounds=(None, None))
    if solution.status != 0:
        return None
    return solution.x[:-1], float(solution.x[-1])


def find_contradiction(x: ArrayLike, y: ArrayLike) -> NDArray[np.float64] | None:
    """Find multipliers m that prove that no single unit exists.

    They satisfy m >= 0, Σ m_i = 1, Σ m_i y_i x_i = 0 and Σ m_i y_i = 0. Weighted by m, the conditions
    y_i (w x_i + b) > 0 add up to 0 > 0 for any w and b. Exactly one of `find_single_unit` and `find_contradiction` has
    an answer (Gordan 1873). XOR has m_i = 1/4, because both classes have the same mean.

    Args:
        x: Inputs (n, D).
        y: Wanted outputs (n,) of -1 and +1.

    Returns:
        The multipliers m (n,); None if a single unit exists.

    Raises:
        ValueError: The shapes do not fit, or `y` has other numbers.
    """
    from scipy.optimize import linprog

    signed = _sign_rows(x, y)
    n, columns = signed.shape
    equations = np.vstack([signed.T, np.ones(n)])
    solution = linprog(np.zeros(n), A_eq=equations, b_eq=np.append(np.zeros(columns), 1.0), bounds=(0, None))
    return solution.x if solution.status == 0 else None


def _sign_rows(x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
    """Return y_i [x_i, 1], (n, D + 1)."""
    x = np.asarray(x, dtype=np.float64)
    y = np.asarray(y, dtype=np.float64)
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
