"""The coursework's models: the published parameter counts, their shapes, and the order of ReLU and pooling."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from dl_lab.jobs import inspect
from dl_lab.models.linear import Linear
from dl_lab.models.mlp import MLP
from dl_lab.models.oct_cnn import PooledCNN, StridedCNN

IMAGES = (1, 28, 28)


@pytest.mark.parametrize(
    ("model", "published"),
    [
        (PooledCNN(IMAGES, 4), 224_892),
        (StridedCNN(IMAGES, 4), 224_892),
        (MLP(IMAGES, 4, [200, 200]), 198_004),
        (MLP(IMAGES, 4, [200]), 157_804),
        (Linear(IMAGES, 4), 3_140),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_published_parameter_count(model, published):
    assert sum(parameter.numel() for parameter in model.parameters()) == published
    assert model(torch.zeros(3, *IMAGES)).shape == (3, 4)


@pytest.mark.parametrize("model", ["pooled_cnn", "strided_cnn", "linear"])
def test_the_yaml_builds_the_published_model(model):
    from dl_lab import configs as config

    composed = config.Composer().compose(["dataset=octmnist", f"model={model}"])
    assert inspect.count_parameters(composed.config) == ((3_140,) * 2 if model == "linear" else (224_892,) * 2)


def test_relu_after_pooling_is_relu_before_pooling_exactly():
    """Values and gradients, bit for bit: both are monotone, so the largest of a window stays the largest."""
    torch.manual_seed(0)
    after = PooledCNN(IMAGES, 4).eval()
    before = copy.deepcopy(after)
    conv1, pool1, relu1, conv2, pool2, relu2 = before[0]
    before[0] = nn.Sequential(conv1, relu1, pool1, conv2, relu2, pool2)
    x = torch.rand(16, *IMAGES)
    assert torch.equal(after(x), before(x))
    for model in (after, before):
        model(x).square().sum().backward()
    for one, two in zip(after.parameters(), before.parameters(), strict=True):
        assert torch.equal(one.grad, two.grad)


def test_the_model_is_as_the_coursework_states_it():
    """Layer by layer (homework 2, question 2): maps of 8x14x14 and 16x6x6, then 320, 120 and 4 units."""
    model, shapes = PooledCNN(IMAGES, 4), []
    for layer in (*model[0], *model[2]):
        layer.register_forward_hook(lambda module, _, output: shapes.append((type(module).__name__, *output.shape[1:])))
    model(torch.zeros(1, *IMAGES))
    assert shapes == [
        ("Conv2d", 8, 28, 28),
        ("MaxPool2d", 8, 14, 14),
        ("ReLU", 8, 14, 14),
        ("Conv2d", 16, 12, 12),
        ("MaxPool2d", 16, 6, 6),
        ("ReLU", 16, 6, 6),
        ("Linear", 320),
        ("ReLU", 320),
        ("Dropout", 320),
        ("Linear", 120),
        ("ReLU", 120),
        ("Linear", 4),
    ]


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    model, x = MLP(IMAGES, 4, [50], dropout=0.5), torch.rand(2, *IMAGES)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))
