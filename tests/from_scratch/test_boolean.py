"""IST1-BOOL (EXPERIMENTS.md 1.6): every truth table, perturbations, wrong weights, no single unit."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from dl_lab.from_scratch.boolean import (
    count_mistakes,
    find_contradiction,
    find_single_unit,
    in_band,
    margin,
    relu,
    relu_net,
    sign,
    sign_net,
    truth_table,
)

NETS = [sign_net, relu_net]


def bands(n_inputs):
    return [(low, high) for low in range(-n_inputs, n_inputs + 1) for high in range(low, n_inputs + 1)]


@pytest.mark.parametrize("build", NETS)
def test_no_mistake_for_any_band_up_to_ten_inputs(build):
    random = np.random.default_rng(0)
    evaluations = 0
    for n_inputs in range(1, 11):
        noise = random.normal(scale=0.1 / n_inputs, size=(2**n_inputs, n_inputs)).clip(-0.4 / n_inputs, 0.4 / n_inputs)
        for low, high in bands(n_inputs):
            net = build(n_inputs, low, high)
            assert count_mistakes(net, low, high) == 0
            assert count_mistakes(net, low, high, noise) == 0
            evaluations += 2 * 2**n_inputs
        if n_inputs == 6:
            assert evaluations == 17_904  # the count in EXPERIMENTS.md


@pytest.mark.parametrize("build", NETS)
@pytest.mark.parametrize("n_inputs", [1, 2, 3, 7])
def test_the_net_withstands_every_shift_below_its_margin_and_none_much_above(build, n_inputs):
    for low, high in bands(n_inputs):
        net = build(n_inputs, low, high)
        allowed = margin(net)
        assert allowed >= 1 / (2 * n_inputs)
        # Equal shifts of all inputs move Σx most.
        assert count_mistakes(net, low, high, 0.999 * allowed) == 0
        assert count_mistakes(net, low, high, -0.999 * allowed) == 0
        beyond = count_mistakes(net, low, high, 1.001 * allowed) + count_mistakes(net, low, high, -1.001 * allowed)
        # Past the margin a hidden unit changes sides: an error, unless the band holds no value of Σx.
        assert beyond > 0 or not (in_band(truth_table(n_inputs), low, high) == 1).any()


@pytest.mark.parametrize("build", NETS)
def test_weights_are_integers(build):
    net = build(5, -1, 3)
    assert all(values.dtype.kind == "i" for values in (net.W, net.b, net.v))
    assert isinstance(net.c, int)
    assert net.W.shape == (2, 5)


@pytest.mark.parametrize("build", NETS)
def test_wrong_weights_make_mistakes(build):
    n_inputs, low, high = 4, -2, 0
    net = build(n_inputs, low, high)
    wrong = [
        replace(net, b=net.b + np.array([4, 0])),
        replace(net, b=net.b + np.array([0, -4])),
        replace(net, W=-net.W),
        replace(net, v=-net.v),
        replace(net, c=net.c - 2),
        replace(net, c=net.c + 3),
        replace(net, W=net.W * np.array([[1, 1, 1, -1]])),
        replace(net, activation=relu if build is sign_net else sign),
    ]
    assert [count_mistakes(other, low, high) > 0 for other in wrong] == [True] * len(wrong)


def test_weights_of_one_need_the_parity_of_the_inputs():
    """The weights are 2 and the offsets odd, because with weights 1 a limit can fall on a value of Σx."""
    plain = {
        band: replace(sign_net(2, *band), W=np.array([[1, 1], [-1, -1]]), b=np.array([-band[0], band[1]]))
        for band in bands(2)
    }
    assert all(count_mistakes(net, *band) == 0 for band, net in plain.items())
    fragile = {
        band for band, net in plain.items() if count_mistakes(net, *band, 1e-6) + count_mistakes(net, *band, -1e-6)
    }
    assert fragile == {(low, high) for low, high in bands(2) if low % 2 == 0 or high % 2 == 0}


def test_truth_table():
    np.testing.assert_array_equal(truth_table(2), [[-1, -1], [-1, 1], [1, -1], [1, 1]])
    table = truth_table(10)
    assert table.shape == (1024, 10)
    assert len(np.unique(table, axis=0)) == 1024
    np.testing.assert_array_equal(np.unique(table), [-1, 1])


def test_sign_of_zero_is_one():
    np.testing.assert_array_equal(sign(np.array([-1, 0, 1])), [-1, 1, 1])


def test_no_single_unit_is_xor():
    x = truth_table(2)
    y = in_band(x, 0, 0)
    np.testing.assert_array_equal(y, -x[:, 0] * x[:, 1])
    assert find_single_unit(x, y) is None
    multipliers = find_contradiction(x, y)
    assert multipliers is not None
    np.testing.assert_allclose(multipliers, 0.25)
    # And none on a grid of weights, by trying.
    grid = np.linspace(-3, 3, 13)
    assert not any(np.array_equal(sign(x @ [u, v] + b), y) for u, v, b in product(grid, grid, grid))


@pytest.mark.parametrize("n_inputs", [1, 2, 3, 4])
def test_a_single_unit_computes_exactly_the_bands_open_to_one_side(n_inputs):
    x = truth_table(n_inputs)
    reached = np.unique(x.sum(axis=1))
    for low, high in bands(n_inputs):
        y = in_band(x, low, high)
        inside = (low <= reached) & (reached <= high)
        possible = not inside.any() or inside[0] or inside[-1]
        unit, multipliers = find_single_unit(x, y), find_contradiction(x, y)
        assert (unit is not None) == possible == (multipliers is None)
        if unit is not None:
            np.testing.assert_array_equal(sign(x @ unit[0] + unit[1]), y)
        if multipliers is not None:
            assert (multipliers >= 0).all()
            assert multipliers.sum() == pytest.approx(1)
            np.testing.assert_allclose((multipliers * y) @ np.column_stack([x, np.ones(len(x))]), 0, atol=1e-12)


@pytest.mark.parametrize("build", NETS)
@pytest.mark.parametrize("band", [(1, 0), (-4, 0), (0, 4)])
def test_an_impossible_band_is_refused(build, band):
    with pytest.raises(ValueError, match="must satisfy -3 <= low <= high <= 3"):
        build(3, *band)


def test_other_wrong_arguments():
    with pytest.raises(ValueError, match="1 to 20 inputs, got 21"):
        truth_table(21)
    with pytest.raises(ValueError, match="n_inputs must be at least 1"):
        sign_net(0, 0, 0)
    with pytest.raises(ValueError, match="-1 and \\+1 only"):
        find_single_unit([[0.0]], [0])
    with pytest.raises(ValueError, match="shape"):
        find_contradiction([[0.0]], [1, 1])
