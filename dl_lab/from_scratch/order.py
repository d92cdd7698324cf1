"""The order of samples in the IST course's skeleton: each epoch permutes the order of the epoch before."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def cumulative_order(n: int, seed: int, epoch: int, normals_before: int = 0) -> NDArray[np.int64]:
    """Return the order in which an epoch visits the n stored samples.

    After `np.random.seed(seed)` each epoch does `p = np.random.permutation(n); x, y = x[p], y[p]`. So epoch k sees
    x[p_0[p_1[... p_k]]], a function of (n, seed, k). The epoch after the last one asked for costs one permutation; an
    earlier epoch starts again from epoch 0.

    Args:
        n: Number of samples.
        seed: Seed of NumPy's legacy generator.
        epoch: Number of the epoch, from 0.
        normals_before: How many normal numbers are drawn before the first permutation. The skeleton draws the initial
            weights of its MLP from the same stream.

    Returns:
        The order (n,), the caller's own copy.

    Raises:
        ValueError: An argument is negative.
    """
    if n < 0 or epoch < 0 or normals_before < 0:
        raise ValueError(f"n, epoch and normals_before must not be negative, got {n}, {epoch} and {normals_before}")
    return _get_walk(n, seed, normals_before).go_to(epoch).copy()


class _Walk:
    """The epochs of one stream of random numbers; remembers the epoch it has reached."""

    def __init__(self, n: int, seed: int, normals_before: int) -> None:
        self.n = n
        self.seed = seed
        self.normals_before = normals_before
        self._restart()

    def _restart(self) -> None:
        self.random = np.random.RandomState(self.seed)
        self.random.standard_normal(self.normals_before)
        self.epoch = -1
        self.order = np.arange(self.n)

    def go_to(self, epoch: int) -> NDArray[np.int64]:
        """Return the order (n,) of an epoch."""
        if epoch < self.epoch:
            self._restart()
        while self.epoch < epoch:
            self.order = self.order[self.random.permutation(self.n)]
            self.epoch += 1
        return self.order


@lru_cache(maxsize=2)
def _get_walk(n: int, seed: int, normals_before: int) -> _Walk:
    return _Walk(n, seed, normals_before)
