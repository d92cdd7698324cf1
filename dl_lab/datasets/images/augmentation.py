"""Augmentation of whole batches on the device: images (batch, channels, height, width) in [0, 1].

Every step turns `n_draws` uniform numbers for each image into one change of that image. The numbers of an epoch depend
on (seed, epoch, index of the image) alone. So the batch size, the device, the residence of the data set and a resumed
run change nothing. Images keep their size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

GREY = (0.2989, 0.587, 0.114)  # ITU-R BT.601 luma, as torchvision's rgb_to_grayscale


class Step(Protocol):
    """One change of images (batch, channels, height, width).

    Attributes:
        n_draws: How many uniform numbers the step takes for each image.
    """

    n_draws: int

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return the changed images; `draws` (batch, n_draws) are uniform numbers in [0, 1)."""
        ...


class Augmentation:
    """A sequence of steps, which is a step itself.

    Args:
        steps: The steps by name, in the order in which they are applied. A step that is None is left out.
    """

    def __init__(self, steps: Mapping[str, Step | None]) -> None:
        self.steps = [step for step in steps.values() if step is not None]
        self.n_draws = sum(step.n_draws for step in self.steps)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Apply all steps."""
        own = draws.split([step.n_draws for step in self.steps], dim=1)
        for step, numbers in zip(self.steps, own, strict=True):
            images = step(images, numbers)
        return images


class RandomCrop:
    """Cuts a window of the image's own size out of the image with a border.

    Args:
        padding: The width of the border in pixels.
        mode: "constant" fills the border with `fill`, "reflect" with the reflection of the image.
        fill: A pixel in [0, 1].

    Raises:
        ValueError: `padding` is negative.
    """

    n_draws = 2

    def __init__(self, padding: int, mode: Literal["constant", "reflect"] = "constant", fill: float = 0.0) -> None:
        if padding < 0:
            raise ValueError(f"padding {padding} is negative")
        self.padding = padding
        self.mode = mode
        self.fill = fill

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Crop the images."""
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
    """Exchanges left and right.

    Args:
        p: The probability.

    Raises:
        ValueError: `p` is not between 0 and 1.
    """

    n_draws = 1

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p {p} is not between 0 and 1")
        self.p = p

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Flip the images."""
        return torch.where(draws[:, :, None, None] < self.p, images.flip(-1), images)


class RandomRotation:
    """Turns the image about its centre by an angle of U(-degrees, degrees), bilinear. The new corners are black.

    Args:
        degrees: The largest angle.
    """

    n_draws = 1

    def __init__(self, degrees: float) -> None:
        self.degrees = degrees

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Turn the images."""
        angle = math.radians(self.degrees) * (2 * draws[:, 0] - 1)
        height, width = images.shape[-2:]
        cos = angle.cos()
        sin = angle.sin()
        zero = torch.zeros_like(angle)
        turned = torch.stack([cos, sin * height / width, zero, -sin * width / height, cos, zero], dim=1)
        return _resample(images, turned.view(-1, 2, 3), "zeros")


class RandomResizedCrop:
    """Enlarges a rectangle of the image to the whole image (bilinear).

    This is the augmentation of Inception (Szegedy et al., arXiv 1409.4842, section 6). A rectangle that is too long for
    the image is cut to the image; torchvision draws another rectangle.

    Args:
        scale: The least and the greatest share of the area; the share is uniform.
        ratio: The least and the greatest width / height; the ratio is log-uniform.

    Raises:
        ValueError: A range is empty or out of bounds.
    """

    n_draws = 4

    def __init__(self, scale: Sequence[float] = (0.08, 1.0), ratio: Sequence[float] = (3 / 4, 4 / 3)) -> None:
        if not (len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1):
            raise ValueError(f"scale {list(scale)} is not [least, greatest] share of the area, above 0 and up to 1")
        if not (len(ratio) == 2 and 0 < ratio[0] <= ratio[1]):
            raise ValueError(f"ratio {list(ratio)} is not [least, greatest] width / height")
        self.scale = tuple(scale)
        self.ratio = tuple(ratio)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Crop and enlarge the images."""
        height, width = images.shape[-2:]
        area = torch.lerp(*_expand_limits(self.scale, draws), draws[:, 0])
        log_limits = [math.log(limit) for limit in self.ratio]
        ratio = torch.lerp(*_expand_limits(log_limits, draws), draws[:, 1]).exp() * height / width
        across = (area * ratio).sqrt().clamp(max=1)  # a share of the width
        down = (area / ratio).sqrt().clamp(max=1)  # a share of the height
        x = (1 - across) * (2 * draws[:, 2] - 1)  # the centre, in [-1, 1]
        y = (1 - down) * (2 * draws[:, 3] - 1)
        zero = torch.zeros_like(x)
        window = torch.stack([across, zero, x, zero, down, y], dim=1)
        return _resample(images, window.view(-1, 2, 3), "border")


class ColorJitter:
    """Multiplies brightness, contrast and saturation by U(1 - v, 1 + v), then turns the hue by U(-v, v) of a circle.

    Each change is defined as in torchvision. Saturation and hue need RGB images.

    Args:
        brightness: The v of the brightness, at least 0.
        contrast: The v of the contrast, at least 0.
        saturation: The v of the saturation, at least 0.
        hue: The v of the hue, from 0 to 0.5.

    Raises:
        ValueError: A number is out of its range.
    """

    n_draws = 4

    def __init__(
        self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, hue: float = 0.0
    ) -> None:
        if min(brightness, contrast, saturation, hue) < 0 or hue > 0.5:
            raise ValueError("brightness, contrast, saturation and hue must be at least 0, and hue at most 0.5")
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Change the colours.

        Raises:
            ValueError: Saturation or hue is to change, but the images do not have 3 channels.
        """
        if (self.saturation or self.hue) and images.shape[1] != 3:
            raise ValueError(f"saturation and hue need images of 3 channels, not {images.shape[1]}")
        signed = (2 * draws - 1)[:, :, None, None, None]  # (batch, 4, 1, 1, 1)
        if self.brightness:
            images = (images * _draw_factor(self.brightness, signed[:, 0])).clamp(0, 1)
        if self.contrast:
            mean = _to_grey(images).mean(dim=(1, 2, 3), keepdim=True)
            images = torch.lerp(mean, images, _draw_factor(self.contrast, signed[:, 1])).clamp(0, 1)
        if self.saturation:
            images = torch.lerp(_to_grey(images), images, _draw_factor(self.saturation, signed[:, 2])).clamp(0, 1)
        if self.hue:
            images = turn_hue(images, self.hue * signed[:, 3])
        return images


