"""The perceptron against exact integer arithmetic, and its step against autograd."""

from itertools import pairwise

import numpy as np
import torch

from dl_lab.from_scratch.perceptron import Perceptron


def images(n: int, n_features: int = 784, n_classes: int = 4):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (n, n_features), dtype=np.uint8), random.integers(0, n_classes, n)


def exact_perceptron(pixels, labels, n_classes, epochs=1):
    """The same rule in integers, in units of 1 / 256: the bias feature is 256."""
    x = np.column_stack([pixels.astype(np.int64), np.full(len(pixels), 256)])
    W = np.zeros((n_classes, x.shape[1]), dtype=np.int64)
    mistakes = []
    for _ in range(epochs):
        mistakes.append(0)
        for x_i, y_i in zip(x, labels, strict=True):
            predicted = int(np.argmax(W @ x_i))
            if predicted != y_i:
                W[y_i] += x_i
                W[predicted] -= x_i
                mistakes[-1] += 1
    return W, mistakes, np.argmax(x @ W.T, axis=1)


def test_every_digit_is_exact():
    pixels, labels = images(700)
    W, mistakes, predicted = exact_perceptron(pixels, labels, 4, epochs=3)
    model = Perceptron(784, 4)
    assert [model.update(pixels / 256, labels) for _ in range(3)] == mistakes
    np.testing.assert_array_equal(model.W * 256, W)
    np.testing.assert_array_equal(model.predict(pixels / 256), predicted)
    assert min(mistakes) > 0


def test_float32_pixels_give_the_same_weights():
    pixels, labels = images(300)
    double, single = Perceptron(784, 4), Perceptron(784, 4)
    double.update(pixels / 256, labels)
    single.update((pixels / 256).astype(np.float32), labels)
    np.testing.assert_array_equal(double.W, single.W)


def test_batches_make_no_difference():
    pixels, labels = images(600)
    whole, parts = Perceptron(784, 4), Perceptron(784, 4)
    mistakes = whole.update(pixels / 256, labels)
    cuts = [0, 1, 257, 300, 600]
    counted = [parts.update(pixels[a:b] / 256, labels[a:b]) for a, b in pairwise(cuts)]
    assert sum(counted) == mistakes
    np.testing.assert_array_equal(whole.W, parts.W)


def test_the_step_descends_the_perceptron_loss():
    random = np.random.default_rng(1)
    for label in range(4):
        model = Perceptron(6, 4)
        W = random.normal(size=(4, 7))
        model.load_state_dict({"W": W})
        x = random.normal(size=6)
        mistakes = model.update(x[None], np.array([label]))
        weight = torch.tensor(W, requires_grad=True)
        scores = weight @ torch.tensor([*x, 1.0], dtype=torch.float64)
        (gradient,) = torch.autograd.grad(scores.max() - scores[label], weight)
        np.testing.assert_allclose(W - model.W, gradient.numpy(), atol=1e-14)
        assert mistakes == float(gradient.abs().sum() > 0)


def test_separable_samples_end_without_a_mistake():
    x = np.array([[2.0, 0.0], [0.0, 2.0], [-2.0, -2.0]])
    y = np.array([0, 1, 2])
    model = Perceptron(2, 3)
    mistakes = [model.update(x, y) for _ in range(20)]
    assert mistakes[0] > 0
    assert mistakes[-1] == 0
    np.testing.assert_array_equal(model.predict(x), y)


def test_bias_is_the_last_column_and_can_be_left_out():
    x, y = np.array([[3.0, 5.0]]), np.array([1])
    model = Perceptron(2, 2)
    model.update(x, y)
    np.testing.assert_array_equal(model.W, [[-3.0, -5.0, -1.0], [3.0, 5.0, 1.0]])
    without = Perceptron(2, 2, bias=False)
    without.update(x, y)
    np.testing.assert_array_equal(without.W, [[-3.0, -5.0], [3.0, 5.0]])
