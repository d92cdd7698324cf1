"""scikit-learn's handwritten digits: 1,797 real 8x8 images, inside the package, no download.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI (the 1,797 test images).
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from dl_lab.datasets.batches import Loading, Order
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.images.labelled import Source, generate_arrays, labelled_images
from dl_lab.datasets.images.layout import HeldOut


def digits(
    input_shape: Sequence[int],
    n_classes: int,
    source: Source,
    divisor: float,
    held_out: HeldOut | None,
    n_generated: int,
    loading: Loading,
    order: Order,
) -> Dataset:
    """Return the digits, with pixels from 0 to 16. There is no official split.

    Args:
        input_shape: [1, 8, 8].
        n_classes: 10.
        source: "real", or "generated" for images that a model can learn.
        divisor: The pixel that becomes 1.
        held_out: How many images are drawn for validation and test. None: all images, in their stored order, are
            training, validation and test alike (for a source that reports accuracy on its training images).
        n_generated: Training images of the generated data set.
        loading: Where the images reside.
        order: The order of a training epoch.

    Raises:
        ValueError: `held_out` does not leave training images.
    """
    if source == "generated":
        arrays = generate_arrays(n_generated, input_shape, n_classes)
        arrays = {part: (images // 16, labels) for part, (images, labels) in arrays.items()}
    else:
        arrays = _split(*_read(), held_out)
    return labelled_images(
        "digits",
        arrays,
        "generated" if source == "generated" else "full",
        input_shape=input_shape,
        n_classes=n_classes,
        divisor=divisor,
        white=16,
        loading=loading,
        order=order,
        class_names=[str(digit) for digit in range(n_classes)],
        notes=["val and test are the training images"] if held_out is None else [],
    )


def _read() -> tuple[np.ndarray, np.ndarray]:
    """Read the file of scikit-learn without importing scikit-learn, which is slow."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise ValueError("the digits come with scikit-learn, which is not installed")
    with gzip.open(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    return table[:, :-1].reshape(-1, 1, 8, 8), table[:, -1]


def _split(
    images: np.ndarray, labels: np.ndarray, held_out: HeldOut | None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Draw the splits, or take all images for each. Raise a ValueError if no training image is left."""
    if held_out is None:
        return dict.fromkeys(("train", "val", "test"), (images, labels))
    n_val = held_out.n_val
    n_test = held_out.n_test or 0
    if n_val < 1 or n_test < 1 or n_val + n_test >= len(images):
        raise ValueError(f"held_out.n_val {n_val} and n_test {n_test} do not leave training images of {len(images)}")
    order = np.random.default_rng(held_out.seed).permutation(len(images))
    parts = np.split(order, [n_test, n_test + n_val])
    arrays: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for split, part in zip(("test", "val", "train"), parts, strict=True):
        arrays[split] = (images[part], labels[part])
    return arrays
