"""Softmax and cross-entropy against torch, and where exp overflows."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dl_lab.from_scratch.softmax import cross_entropy_step, softmax


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_against_torch(scale):
    scores = np.random.default_rng(0).normal(scale=scale, size=5)
    tensor = torch.tensor(scores, requires_grad=True)
    np.testing.assert_allclose(softmax(scores[None])[0], tensor.softmax(dim=0).detach().numpy(), atol=1e-15)
    for label in range(5):
        loss = F.cross_entropy(tensor[None], torch.tensor([label]))
        (gradient,) = torch.autograd.grad(loss, tensor)
        error = scores.copy()
        assert cross_entropy_step(error, label) == pytest.approx(loss.item(), rel=1e-14, abs=1e-15)
        np.testing.assert_allclose(error, gradient.numpy(), atol=1e-15)


def test_large_scores_stay_finite():
    assert cross_entropy_step(np.array([1e6, 0.0]), 1) == 1e6
    np.testing.assert_array_equal(softmax(np.array([[1e6, 0.0]])), [[1.0, 0.0]])
