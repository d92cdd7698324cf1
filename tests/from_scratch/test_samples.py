"""Every model refuses the samples it cannot learn from, in the user's words, before it changes anything."""

import numpy as np
import pytest

from dl_lab.from_scratch.logistic_regression import LogisticRegression
from dl_lab.from_scratch.mlp import MLP
from dl_lab.from_scratch.perceptron import Perceptron
from dl_lab.from_scratch.samples import BLOCK, float_rows
from dl_lab.from_scratch.sigmoid_unit import SigmoidUnit
from dl_lab.from_scratch.two_layer import TwoLayer

MODELS = {
    "perceptron": lambda: Perceptron(3, 2),
    "logistic regression": lambda: LogisticRegression(3, 2, lr=0.1),
    "mlp": lambda: MLP(3, 2, hidden=5, lr=0.1, seed=0),
    "sigmoid unit": lambda: SigmoidUnit(3, lr=0.1, seed=0),
    "two layers": lambda: TwoLayer(3, hidden=5, lr=0.1, seed=0),
}
X = np.random.default_rng(0).normal(size=(6, 3))
Y = np.array([0, 1, 1, 0, 1, 0])


def with_entry(array, index, value):
    changed = array.copy()
    changed[index] = value
    return changed


BAD = {
    "label too large": (X, with_entry(Y, 4, 2), "label 2 of sample 4 is not one of 0 .. 1"),
    "label negative": (X, with_entry(Y, 1, -1), "label -1 of sample 1 is not one of 0 .. 1"),
    "labels not whole": (X, Y + 0.5, "labels must be whole numbers, got float64"),
    "labels in a column": (X, Y[:, None], r"one label per sample, shape \(n,\), got \(6, 1\)"),
    "labels missing": (X, Y[:5], "x has 6 samples, y has 5 labels"),
    "features missing": (X[:, :2], Y, "x has 2 features, the model was built for 3"),
    "one sample, no axis": (X[0], Y[:1], r"x must have the shape \(n, 3\), got \(3,\)"),
    "NaN": (with_entry(X, (5, 1), np.nan), Y, "x has NaN or infinity in sample 5"),
    "infinity": (with_entry(X, (2, 0), -np.inf), Y, "x has NaN or infinity in sample 2"),
    "text": (X.astype(str), Y, "x must hold numbers"),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


@pytest.mark.parametrize("fault", BAD)
def test_bad_samples_change_nothing(model, fault):
    x, y, message = BAD[fault]
    before = model.state_dict()
    with pytest.raises(ValueError, match=message):
        model.update(x, y)
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.parametrize("fault", ["features missing", "NaN", "infinity", "one sample, no axis"])
def test_bad_features_are_not_judged(model, fault):
    x, _, message = BAD[fault]
    with pytest.raises(ValueError, match=message):
        model.predict(x)


def test_huge_finite_values_are_accepted():
    # 1e308 three times overflows as a sum, not as values
    assert Perceptron(3, 2).predict(np.full((1, 3), 1e308)).tolist() == [0]


def test_no_samples(model):
    before = model.state_dict()
    assert model.update(np.empty((0, 3)), np.empty(0, dtype=int)) == 0.0
    assert model.predict(np.empty((0, 3))).shape == (0,)
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(values, before[name])


def test_types_of_input_give_the_same_weights(model):
    x = np.random.default_rng(1).integers(0, 256, (40, 3))
    y = np.arange(40) % 2
    start = model.state_dict()
    results = []
    for xs, ys in [
        (x.astype(np.float64), y),
        (x.astype(np.uint8), y.astype(np.uint8)),
        (np.asfortranarray(x.astype(np.float32)), y.astype(bool)),
        (x.tolist(), y.tolist()),
    ]:
        model.load_state_dict(start)
        results.append((model.update(xs, ys), model.state_dict()))
    for loss, state in results[1:]:
        assert loss == results[0][0]
        for name, values in state.items():
            np.testing.assert_array_equal(values, results[0][1][name])


def test_update_leaves_its_input_alone(model):
    x, y = X.copy(), Y.copy()
    model.update(x, y)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


@pytest.mark.parametrize("n", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
@pytest.mark.parametrize("bias", [False, True])
def test_rows_come_in_order_with_the_bias_last(n, bias):
    x = np.arange(2 * n).reshape(n, 2)
    rows = [row.copy() for row in float_rows(x, bias)]
    expected = np.column_stack([x, np.ones(n)]) if bias else x
    assert len(rows) == n
    for row, values in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(row, values)
        assert row.dtype == np.float64