class Cutout:
    """Fills a square of the image. Its centre is any pixel, so that a part of the square may be outside.

    Source: T. DeVries, G. Taylor, "Improved regularization of convolutional neural networks with cutout",
    arXiv 1708.04552.

    Args:
        size: The side of the square in pixels.
        fill: A pixel in [0, 1].

    Raises:
        ValueError: `size` is less than 1.
    """

    n_draws = 2

    def __init__(self, size: int, fill: float = 0.0) -> None:
        if size < 1:
            raise ValueError(f"size {size} is not at least 1")
        self.size = size
        self.fill = fill

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Fill the squares."""
        rows = self._find_covered(images.shape[-2], draws[:, 0])
        columns = self._find_covered(images.shape[-1], draws[:, 1])
        return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], self.fill)

    def _find_covered(self, side: int, draws: Tensor) -> Tensor:
        """Return which rows, or columns, the square covers: (batch, side) bool."""
        first = (draws * side).long()[:, None] - self.size // 2
        place = torch.arange(side, device=draws.device)
        return (place >= first) & (place < first + self.size)


class Torchvision:
    """A transform of torchvision.transforms.v2 as a step, image by image, on the device of the batch.

    Each image has a seed of its own, made of its uniform number. So the batch size, the device and a resumed run change
    nothing.

    Args:
        transform: Takes an image (channels, height, width) and keeps its shape.
        as_uint8: Whether the transform takes and returns uint8 images from 0 to 255 (RandAugment, AutoAugment), and not
            floats in [0, 1].
    """

    n_draws = 1

    def __init__(self, transform: Callable[[Tensor], Tensor], as_uint8: bool = False) -> None:
        self.transform = transform
        self.as_uint8 = as_uint8

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Transform the images.

        Raises:
            ValueError: The transform changes the shape of an image.
        """
        changed: list[Tensor] = []
        devices = [images.device] if images.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # the run's own stream of random numbers stays as it is
            for image, draw in zip(images, draws[:, 0].tolist(), strict=True):
                torch.manual_seed(int(draw * 2**32))
                changed.append(self._change(image))
        return torch.stack(changed)

    def _change(self, image: Tensor) -> Tensor:
        if self.as_uint8:
            result = self.transform((image * 255).round().to(torch.uint8)).to(image.dtype) / 255
        else:
            result = self.transform(image)
        if result.shape != image.shape:
            raise ValueError(
                f"{type(self.transform).__name__} makes images of shape {list(result.shape)} out of "
                f"{list(image.shape)}: a step of an augmentation keeps the shape"
            )
        return result


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of RGB images.

    Args:
        images: (batch, 3, height, width) in [0, 1].
        turn: (batch, 1, 1, 1), the angle as a share of a full circle.
    """
    red, green, blue = images.unbind(1)
    value = images.amax(dim=1)
    low = images.amin(dim=1)
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


def _resample(images: Tensor, theta: Tensor, outside: str) -> Tensor:
    """Sample images by an affine map (batch, 2, 3) of the output's coordinates in [-1, 1]."""
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=outside, align_corners=False)


def _to_grey(images: Tensor) -> Tensor:
    """Return grey images (batch, 1, height, width). Images of one channel are grey already."""
    if images.shape[1] != 3:
        return images
    red, green, blue = images.split(1, dim=1)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def _draw_factor(strength: float, signed: Tensor) -> Tensor:
    """Turn numbers of U(-1, 1) into factors of U(max(0, 1 - strength), 1 + strength)."""
    low = max(0.0, 1 - strength)
    return low + (signed + 1) / 2 * (1 + strength - low)


def _expand_limits(limits: Sequence[float], like: Tensor) -> tuple[Tensor, Tensor]:
    """Return both limits as tensors (batch,), of the type and on the device of `like` (batch, ...)."""
    low, high = (like.new_full((len(like),), limit) for limit in limits)
    return low, high
