"""ResNet-9, the small residual net of the fast-training literature.

Source: D. Page, "How to train your ResNet", part 4, 2018, which won DAWNBench's CIFAR-10 training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn


class ResNet9(nn.Sequential):
    """Eight convolutions and a linear layer: (batch, channels, height, width) -> (batch, n_classes) logits.

    The widths are w, 2w, 4w and 8w. Max-pooling follows each width but the first; a residual pair of convolutions
    follows the second and the fourth; the maximum over the map feeds the linear layer. For RGB images and 10 classes
    the net has 6,573,120 parameters.

    Args:
        input_shape: (channels, height, width) of an image.
        n_classes: Number of logits.
        width: Channels w of the first convolution.
        scale: Factor of the logits, which slows the learning of the last layer (Page: 0.125).
        initialise: Applied to every module, children first (`nn.Module.apply`); None keeps PyTorch's own weights.
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
    """x plus two convolutions of x.

    Args:
        width: Channels of the input and the output.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(convolution(width, width), convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map maps x (batch, channels, height, width) to the same shape."""
        return x + self.branch(x)


class Scale(nn.Module):
    """Multiplication by a fixed factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x of any shape."""
        return x * self.factor


def convolution(channels: int, width: int) -> nn.Sequential:
    """Return a 3x3 convolution that keeps the size of the map, batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )
