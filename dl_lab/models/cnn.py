"""A plain convolutional net by its lists of filters, kernels and poolings (Padova homework 3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import nn

from dl_lab.models.mlp import ACTIVATIONS, Activation


class CNN(nn.Sequential):
    """(batch, channels, height, width) -> (batch, n_classes) logits.

    Block i: `filters[i]` filters of side `kernels[i]` (the map keeps its size), the activation, max-pooling by
    `pools[i]` (1: none); then one linear layer. A block has (channels * kernel^2 + 1) * filters parameters: the 32
    filters of side 3 on RGB 896, and with pooling by 2 and 10 classes the net 82,826.
    Raises ValueError for lists of unequal length and for images that the poolings use up.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        filters: Sequence[int],
        kernels: Sequence[int],
        pools: Sequence[int],
        activation: Activation = "relu",
        dropout: float = 0.0,
        initialise: Callable[[nn.Module], None] | None = None,
    ) -> None:
        if not len(filters) == len(kernels) == len(pools):
            raise ValueError(f"filters {filters}, kernels {kernels} and pools {pools} are not of one length")
        channels, height, width = input_shape
        layers: list[nn.Module] = []
        for n_filters, kernel, pool in zip(filters, kernels, pools, strict=True):
            layers.append(_same(channels, n_filters, kernel))
            # Pooling first: it commutes with a monotone activation, and pool^2 times fewer values are activated.
            layers += [nn.MaxPool2d(pool)] if pool > 1 else []
            layers.append(ACTIVATIONS[activation]())
            channels, height, width = n_filters, height // pool, width // pool
        if height < 1 or width < 1:
            sides = " x ".join(map(str, input_shape[1:]))
            raise ValueError(f"images of {sides} are too small for the poolings {list(pools)}")
        layers += [nn.Flatten(), nn.Dropout(dropout), nn.Linear(math.prod((channels, height, width)), n_classes)]
        super().__init__(*layers)
        if initialise is not None:
            self.apply(initialise)


def _same(channels: int, n_filters: int, kernel: int) -> nn.Module:
    """A convolution that keeps the size; an even kernel sees one more row and column below and to the right."""
    if kernel % 2:
        return nn.Conv2d(channels, n_filters, kernel, padding=kernel // 2)
    before, after = (kernel - 1) // 2, kernel // 2
    return nn.Sequential(nn.ZeroPad2d((before, after, before, after)), nn.Conv2d(channels, n_filters, kernel))
