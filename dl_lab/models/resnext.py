"""ResNeXt: residual blocks that are sums over many narrow paths.

Source: S. Xie, R. Girshick, P. Dollar, Z. Tu, K. He, "Aggregated residual transformations for deep neural networks",
arXiv 1611.05431.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from dl_lab.models.resnet import ResNet, Stem, projection


class ResNeXtBlock(nn.Module):
    """y = relu(x + sum over C paths of T_i(x)) (equation 3), in the grouped form (figure 3c).

    A 1x1 convolution down to the C paths, a 3x3 convolution in C groups, a 1x1 convolution up.

    Args:
        channels: Channels of the input.
        width: Width of the stage, in channels.
        stride: By how much the block divides height and width.
        cardinality: Number C of paths.
        base_width: Channels of one path in the first stage (4 in "32x4d"); every stage doubles them.
        expansion: The output has `expansion` times `width` channels.
    """

    def __init__(
        self, channels: int, width: int, stride: int, cardinality: int = 32, base_width: int = 4, expansion: int = 2
    ) -> None:
        super().__init__()
        paths = cardinality * (width * base_width // 64)  # channels of all paths together
        self.out_channels = expansion * width
        self.conv1 = nn.Conv2d(channels, paths, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(paths)
        self.conv2 = nn.Conv2d(paths, paths, 3, stride, padding=1, groups=cardinality, bias=False)
        self.bn2 = nn.BatchNorm2d(paths)
        self.conv3 = nn.Conv2d(paths, self.out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(self.out_channels)
        self.relu = nn.ReLU()
        self.shortcut = projection(channels, self.out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map maps (batch, channels, height, width) to (batch, out_channels, height / stride, width / stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + self.shortcut(x))


def resnext(
    input_shape: Sequence[int],
    n_classes: int,
    depths: Sequence[int],
    cardinality: int = 32,
    base_width: int = 4,
    expansion: int = 2,
    stem: Stem = "7x7",
    dropout: float = 0.0,
    initialise: Callable[[nn.Module], None] | None = None,
) -> ResNet:
    """Build a ResNeXt: (batch, channels, height, width) -> (batch, n_classes) logits.

    `ResNeXtBlock` and `ResNet` describe the arguments. With depths [2, 2, 2, 2] and 3 classes the net has 6,393,411
    parameters; with cardinality 8 it has 2,138,691. The paper's ResNeXt-50 (32x4d) has depths [3, 4, 6, 3] and
    expansion 4.
    """
    block = partial(ResNeXtBlock, cardinality=cardinality, base_width=base_width, expansion=expansion)
    return ResNet(input_shape, n_classes, block, depths, stem, dropout, initialise)
