"""Augmentation of whole batches on the device: images (batch, channels, height, width) in [0, 1].

Every step turns `n_draws` uniform numbers for each image into one change of it. The numbers of an epoch are drawn at
once, a function of (seed, epoch, index of the image) alone: the batch size, the device, the residence of the data set
and a resumed run change nothing. Images keep their size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

GREY = (0.2989, 0.587, 0.114)  # ITU-R BT.601 luma, as torchvision's rgb_to_grayscale


class Step(Protocol):
    """One change: images and uniform numbers in [0, 1) of shape (batch, n_draws) -> images."""

    n_draws: int

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor: ...


class Augmentation:
    """Steps by name, one after the other in the order of the mapping; null takes one away."""

    def __init__(self, steps: Mapping[str, Step | None]) -> None:
        self.steps = [step for step in steps.values() if step is not None]
        self.n_draws = sum(step.n_draws for step in self.steps)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        own = draws.split([step.n_draws for step in self.steps], dim=1)
        for step, numbers in zip(self.steps, own, strict=True):
            images = step(images, numbers)
        return images


class RandomCrop:
    """A window of the image's own size out of the image with `padding` pixels around it: `fill`, or its reflection."""

    n_draws = 2

    def __init__(self, padding: int, mode: Literal["constant", "reflect"] = "constant", fill: float = 0.0) -> None:
        if padding < 0:
            raise ValueError(f"padding {padding} is negative")
        self.padding, self.mode, self.fill = padding, mode, fill

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        n, channels, height, width = images.shape
        value = self.fill if self.mode == "constant" else None
        padded = F.pad(images, [self.padding] * 4, self.mode, value)
        first = (draws * (2 * self.padding + 1)).long()  # (batch, 2): the window's top and left
        rows = first[:, :1] + torch.arange(height, device=images.device)
        columns = first[:, 1:] + torch.arange(width, device=images.device)
        items = torch.arange(n, device=images.device)[:, None, None, None]
        maps = torch.arange(channels, device=images.device)[None, :, None, None]
        return padded[items, maps, rows[:, None, :, None], columns[:, None, None, :]]


class RandomHorizontalFlip:
    """Left and right exchanged with probability p."""

    n_draws = 1

    def __init__(self, p: float = 0.5) -> None:
        self.p = _share("p", p)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        return torch.where(draws[:, :, None, None] < self.p, images.flip(-1), images)


class RandomRotation:
    """Turned about the centre by an angle of U(-degrees, degrees), bilinear; black where nothing was."""

    n_draws = 1

    def __init__(self, degrees: float) -> None:
        self.degrees = degrees

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        angle = math.radians(self.degrees) * (2 * draws[:, 0] - 1)
        height, width = images.shape[-2:]
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        turned = torch.stack([cos, sin * height / width, zero, -sin * width / height, cos, zero], dim=1)
        return _resampled(images, turned.view(-1, 2, 3), "zeros")


class RandomResizedCrop:
    """A rectangle of U(scale) of the area and an aspect ratio log-uniform in `ratio`, enlarged to the whole, bilinear.

    Inception-style (Szegedy et al., arXiv 1409.4842, section 6); a rectangle too long for the image is cut to it,
    where torchvision draws again.
    """

    n_draws = 4

    def __init__(self, scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3)) -> None:
        if not (len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1):
            raise ValueError(f"scale {list(scale)} is not [least, greatest] share of the area, above 0 and up to 1")
        if not (len(ratio) == 2 and 0 < ratio[0] <= ratio[1]):
            raise ValueError(f"ratio {list(ratio)} is not [least, greatest] width / height")
        self.scale, self.ratio = tuple(scale), tuple(ratio)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        area = torch.lerp(*_ends(self.scale, draws), draws[:, 0])
        ratio = torch.lerp(*_ends([math.log(r) for r in self.ratio], draws), draws[:, 1]).exp() * height / width
        across, down = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)  # shares of the sides
        x = (1 - across) * (2 * draws[:, 2] - 1)  # the centre, in [-1, 1]
        y = (1 - down) * (2 * draws[:, 3] - 1)
        zero = torch.zeros_like(x)
        window = torch.stack([across, zero, x, zero, down, y], dim=1)
        return _resampled(images, window.view(-1, 2, 3), "border")


