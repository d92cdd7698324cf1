"""The MLP against the formulas in a plain loop, autograd and finite differences."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dl_lab.from_scratch.mlp import MLP


def plain_loop(parameters, x, y, lr):
    """Do plain back-propagation, a sample a step: change the parameters, return the summed loss."""
    W1, b1, W2, b2 = (parameters[name] for name in ("W1", "b1", "W2", "b2"))
    loss = 0.0
    for x_i, y_i in zip(x, y, strict=True):
        z1 = W1 @ x_i + b1
        h = np.maximum(0, z1)
        z2 = W2 @ h + b2
        exponentials = np.exp(z2 - np.max(z2))
        p = exponentials / np.sum(exponentials)
        # log p from the scores: p itself underflows with the large scores of the first steps
        loss += np.max(z2) + np.log(np.sum(exponentials)) - z2[y_i]
        dz2 = p - np.eye(len(b2))[y_i]
        dz1 = (W2.T @ dz2) * (z1 > 0)
        W2 -= lr * np.outer(dz2, h)
        b2 -= lr * dz2
        W1 -= lr * np.outer(dz1, x_i)
        b1 -= lr * dz1
    return loss


def test_it_equals_the_plain_loop_bit_for_bit():
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (700, 784), dtype=np.uint8) / 256, random.integers(0, 4, 700)
    model = MLP(784, 4, hidden=200, lr=0.001, seed=42)
    expected = model.state_dict()
    plain_loss = plain_loop(expected, x, y, 0.001)
    loss = model.update(x[:300], y[:300]) + model.update(x[300:], y[300:])
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)
    assert loss == pytest.approx(plain_loss, rel=1e-12)
    scores = np.maximum(x @ expected["W1"].T + expected["b1"], 0) @ expected["W2"].T + expected["b2"]
    np.testing.assert_array_equal(model.predict(x), scores.argmax(axis=1))


def test_initial_weights_equal_the_skeletons():
    model = MLP(784, 4, hidden=200, lr=0.001, seed=42)
    stream = np.random.RandomState(42).normal(0.1, 0.1, 157_600)
    np.testing.assert_array_equal(model.W1.ravel(), stream[:156_800])
    np.testing.assert_array_equal(model.W2.ravel(), stream[156_800:])
    assert not model.b1.any()
    assert not model.b2.any()
    assert sum(values.size for values in model.state_dict().values()) == 157_804


def case(seed):
    """A net with some silent hidden units, and one sample."""
    random = np.random.default_rng(seed)
    model = MLP(5, 3, hidden=8, lr=1.0, seed=seed, mean=0.0, std=1.0)
    state = model.state_dict() | {"b1": random.normal(size=8), "b2": random.normal(size=3)}
    model.load_state_dict(state)
    x = random.normal(size=5)
    active = state["W1"] @ x + state["b1"] > 0
    assert 0 < active.sum() < 8
    return model, state, x, int(random.integers(3))


@pytest.mark.parametrize("seed", range(4))
def test_gradient_against_autograd(seed):
    model, before, x, label = case(seed)
    loss = model.update(x[None], np.array([label]))
    tensors = {name: torch.tensor(values, requires_grad=True) for name, values in before.items()}
    h = F.relu(tensors["W1"] @ torch.tensor(x) + tensors["b1"])
    expected = F.cross_entropy((tensors["W2"] @ h + tensors["b2"])[None], torch.tensor([label]))
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    for name, after in model.state_dict().items():
        gradient = tensors[name].grad
        assert gradient is not None
        np.testing.assert_allclose(before[name] - after, gradient.numpy(), atol=1e-13, err_msg=name)


def test_gradient_against_finite_differences():
    model, before, x, label = case(1)
    model.update(x[None], np.array([label]))
    after = model.state_dict()

    def loss(name, entry, step):
        shifted = {key: values.copy() for key, values in before.items()}
        shifted[name][entry] += step
        model.load_state_dict(shifted)
        return model.update(x[None], np.array([label]))

    for name, values in before.items():
        for entry in np.ndindex(*values.shape):
            slope = (loss(name, entry, 1e-6) - loss(name, entry, -1e-6)) / 2e-6
            assert (values - after[name])[entry] == pytest.approx(slope, abs=1e-8)


def test_large_scores_give_a_finite_loss():
    model = MLP(784, 4, hidden=200, lr=0.001, seed=42, mean=100.0, std=50.0)
    x = np.full((1, 784), 255 / 256)
    assert max(model.update(x, [label]) for label in range(4)) > 1e4
    assert all(np.isfinite(values).all() for values in model.state_dict().values())


def test_it_learns_a_tiny_batch():
    random = np.random.default_rng(0)
    x, y = random.random((12, 20)), np.arange(12) % 4
    model = MLP(20, 4, hidden=30, lr=0.05, seed=0)
    losses = [model.update(x, y) for _ in range(400)]
    assert losses[-1] < 0.05 * losses[0]
    np.testing.assert_array_equal(model.predict(x), y)
    np.testing.assert_array_equal(model.probabilities(x).argmax(axis=1), y)
    np.testing.assert_allclose(model.probabilities(x).sum(axis=1), 1.0, rtol=1e-14)
