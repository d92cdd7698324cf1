"""The two small CNNs of the IST Deep Learning coursework (homework 2, 2023/24, question 2).

They compare max-pooling with strided convolution at the same parameter count, 224,892 for one-channel 28x28 images and
4 classes. The coursework ends in LogSoftmax and the negative log-likelihood. Logits and cross-entropy are the same
function.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class PooledCNN(nn.Sequential):
    """Max-pooling halves every map: (batch, channels, height, width) -> (batch, n_classes) logits.

    ReLU comes after the pooling. The two commute exactly, because both are monotone, and a quarter of the values is
    left.

    Args:
        input_shape: (channels, height, width) of an image.
        n_classes: Number of logits.
        dropout: Probability after the first linear layer.
    """

    def __init__(self, input_shape: Sequence[int], n_classes: int, dropout: float = 0.7) -> None:
        features = nn.Sequential(
            nn.Conv2d(input_shape[0], 8, kernel_size=3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(8, 16, kernel_size=3),
            nn.MaxPool2d(2),
            nn.ReLU(),
        )
        super().__init__(features, nn.Flatten(), _make_head(features, input_shape, n_classes, dropout))


class StridedCNN(nn.Sequential):
    """The convolution halves every map: (batch, channels, height, width) -> (batch, n_classes) logits.

    Args:
        input_shape: (channels, height, width) of an image.
        n_classes: Number of logits.
        dropout: Probability after the first linear layer.
    """

    def __init__(self, input_shape: Sequence[int], n_classes: int, dropout: float = 0.7) -> None:
        features = nn.Sequential(
            nn.Conv2d(input_shape[0], 8, kernel_size=3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, kernel_size=3, stride=2),
            nn.ReLU(),
        )
        super().__init__(features, nn.Flatten(), _make_head(features, input_shape, n_classes, dropout))


def _make_head(features: nn.Module, input_shape: Sequence[int], n_classes: int, dropout: float) -> nn.Sequential:
    with torch.no_grad():
        n_features = features(torch.zeros(1, *input_shape)).numel()  # 16 x 6 x 6 for 28x28 images
    return nn.Sequential(
        nn.Linear(n_features, 320),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(320, 120),
        nn.ReLU(),
        nn.Linear(120, n_classes),
    )
