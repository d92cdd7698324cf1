"""Arrays of pixels from other programs (.npz, .npy), brought to one scale: from 0 to 255."""

from __future__ import annotations

import numpy as np

from dl_lab.types import UserError

SAFE = "save them as uint8, as uint16, or as floats from 0 to 1"
DARKEST = 0.25  # share of white; see `dl_lab.datasets.images.files`


def to_pixels(images: np.ndarray, where: str) -> tuple[np.ndarray, str]:
    """Scale pixels to the range from 0 to 255.

    uint8 stays as it is. Other unsigned integers are scaled by the range of their type, bits and floats by [0, 1].

    Args:
        images: Any array of pixels.
        where: The file and the array in it, for messages.

    Returns:
        The pixels, uint8 or float32, and words for the note ("" where nothing was scaled).

    Raises:
        UserError: The type or the range of the pixels says nothing about the number that means white.
    """
    if images.dtype == np.uint8:
        return images, ""
    name = str(images.dtype)
    if images.size == 0:
        return images.astype(np.uint8), ""
    if images.dtype == bool:
        return images.astype(np.uint8) * np.uint8(255), "bits scaled to 0 and 255"
    if images.dtype.kind == "u":
        white = np.iinfo(images.dtype).max
        brightest = float(images.max()) / white
        if brightest < DARKEST:
            raise UserError(
                f"{where}: the brightest {name} pixel is {images.max():,} of {white:,}: all images would be nearly "
                f"black, as the numbers of a 12-bit camera are. Scale them by the number that means white and "
                f"{SAFE}."
            )
        return (images * (255 / white)).astype(np.float32), f"{name} pixels scaled by {white:,}"
    if images.dtype.kind == "f":
        if not np.isfinite(images).all():
            bad = np.flatnonzero(~np.isfinite(images).reshape(len(images), -1).all(axis=1))[0]
            raise UserError(f"{where}: image {bad} has pixels that are not finite numbers.")
        low = float(images.min())
        high = float(images.max())
        if low < 0 or high > 1:
            raise UserError(f"{where}: {name} pixels go from {low:g} to {high:g}, not from 0 to 1: {SAFE}.")
        return images.astype(np.float32) * np.float32(255), f"{name} pixels scaled by 1"
    raise UserError(f"{where}: pixels of the type {name} have no number that means white: {SAFE}.")
