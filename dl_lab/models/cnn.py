"""A plain convolutional net, given by its lists of filters, kernels and poolings (Padova homework 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from dl_lab.models.mlp import ACTIVATIONS, Activation


class CNN(nn.Sequential):
    """Convolutional blocks and one linear layer: (batch, channels, height, width) -> (batch, n_classes) logits.

    Block i has `filters[i]` filters of side `kernels[i]`, max-pooling by `pools[i]` and the activation. A convolution
    keeps the size of the map and has (channels * kernel^2 + 1) * filters parameters. One block of 32 filters of side 3
    on 32x32 RGB images has 896; with pooling by 2 and 10 classes the whole net has 82,826.

    Args:
        input_shape: (channels, height, width) of an image.
        n_classes: Number of logits.
        filters: Number of filters of each block.
        kernels: Side of each block's filters, in pixels.
        pools: Side of each block's max-pooling; 1 leaves it out.
        activation: Name of the activation.
        dropout: Probability before the linear layer.
        initialise: Applied to every module, children first (`nn.Module.apply`); None keeps PyTorch's own weights.

    Raises:
        ValueError: The lists differ in length, or the poolings leave nothing of the image.
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
            layers.append(_make_convolution(channels, n_filters, kernel))
            # Pooling first: it commutes with a monotone activation, and pool^2 times fewer values are activated.
            if pool > 1:
                layers.append(nn.MaxPool2d(pool))
            layers.append(ACTIVATIONS[activation]())
            channels = n_filters
            height //= pool
            width //= pool
        if height < 1 or width < 1:
            sides = " x ".join(map(str, input_shape[1:]))
            raise ValueError(f"images of {sides} are too small for the poolings {list(pools)}")
        layers += [nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels * height * width, n_classes)]
        super().__init__(*layers)
        if initialise is not None:
            self.apply(initialise)


def _make_convolution(channels: int, n_filters: int, kernel: int) -> nn.Module:
    """Return a convolution that keeps the size; an even kernel sees one more row below and one more column right."""
    if kernel % 2:
        return nn.Conv2d(channels, n_filters, kernel, padding=kernel // 2)
    before = (kernel - 1) // 2
    after = kernel // 2
    return nn.Sequential(nn.ZeroPad2d((before, after, before, after)), nn.Conv2d(channels, n_filters, kernel))
