"""ResNet-9, the small residual net of the fast-training literature (D. Page, "How to train your ResNet", part 4, 2018,
the winner of DAWNBench's CIFAR-10 training in its time).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn


class ResNet9(nn.Sequential):
    """(batch, channels, height, width) -> (batch, n_classes) logits; 6,573,120 parameters for RGB and 10 classes.

    Eight convolutions and a linear layer: widths w, 2w, 4w, 8w, a max-pooling after each but the first, a residual
    pair of convolutions at the second and the fourth, the maximum over the map. scale: of the logits (Page: .125),
    which slows the last layer's learning. initialise: applied to every module; None leaves PyTorch's own weights.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        width: int = 64,
        scale: float = 0.125,
        initialise: Callable[[nn.Module], None] | None = None,
    ) -> None:
        super().__init__(
            convolution(input_shape[0], width),
            convolution(width, 2 * width),
            nn.MaxPool2d(2),
            Residual(2 * width),
            convolution(2 * width, 4 * width),
            nn.MaxPool2d(2),
            convolution(4 * width, 8 * width),
            nn.MaxPool2d(2),
            Residual(8 * width),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(8 * width, n_classes, bias=False),
            Scale(scale),
        )
        if initialise is not None:
            self.apply(initialise)


class Residual(nn.Module):
    """x + two convolutions of it: (batch, width, height, width) keeps its shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(convolution(width, width), convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Scale(nn.Module):
    """A fixed factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def convolution(channels: int, width: int) -> nn.Sequential:
    """3x3 that keeps the size, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )
