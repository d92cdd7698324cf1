"""The in-place step against the formula, bit for bit."""

import numpy as np
import pytest

from dl_lab.from_scratch.rank_one import subtract_outer


@pytest.mark.parametrize("shape", [(1, 1), (4, 785), (4, 200), (200, 784), (3, 1), (10, 65)])
def test_it_rounds_as_the_formula(shape):
    random = np.random.default_rng(0)
    W, column, row = random.normal(size=shape), random.normal(size=shape[0]), random.normal(size=shape[1])
    expected = W - 0.001 * np.outer(column, row)
    subtract_outer(W, 0.001, column, row, np.empty_like(W))
    np.testing.assert_array_equal(W, expected)
