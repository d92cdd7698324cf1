"""Mini-batches of the NumPy models: gradients, the samples left over, and one sample a step as before."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dl_lab.from_scratch.logistic_regression import LogisticRegression
from dl_lab.from_scratch.mlp import MLP
from dl_lab.from_scratch.samples import mini_batches
from dl_lab.from_scratch.sigmoid_unit import SigmoidUnit
from dl_lab.from_scratch.softmax import cross_entropy_rows, cross_entropy_step
from dl_lab.from_scratch.two_layer import TwoLayer

N_FEATURES = 5
BUILDERS = {
    "logistic": lambda **more: LogisticRegression(N_FEATURES, 3, 1.0, **more),
    "mlp": lambda **more: MLP(N_FEATURES, 3, hidden=8, lr=1.0, seed=0, mean=0.0, std=1.0, **more),
    "unit": lambda **more: SigmoidUnit(N_FEATURES, 1.0, seed=0, bias=True, **more),
    "two_layer": lambda **more: TwoLayer(N_FEATURES, 4, 1.0, seed=0, **more),
}


def samples(name, n, seed=0):
    random = np.random.default_rng(seed)
    n_classes = 2 if name in ("unit", "two_layer") else 3
    return random.normal(size=(n, N_FEATURES)), random.integers(0, n_classes, n)


def mean_loss(name, weights, x, y):
    """What a step descends, by torch: the mean over the mini-batch."""
    x, y = torch.tensor(x), torch.tensor(y)
    if name == "logistic":
        return F.cross_entropy(torch.cat([x, torch.ones(len(x), 1)], dim=1) @ weights["W"].T, y)
    if name == "mlp":
        hidden = F.relu(x @ weights["W1"].T + weights["b1"])
        return F.cross_entropy(hidden @ weights["W2"].T + weights["b2"], y)
    if name == "unit":
        outputs = torch.sigmoid(torch.cat([x, torch.ones(len(x), 1)], dim=1) @ weights["w"])
    else:
        outputs = torch.sigmoid(torch.sigmoid(x @ weights["W1"]) @ weights["w2"])
    return 0.5 * ((y - outputs) ** 2).mean()


@pytest.mark.parametrize("name", BUILDERS)
def test_a_step_is_the_gradient_of_the_mean_loss(name):
    x, y = samples(name, 7)
    model = BUILDERS[name](batch_size=7)
    before = model.state_dict()
    loss = model.update(x, y)
    weights = {key: torch.tensor(values, requires_grad=True) for key, values in before.items()}
    expected = mean_loss(name, weights, x, y)
    expected.backward()
    scale = 2 * len(x) if name in ("unit", "two_layer") else len(x)  # they return (y - ŷ)², not half of it
    assert loss == pytest.approx(scale * expected.item(), rel=1e-12)
    for key, after in model.state_dict().items():
        gradient = weights[key].grad
        assert gradient is not None
        assert gradient.abs().max() > 1e-3
        np.testing.assert_allclose(before[key] - after, gradient.numpy(), atol=1e-14, err_msg=key)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_step_agrees_with_finite_differences(name):
    x, y = samples(name, 6)
    model = BUILDERS[name](batch_size=6)
    before = model.state_dict()
    scale = 2 * len(x) if name in ("unit", "two_layer") else len(x)
    model.update(x, y)
    after = model.state_dict()

    def loss(key, entry, step):
        shifted = {other: values.copy() for other, values in before.items()}
        shifted[key][entry] += step
        model.load_state_dict(shifted)
        return model.update(x, y) / scale

    for key, values in before.items():
        for entry in np.ndindex(*values.shape):
            slope = (loss(key, entry, 1e-6) - loss(key, entry, -1e-6)) / 2e-6
            assert (values - after[key])[entry] == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("name", BUILDERS)
def test_one_call_is_its_mini_batches_in_turn(name):
    """10 samples by 4 are steps of 4, 4 and 2 samples."""
    x, y = samples(name, 10)
    whole, parts = BUILDERS[name](batch_size=4), BUILDERS[name](batch_size=4)
    loss = whole.update(x, y)
    right = getattr(whole, "n_right", None)
    losses, rights = [], []
    for start in (0, 4, 8):
        losses.append(parts.update(x[start : start + 4], y[start : start + 4]))
        rights.append(getattr(parts, "n_right", 0))
    assert loss == pytest.approx(sum(losses), rel=1e-14)
    assert right is None or right == sum(rights)
    for key, values in whole.state_dict().items():
        np.testing.assert_array_equal(values, parts.state_dict()[key], err_msg=key)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_mini_batch_of_one_is_the_step_of_one_sample(name):
    """A call of one sample gives a mini-batch of one: the same step as the rule sample by sample, up to rounding."""
    x, y = samples(name, 5)
    alone, batched = BUILDERS[name](), BUILDERS[name](batch_size=2)
    for x_i, y_i in zip(x, y, strict=True):
        expected = alone.update(x_i[None], y_i[None])
        assert batched.update(x_i[None], y_i[None]) == pytest.approx(expected, rel=1e-12)
    for key, values in alone.state_dict().items():
        np.testing.assert_allclose(values, batched.state_dict()[key], rtol=1e-12, atol=1e-15, err_msg=key)


@pytest.mark.parametrize("name", BUILDERS)
def test_no_samples_change_nothing(name):
    x, y = samples(name, 0)
    model = BUILDERS[name](batch_size=3)
    before = model.state_dict()
    assert model.update(x, y) == 0
    for key, values in model.state_dict().items():
        np.testing.assert_array_equal(values, before[key])


@pytest.mark.parametrize("name", BUILDERS)
def test_a_batch_size_below_one_is_refused(name):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        BUILDERS[name](batch_size=0)


def test_mini_batches_are_larger_than_a_block_where_asked():
    x = np.arange(600, dtype=np.uint8).reshape(300, 2)
    sizes = [(len(rows), len(labels)) for rows, labels in mini_batches(x, [0] * 300, 280, bias=True)]
    assert sizes == [(280, 280), (20, 20)]


def test_the_guard_is_in_the_loss_of_mini_batches_too():
    x, y = samples("logistic", 4)
    loss = LogisticRegression(N_FEATURES, 3, 1.0, guard=0.5, batch_size=4).update(x, y)
    assert loss == pytest.approx(-4 * np.log(1 / 3 + 0.5))


def test_rows_and_single_samples_have_the_same_cross_entropy():
    scores = np.random.default_rng(0).normal(size=(6, 4)) * 300  # exp would overflow
    y = np.array([0, 1, 2, 3, 0, 1])
    gradients = scores.copy()
    losses = cross_entropy_rows(gradients, y)
    for row, label, loss, gradient in zip(scores, y, losses, gradients, strict=True):
        expected = row.copy()
        assert loss == pytest.approx(cross_entropy_step(expected, int(label)), rel=1e-13, abs=1e-13)
        np.testing.assert_allclose(gradient, expected, atol=1e-15)
