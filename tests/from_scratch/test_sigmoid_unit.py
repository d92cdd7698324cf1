"""PD1-PERC (EXPERIMENTS.md 3.1): the published digits, and what a bias changes for the fourth sample."""

import numpy as np
import pytest
import torch

from dl_lab.from_scratch.sigmoid_unit import SigmoidUnit, sigmoid

X = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]])
Y = np.array([1, 1, 0, 0])


def trained(bias=False):
    """Train for 1,000 passes after the demonstration step; return the unit and the mean squared error of each pass."""
    unit = SigmoidUnit(3, lr=0.5, seed=[42], bias=bias)
    unit.update(X[:1], Y[:1])
    return unit, [unit.update(X, Y) / 4 for _ in range(1000)]


def test_the_first_weights_equal_the_sources():
    np.testing.assert_allclose(SigmoidUnit(3, 0.5, [42]).w, [0.2788536, -0.94997849, -0.44994136], atol=5e-9, rtol=0)
    assert SigmoidUnit(3, 0.5, 42).w[0] != pytest.approx(0.2788536)


def test_the_demonstration_step_equals_the_sources():
    unit = SigmoidUnit(3, 0.5, [42])
    assert unit.outputs(X[:1])[0] == pytest.approx(0.338245, abs=5e-7)
    error = unit.update(X[:1], Y[:1])
    assert error == pytest.approx((1 - 0.338245) ** 2, abs=1e-6)
    assert unit.outputs(X[:1])[0] == pytest.approx(0.37215083, abs=5e-9)


def test_the_training_equals_the_sources():
    unit, mse = trained()
    np.testing.assert_allclose(unit.outputs(X), [0.95165668, 0.99678794, 0.05965052, 0.5], atol=5e-9, rtol=0)
    assert mse[0] == pytest.approx(0.2240, abs=5e-5)
    assert mse[-1] == pytest.approx(0.06398, abs=5e-6)


def test_the_fourth_sample_needs_a_bias():
    """x = 0: without a bias the output is .5 and the gradient 0 at any rate; with one it is learned."""
    unit = SigmoidUnit(3, lr=1e3, seed=[42])
    before = unit.w.copy()
    assert unit.update(X[3:], Y[3:]) == 0.25
    np.testing.assert_array_equal(unit.w, before)
    assert trained()[0].outputs(X)[3] == 0.5

    unit, mse = trained(bias=True)
    np.testing.assert_allclose(unit.outputs(X), [0.96237411, 0.97017129, 0.03686224, 0.04641001], atol=5e-9, rtol=0)
    np.testing.assert_array_equal(unit.predict(X), Y)
    assert unit.w[3] == pytest.approx(-3.0227186, abs=5e-8)
    assert mse[-1] < 0.0015


@pytest.mark.parametrize("bias", [False, True])
def test_gradient_against_autograd_and_finite_differences(bias):
    unit = SigmoidUnit(3, lr=1.0, seed=[42], bias=bias)
    before, x, y = unit.state_dict()["w"], np.array([[0.3, -1.2, 2.0]]), np.array([1])
    unit.update(x, y)
    step = before - unit.w

    w = torch.tensor(before, requires_grad=True)
    features = torch.tensor([*x[0], 1.0][: len(before)], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(0.5 * (1 - torch.sigmoid(w @ features)) ** 2, w)
    np.testing.assert_allclose(step, gradient.numpy(), atol=1e-15)

    def half_error(i, shift):
        unit.load_state_dict({"w": before + shift * np.eye(len(before))[i]})
        return 0.5 * unit.update(x, y)

    slopes = [(half_error(i, 1e-6) - half_error(i, -1e-6)) / 2e-6 for i in range(len(before))]
    np.testing.assert_allclose(step, slopes, atol=1e-9)


def test_sigmoid_does_not_overflow():
    values = sigmoid(np.array([-1e4, 0.0, 1e4]))
    np.testing.assert_allclose(values, [0.0, 0.5, 1.0], atol=1e-300)
