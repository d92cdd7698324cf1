"""Residual networks of basic blocks (K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition",
arXiv 1512.03385).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from torch import Tensor, nn

Stem = Literal["3x3", "7x7"]
WIDTHS = (64, 128, 256, 512)  # of the four stages


class Block(Protocol):
    """(channels, width, stride) -> a module with the number of its `out_channels`."""

    def __call__(self, channels: int, width: int, stride: int) -> nn.Module: ...


class BasicBlock(nn.Module):
    """y = relu(F(x) + x), F two 3x3 convolutions (figures 2 and 5, left): (batch, channels, height, width) ->
    (batch, width, height / stride, width / stride). Where the shape changes, x goes through a 1x1 convolution
    (option B of section 3.3).
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.out_channels = width
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.shortcut = projection(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + self.shortcut(x))


class ResNet(nn.Module):
    """(batch, channels, height, width) -> (batch, n_classes) logits.

    A stem, four stages of `depths` blocks (each after the first halves the map and doubles the width), the mean over
    the map, dropout, one linear layer (table 1). stem: "3x3" keeps the size of small images, "7x7" with its pooling
    is the paper's, a quarter of the size. initialise: applied to every module; None leaves PyTorch's own weights.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        block: Block,
        depths: Sequence[int],
        stem: Stem = "3x3",
        dropout: float = 0.0,
        initialise: Callable[[nn.Module], None] | None = None,
    ) -> None:
        super().__init__()
        if len(depths) != len(WIDTHS):
            raise ValueError(f"depths {list(depths)} are not the blocks of {len(WIDTHS)} stages")
        self.stem = _stem(input_shape[0], stem)
        channels, stages = WIDTHS[0], []
        for stage, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True)):
            blocks = []
            for i in range(depth):
                blocks.append(block(channels, width, stride=2 if stage > 0 and i == 0 else 1))
                channels = blocks[-1].out_channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, n_classes)
        if initialise is not None:
            self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(self.pool(self.stages(self.stem(x)))))


def resnet18(
    input_shape: Sequence[int],
    n_classes: int,
    stem: Stem = "3x3",
    dropout: float = 0.0,
    initialise: Callable[[nn.Module], None] | None = None,
) -> ResNet:
    """ResNet-18: two basic blocks in each stage. With 3 classes 11,170,371 parameters, 11,178,051 with stem 7x7."""
    return ResNet(input_shape, n_classes, BasicBlock, [2, 2, 2, 2], stem, dropout, initialise)


def projection(channels: int, out_channels: int, stride: int) -> nn.Module:
    """The shortcut of a block: nothing where the shape stays, else a 1x1 convolution to the new one."""
    if stride == 1 and channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 1, stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _stem(channels: int, stem: Stem) -> nn.Sequential:
    if stem == "3x3":
        return nn.Sequential(
            nn.Conv2d(channels, WIDTHS[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTHS[0]),
            nn.ReLU(),
        )
    return nn.Sequential(
        nn.Conv2d(channels, WIDTHS[0], 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(WIDTHS[0]),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
    )
