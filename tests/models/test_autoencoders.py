"""Autoencoders: published parameter counts, shapes, the code's size."""

from __future__ import annotations

import pytest
import torch

from dl_lab.models.autoencoder import Autoencoder
from dl_lab.models.series_autoencoders import ConvAutoencoder, LSTMAutoencoder


def size(model):
    return sum(p.numel() for p in model.parameters())


def test_published_parameter_counts():
    image = (1, 32, 32)
    assert size(ConvAutoencoder((48, 1))) == 905
    assert size(ConvAutoencoder((48, 1), stride=1)) == 905
    assert size(Autoencoder(image, [256])) == 525_568
    assert size(Autoencoder(image, [256], [256])) == 591_360
    assert size(Autoencoder(image, [512, 256, 128, 64], [128, 256, 512])) == 1_395_520


@pytest.mark.parametrize(
    "model",
    [
        ConvAutoencoder((16, 2)),
        ConvAutoencoder((16, 2), stride=1),
        LSTMAutoencoder((16, 2), hidden=4),
        Autoencoder((16, 2), [6, 3], [6]),
    ],
    ids=["strided", "unstrided", "lstm", "dense"],
)
def test_keeps_the_shape_and_trains_every_weight(model):
    x = torch.rand(3, 16, 2)
    out = model(x)
    assert out.shape == x.shape
    (out - x).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match="length 50 is not a multiple of 4"):
        ConvAutoencoder((50, 1))
    with pytest.raises(ValueError, match="encoder is empty"):
        Autoencoder((4,), [])


def test_initial_weights():
    torch.manual_seed(0)
    model = Autoencoder((1, 32, 32), [256], weight_std=0.1)
    assert abs(float(model[1].weight.detach().std()) - 0.1) < 0.001
