"""VGG: deep stacks of small convolutions.

Source: K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image recognition", arXiv
1409.1556, table 1. Batch normalisation is an option that came after the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn

Configuration = Literal["A", "B", "C", "D", "E", "deep"]

# The columns of table 1; max-pooling follows each block. "deep" is D with a sixth block of four convolutions, the
# coursework's net whose gradients vanish. Its 17 convolutions stand at features[0], [2], [5], ..., [37].
CONFIGURATIONS: dict[str, tuple[tuple[str, ...], ...]] = {
    "A": (
        ("conv3-64",),
        ("conv3-128",),
        ("conv3-256", "conv3-256"),
        ("conv3-512", "conv3-512"),
        ("conv3-512", "conv3-512"),
    ),
    "B": (
        ("conv3-64", "conv3-64"),
        ("conv3-128", "conv3-128"),
        ("conv3-256", "conv3-256"),
        ("conv3-512", "conv3-512"),
        ("conv3-512", "conv3-512"),
    ),
    "C": (
        ("conv3-64", "conv3-64"),
        ("conv3-128", "conv3-128"),
        ("conv3-256", "conv3-256", "conv1-256"),
        ("conv3-512", "conv3-512", "conv1-512"),
        ("conv3-512", "conv3-512", "conv1-512"),
    ),
    "D": (
        ("conv3-64", "conv3-64"),
        ("conv3-128", "conv3-128"),
        ("conv3-256", "conv3-256", "conv3-256"),
        ("conv3-512", "conv3-512", "conv3-512"),
        ("conv3-512", "conv3-512", "conv3-512"),
    ),
    "E": (
        ("conv3-64", "conv3-64"),
        ("conv3-128", "conv3-128"),
        ("conv3-256", "conv3-256", "conv3-256", "conv3-256"),
        ("conv3-512", "conv3-512", "conv3-512", "conv3-512"),
        ("conv3-512", "conv3-512", "conv3-512", "conv3-512"),
    ),
    "deep": (
        ("conv3-64", "conv3-64"),
        ("conv3-128", "conv3-128"),
        ("conv3-256", "conv3-256", "conv3-256"),
        ("conv3-512", "conv3-512", "conv3-512"),
        ("conv3-512", "conv3-512", "conv3-512"),
        ("conv3-512", "conv3-512", "conv3-512", "conv3-512"),
    ),
}


class VGG(nn.Module):
    """Blocks of convolutions and three linear layers: (batch, channels, height, width) -> (batch, n_classes) logits.

    Configuration C on 3 x 64 x 64 images with 3 classes has 35,182,403 parameters, with batch normalisation 35,190,851.

    Args:
        input_shape: (channels, height, width) of an image.
        n_classes: Number of logits.
        configuration: Column of table 1, or "deep".
        batch_norm: Whether batch normalisation follows each convolution.
        hidden: Units of each of the two hidden linear layers.
        dropout: Probability after each hidden linear layer.
        pooled: Side of the map that the linear layers see, by adaptive average pooling (torchvision: 7); None takes the
            map as it comes, as the paper does.
        initialise: Applied to every module, children first (`nn.Module.apply`); None keeps PyTorch's own weights.

    Raises:
        ValueError: The image is too small for the poolings.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        configuration: Configuration = "C",
        batch_norm: bool = True,
        hidden: int = 4096,
        dropout: float = 0.5,
        pooled: int | None = None,
        initialise: Callable[[nn.Module], None] | None = None,
    ) -> None:
        super().__init__()
        blocks = CONFIGURATIONS[configuration]
        channels, *sides = input_shape
        layers: list[nn.Module] = []
        for block in blocks:
            for name in block:
                kernel, width = map(int, name.removeprefix("conv").split("-"))
                layers += convolution(channels, width, kernel, batch_norm)
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        last = [side // 2 ** len(blocks) for side in sides]
        if min(last) < 1:
            raise ValueError(
                f"images of {' x '.join(map(str, sides))} are too small for the {len(blocks)} poolings of"
                f" VGG {configuration}: each side must be at least {2 ** len(blocks)}"
            )
        self.pool = nn.Identity() if pooled is None else nn.AdaptiveAvgPool2d(pooled)
        n_features = channels * (math.prod(last) if pooled is None else pooled**2)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(n_features, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, n_classes),
        )
        if initialise is not None:
            self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Map images x (batch, channels, height, width) to logits (batch, n_classes)."""
        return self.classifier(self.pool(self.features(x)))


def convolution(channels: int, width: int, kernel: int, batch_norm: bool) -> list[nn.Module]:
    """Return the layers of conv<kernel>-<width> in table 1, which keeps the size of the map, and a ReLU."""
    layer = nn.Conv2d(channels, width, kernel, padding=kernel // 2)
    return [layer, nn.BatchNorm2d(width), nn.ReLU()] if batch_norm else [layer, nn.ReLU()]
