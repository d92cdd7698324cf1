"""Residual networks of basic blocks.

Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", arXiv 1512.03385.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from torch import Tensor, nn

Stem = Literal["3x3", "7x7"]
WIDTHS = (64, 128, 256, 512)  # of the four stages


class Block(Protocol):
    """Builds one residual block."""

    def __call__(self, channels: int, width: int, stride: int) -> nn.Module:
        """Build a block whose attribute `out_channels` says how many channels it returns.

        Args:
            channels: Channels of the input.
            width: Width of the stage, in channels.
            stride: By how much the block divides height and width.
        """
        ...


class BasicBlock(nn.Module):
    """y = relu(F(x) + x), where F is two 3x3 convolutions (figures 2 and 5, left).

    If the shape changes, x goes through a 1x1 convolution (option B of section 3.3).

    Args:
        channels: Channels of the input.
        width: Channels of the output.
        stride: By how much the block divides height and width.
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
        """Map maps (batch, channels, height, width) to (batch, out_channels, height / stride, width / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + self.shortcut(x))


class ResNet(nn.Module):
    """A residual network: (batch, channels, height, width) -> (batch, n_classes) logits.

    A stem, four stages of blocks, the mean over the map, dropout and one linear layer (table 1). Each stage after the
    first halves the map and doubles the width.

    Args:
        input_shape: (channels, height, width) of an image.
        n_classes: Number of logits.
        block: Builds a block.
        depths: Number of blocks in each of the four stages.
        stem: "3x3" keeps the size of small images. "7x7" is the paper's; with its pooling it divides the size by 4.
        dropout: Probability before the linear layer.
        initialise: Applied to every module, children first (`nn.Module.apply`); None keeps PyTorch's own weights.

    Raises:
        ValueError: `depths` does not have four entries.
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
            raise ValueError(f"depths {list(depths)} must have {len(WIDTHS)} entries, one for each stage")
        self.stem = _make_stem(input_shape[0], stem)
        channels = WIDTHS[0]
        stages = []
        for stage, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True)):
            blocks = []
            for i in range(depth):
                halves = stage > 0 and i == 0
                blocks.append(block(channels, width, stride=2 if halves else 1))
                channels = blocks[-1].out_channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, n_classes)
        if initialise is not None:
            self.apply(initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Map images x (batch, channels, height, width) to logits (batch, n_classes)."""
        return self.fc(self.dropout(self.pool(self.stages(self.stem(x)))))


def resnet18(
    input_shape: Sequence[int],
    n_classes: int,
    stem: Stem = "3x3",
    dropout: float = 0.0,
    initialise: Callable[[nn.Module], None] | None = None,
) -> ResNet:
    """Build ResNet-18, which has two basic blocks in each stage.

    With 3 classes it has 11,170,371 parameters, 11,178,051 with the stem 7x7. `ResNet` describes the arguments.
    """
    return ResNet(input_shape, n_classes, BasicBlock, [2, 2, 2, 2], stem, dropout, initialise)


def projection(channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return the shortcut of a block: the identity if the shape stays, else a 1x1 convolution to the new shape."""
    if stride == 1 and channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 1, stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def _make_stem(channels: int, stem: Stem) -> nn.Sequential:
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
