"""The order of samples in the IST skeleton: each epoch permutes what the epoch before has permuted."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def cumulative_order(n: int, seed: int, epoch: int, normals_before: int = 0) -> NDArray[np.int64]:
    """The order (n,) in which epoch 0, 1, ... visits the n stored samples; the caller's own copy.

    After `np.random.seed(seed)` each epoch does `p = np.random.permutation(n); x, y = x[p], y[p]`, so epoch k
    sees x[p_0[p_1[... p_k]]]: a function of (n, seed, k). The skeleton draws the initial weights of its MLP
    from the same stream, ahead of the first permutation: `normals_before` is their number.

    The epoch after the one asked for last costs one permutation; an earlier one starts again from epoch 0.
    """
    if n < 0 or epoch < 0 or normals_before < 0:
        raise ValueError(f"n, epoch and normals_before must not be negative, got {n}, {epoch} and {normals_before}")
    return _walk(n, seed, normals_before).at(epoch).copy()


class _Walk:
    """The epochs of one stream; remembers where it is."""

    def __init__(self, n: int, seed: int, normals_before: int) -> None:
        self.n, self.seed, self.normals_before = n, seed, normals_before
        self._restart()

    def _restart(self) -> None:
        self.random = np.random.RandomState(self.seed)
        self.random.standard_normal(self.normals_before)
        self.epoch, self.order = -1, np.arange(self.n)

    def at(self, epoch: int) -> NDArray[np.int64]:
        if epoch < self.epoch:
            self._restart()
        while self.epoch < epoch:
            self.order = self.order[self.random.permutation(self.n)]
            self.epoch += 1
        return self.order


@lru_cache(maxsize=2)
def _walk(n: int, seed: int, normals_before: int) -> _Walk:
    return _Walk(n, seed, normals_before)