class ColorJitter:
    """Brightness, contrast and saturation times U(1 - v, 1 + v), then the hue turned by U(-v, v) of a full circle.

    Each is defined as torchvision's; saturation and hue need RGB images.
    """

    n_draws = 4

    def __init__(
        self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, hue: float = 0.0
    ) -> None:
        if min(brightness, contrast, saturation, hue) < 0 or hue > 0.5:
            raise ValueError("brightness, contrast, saturation and hue must be at least 0, and hue at most 0.5")
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        if (self.saturation or self.hue) and images.shape[1] != 3:
            raise ValueError(f"saturation and hue need images of 3 channels, not {images.shape[1]}")
        signed = (2 * draws - 1)[:, :, None, None, None]  # (batch, 4, 1, 1, 1)
        if self.brightness:
            images = (images * _factor(self.brightness, signed[:, 0])).clamp(0, 1)
        if self.contrast:
            mean = _grey(images).mean(dim=(1, 2, 3), keepdim=True)
            images = torch.lerp(mean, images, _factor(self.contrast, signed[:, 1])).clamp(0, 1)
        if self.saturation:
            images = torch.lerp(_grey(images), images, _factor(self.saturation, signed[:, 2])).clamp(0, 1)
        if self.hue:
            images = turn_hue(images, self.hue * signed[:, 3])
        return images


class Cutout:
    """A square of `size` pixels becomes `fill`; its centre is any pixel, so that a part may lie outside (T. DeVries,
    G. Taylor, "Improved regularization of convolutional neural networks with cutout", arXiv 1708.04552)."""

    n_draws = 2

    def __init__(self, size: int, fill: float = 0.0) -> None:
        if size < 1:
            raise ValueError(f"size {size} is not at least 1")
        self.size, self.fill = size, fill

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        rows = self._covered(images.shape[-2], draws[:, 0])
        columns = self._covered(images.shape[-1], draws[:, 1])
        return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], self.fill)

    def _covered(self, side: int, draws: Tensor) -> Tensor:
        """(batch, side) bool."""
        first = (draws * side).long()[:, None] - self.size // 2
        place = torch.arange(side, device=draws.device)
        return (place >= first) & (place < first + self.size)


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """RGB images (batch, 3, height, width) with their hue, a share of the circle, moved by `turn` (batch, 1, 1, 1)."""
    red, green, blue = images.unbind(1)
    value, low = images.amax(dim=1), images.amin(dim=1)
    chroma = value - low
    safe = chroma.clamp(min=1e-12)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    hue = hue + 6 * turn[:, 0]
    # back by the closed form: channel n is value - chroma * max(0, min(k, 4 - k, 1)), k = (n + hue) mod 6
    parts = [(n + hue) % 6 for n in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in parts], dim=1)


def _resampled(images: Tensor, theta: Tensor, outside: str) -> Tensor:
    """The images where an affine map (batch, 2, 3) of the output's coordinates in [-1, 1] leads."""
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=outside, align_corners=False)


def _grey(images: Tensor) -> Tensor:
    """(batch, 1, height, width); images of one channel are grey already."""
    if images.shape[1] != 3:
        return images
    return sum(share * images[:, i : i + 1] for i, share in enumerate(GREY))  # pyright: ignore[reportReturnType]


def _factor(strength: float, signed: Tensor) -> Tensor:
    """U(max(0, 1 - strength), 1 + strength) of U(-1, 1)."""
    low = max(0.0, 1 - strength)
    return low + (signed + 1) / 2 * (1 + strength - low)


def _ends(limits: Sequence[float], like: Tensor) -> tuple[Tensor, Tensor]:
    low, high = (like.new_full((len(like),), limit) for limit in limits)
    return low, high


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} {value} is not between 0 and 1")
    return value
