"""The skeleton's order of samples, epoch by epoch."""

import numpy as np
import pytest

from dl_lab.from_scratch.order import cumulative_order


def skeleton(n, seed, epochs, normals_before=0):
    """Do literally what the skeleton does, on an array of positions."""
    random = np.random.RandomState(seed)
    random.normal(0.1, 0.1, normals_before)
    x, orders = np.arange(n), []
    for _ in range(epochs):
        x = x[random.permutation(n)]
        orders.append(x)
    return orders


@pytest.mark.parametrize("normals_before", [0, 7, 157_600])
def test_it_equals_the_skeleton(normals_before):
    for epoch, expected in enumerate(skeleton(1000, 42, 5, normals_before)):
        np.testing.assert_array_equal(cumulative_order(1000, 42, epoch, normals_before), expected)


def test_it_depends_on_seed_and_epoch_alone():
    expected = skeleton(100, 42, 6)
    for epoch in (5, 0, 3, 3, 4, 1):
        np.testing.assert_array_equal(cumulative_order(100, 42, epoch), expected[epoch])
        cumulative_order(100, 43, epoch)
        cumulative_order(99, 42, epoch)
    assert not np.array_equal(cumulative_order(100, 43, 0), expected[0])


def test_the_global_generator_agrees_and_is_left_alone():
    np.random.seed(42)
    first = np.random.permutation(50)
    state = np.random.get_state(legacy=False)["state"]["key"].copy()
    np.testing.assert_array_equal(cumulative_order(50, 42, 0), first)
    np.testing.assert_array_equal(np.random.get_state(legacy=False)["state"]["key"], state)


def test_the_answer_belongs_to_the_caller():
    cumulative_order(20, 1, 2)[:] = 0
    np.testing.assert_array_equal(np.sort(cumulative_order(20, 1, 2)), np.arange(20))
    np.testing.assert_array_equal(np.sort(cumulative_order(20, 1, 3)), np.arange(20))


def test_every_item_once_and_no_items():
    np.testing.assert_array_equal(np.sort(cumulative_order(1000, 42, 19)), np.arange(1000))
    assert cumulative_order(0, 42, 3).shape == (0,)


@pytest.mark.parametrize(("n", "epoch"), [(-1, 0), (5, -1)])
def test_negative_numbers_are_refused(n, epoch):
    with pytest.raises(ValueError, match="must not be negative"):
        cumulative_order(n, 42, epoch)
