"""VGG: deep stacks of small convolutions (K. Simonyan, A. Zisserman, "Very deep convolutional networks for
large-scale image recognition", arXiv 1409.1556, table 1), with batch normalisation as an option the paper precedes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn

Configuration = Literal["A", "B", "C", "D", "E", "deep"]

# The columns of table 1 (a max-pooling after each block); "deep" is D and a sixth block of four convolutions, the
# coursework's net whose gradients vanish: its 17 convolutions stand at features[0], [2], [5], ..., [37].
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
    """(batch, channels, height, width) -> (batch, n_classes) logits.

    pooled: the side of the map that the fully connected layers see, by adaptive average pooling (torchvision: 7);
    None takes the map as it comes, as the paper does. dropout follows the first two of the three fully connected
    layers, `hidden` units each. initialise: applied to every module; None leaves PyTorch's own initial weights.
    Configuration C at 3 x 64 x 64 with 3 classes has 35,182,403 parameters, with batch normalisation 35,190,851.
    Raises ValueError for an image that is gone before the last block.
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
        return self.classifier(self.pool(self.features(x)))


def convolution(channels: int, width: int, kernel: int, batch_norm: bool) -> list[nn.Module]:
    """conv<kernel>-<width> of table 1: the map keeps its size; then ReLU."""
    layer = nn.Conv2d(channels, width, kernel, padding=kernel // 2)
    return [layer, nn.BatchNorm2d(width), nn.ReLU()] if batch_norm else [layer, nn.ReLU()]
