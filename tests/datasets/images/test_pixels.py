"""Pixels of arrays on one scale, whatever their type."""

from __future__ import annotations

import numpy as np
import pytest

from dl_lab.datasets.images.pixels import to_pixels
from dl_lab.types import UserError

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (3, 4, 4), dtype=np.uint8)
BYTES[0, 0, 0] = 255


@pytest.mark.data_file("Arrays", kind="uint8 pixels", loader="octmnist", outcome="read as they are")
def test_bytes_stay_as_they_are():
    pixels, note = to_pixels(BYTES, "x")
    assert pixels is BYTES and note == ""


@pytest.mark.data_file(
    "Arrays", kind="uint16, uint32, bool, or floats in [0, 1]", loader="octmnist",
    outcome="scaled by the range of the type, and noted",
)  # fmt: skip
@pytest.mark.parametrize(
    ("images", "right", "note"),
    [
        (BYTES.astype(np.uint16) * 257, BYTES, "uint16 pixels scaled by 65,535"),
        (BYTES.astype(np.uint32) * 16_843_009, BYTES, "uint32 pixels scaled by 4,294,967,295"),
        ((BYTES / 255).astype(np.float32), BYTES, "float32 pixels scaled by 1"),
        (BYTES / 255, BYTES, "float64 pixels scaled by 1"),
        (BYTES > 99, (BYTES > 99) * 255, "bits scaled to 0 and 255"),
    ],
)
def test_other_types_are_scaled_by_their_range(images, right, note):
    pixels, words = to_pixels(images, "x")
    np.testing.assert_allclose(pixels, right, rtol=1e-5)
    assert words == note


@pytest.mark.data_file(
    "Arrays", kind="signed integers, floats beyond [0, 1], a 12-bit range in uint16", loader="octmnist",
    outcome="refused with file and split",
)  # fmt: skip
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (BYTES.astype(np.int64), "pixels of the type int64 have no number that means white"),
        (BYTES.astype(np.float32), "float32 pixels go from .* to 255, not from 0 to 1"),
        (BYTES / 255 - 0.5, "float64 pixels go from -0.4"),
        (BYTES.astype(np.uint16) * 16, "the brightest uint16 pixel is 4,080 of 65,535"),
        (np.where(BYTES == 255, np.nan, BYTES / 255), "image 0 has pixels that are not finite"),
        (BYTES.astype(str), "pixels of the type <U"),
    ],
)
def test_types_without_a_white_are_refused(images, message):
    with pytest.raises(UserError, match=f"a.npz, val split.*{message}"):
        to_pixels(images, "a.npz, val split")
