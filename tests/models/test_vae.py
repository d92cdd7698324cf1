"""Variational autoencoders: the published size, shapes, and the reparameterised sample."""

from __future__ import annotations

import pytest
import torch

from dl_lab.models.vae import VAE, ConvVAE, sample


def test_published_parameter_count():
    assert sum(p.numel() for p in VAE((1, 28, 28)).parameters()) == 469_268


@pytest.mark.parametrize("model", [VAE((1, 8, 8), [12, 6], 3), ConvVAE((1, 8, 8), (2, 3), 3)], ids=["dense", "conv"])
def test_shapes_and_gradients(model):
    x = torch.rand(5, 1, 8, 8)
    logits, mean, log_variance = model(x)
    assert logits.shape == x.shape
    assert mean.shape == log_variance.shape == (5, 3)
    (logits.sum() + mean.sum() + log_variance.sum()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_sample_has_the_given_mean_and_variance_and_passes_gradients():
    mean, log_variance = torch.full((20_000, 2), 3.0), torch.full((20_000, 2), 0.5).requires_grad_()
    z = sample(mean, log_variance, torch.Generator().manual_seed(0))
    assert abs(float(z.detach().mean()) - 3) < 0.03
    assert abs(float(z.detach().var()) - float(torch.tensor(0.5).exp())) < 0.05
    z.square().sum().backward()
    assert log_variance.grad is not None
    assert float(log_variance.grad.abs().sum()) > 0


def test_sides_must_be_multiples_of_4():
    with pytest.raises(ValueError, match="30 x 30 images are not multiples of 4"):
        ConvVAE((1, 30, 30))
