"""Saving and loading the state of every NumPy model; sizes and rates that are refused."""

import numpy as np
import pytest

from dl_lab.from_scratch.logistic_regression import LogisticRegression
from dl_lab.from_scratch.mlp import MLP
from dl_lab.from_scratch.perceptron import Perceptron
from dl_lab.from_scratch.sigmoid_unit import SigmoidUnit
from dl_lab.from_scratch.two_layer import TwoLayer

MODELS = {
    "perceptron": lambda _seed: Perceptron(3, 2),
    "logistic regression": lambda _seed: LogisticRegression(3, 2, lr=0.1),
    "mlp": lambda seed: MLP(3, 2, hidden=5, lr=0.1, seed=seed),
    "sigmoid unit": lambda seed: SigmoidUnit(3, lr=0.1, seed=seed, bias=True),
    "two layers": lambda seed: TwoLayer(3, hidden=5, lr=0.1, seed=seed),
}
X = np.random.default_rng(0).normal(size=(60, 3))
Y = np.arange(60) % 2


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name])


@pytest.mark.parametrize("kind", MODELS)
def test_a_restored_model_continues_as_the_first(kind):
    first, second = MODELS[kind](0), MODELS[kind](1)
    first.update(X[:30], Y[:30])
    second.load_state_dict(first.state_dict())
    assert first.update(X[30:], Y[30:]) == second.update(X[30:], Y[30:])
    assert_same(first.state_dict(), second.state_dict())
    np.testing.assert_array_equal(first.predict(X), second.predict(X))


@pytest.mark.parametrize("kind", MODELS)
def test_a_state_is_a_copy_both_ways(kind):
    model = MODELS[kind](0)
    state = model.state_dict()
    kept = {name: values.copy() for name, values in state.items()}
    model.load_state_dict(state)
    model.update(X, Y)
    assert_same(state, kept)
    assert any((model.state_dict()[name] != values).any() for name, values in kept.items())
    for name in state:
        state[name] += 1
    model.load_state_dict(kept)
    assert_same(model.state_dict(), kept)


@pytest.mark.parametrize("kind", MODELS)
def test_a_state_that_does_not_fit_changes_nothing(kind):
    model = MODELS[kind](0)
    before = model.state_dict()
    last = list(before)[-1]
    zeros = {name: np.zeros_like(values) for name, values in before.items()}
    with pytest.raises(ValueError, match="the state holds"):
        model.load_state_dict(zeros | {"extra": np.zeros(1)})
    with pytest.raises(ValueError, match=f"{last} must have the shape"):
        model.load_state_dict(zeros | {last: np.zeros(99)})
    assert_same(model.state_dict(), before)


@pytest.mark.parametrize("lr", [0.0, -0.1, float("nan"), float("inf")])
def test_rates_must_be_positive_and_finite(lr):
    for build in (
        lambda: LogisticRegression(3, 2, lr=lr),
        lambda: MLP(3, 2, hidden=5, lr=lr, seed=0),
        lambda: SigmoidUnit(3, lr=lr, seed=0),
        lambda: TwoLayer(3, hidden=5, lr=lr, seed=0),
    ):
        with pytest.raises(ValueError, match="lr must be positive and finite"):
            build()


def test_sizes_must_be_at_least_1():
    with pytest.raises(ValueError, match="n_features must be at least 1, got 0"):
        Perceptron(0, 2)
    with pytest.raises(ValueError, match="n_classes must be at least 1, got -1"):
        LogisticRegression(3, -1, lr=0.1)
    with pytest.raises(ValueError, match="hidden must be at least 1, got 0"):
        MLP(3, 2, hidden=0, lr=0.1, seed=0)
    with pytest.raises(ValueError, match="guard must not be negative"):
        LogisticRegression(3, 2, lr=0.1, guard=-1.0)
