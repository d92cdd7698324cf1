"""Images of shapes with a class for each pixel, and a small U-Net."""

import numpy as np
import torch
from torch import Tensor, nn

from dl_lab.datasets.dataset import Dataset


def draw(n: int, size: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 1, size, size) float32 and classes (n, size, size) int64: 0 nothing, 1 a disc, 2 a square."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    y, x = rng.integers(4, size - 4, (2, 2, n, 1, 1))  # the middles of a disc and of a square
    down, right = abs(rows - y), abs(columns - x)
    classes = np.zeros((n, size, size), np.int64)
    classes[down[0] ** 2 + right[0] ** 2 <= 9] = 1
    classes[np.maximum(down[1], right[1]) <= 3] = 2
    images = (classes > 0) + noise * rng.standard_normal(classes.shape)
    return images[:, None].astype(np.float32), classes


def shapes(n: int, noise: float, n_classes: int, input_shape: list[int]) -> Dataset:
    splits = [draw(m, input_shape[-1], noise, seed) for seed, m in enumerate([n, n // 4, n // 4])]
    return Dataset.from_arrays(*splits, name="shapes", class_names=("nothing", "disc", "square"))


def convolve(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU())


class UNet(nn.Module):
    """(batch, 1, height, width) -> (batch, n_classes, height, width) logits."""

    def __init__(self, n_classes: int, width: int):
        super().__init__()
        self.down = convolve(1, width)
        self.middle = nn.Sequential(nn.MaxPool2d(2), convolve(width, 2 * width), convolve(2 * width, 2 * width))
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.head = nn.Sequential(convolve(2 * width, width), nn.Conv2d(width, n_classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down(x)
        coarse = self.up(self.middle(fine))
        return self.head(torch.cat([fine, coarse], dim=1))
