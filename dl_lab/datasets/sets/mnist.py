"""MNIST: 70,000 handwritten digits at 28x28, in torchvision's layout.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", 1998.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dl_lab.datasets.batches import Loading, Order
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.images.labelled import Source, generate_arrays, labelled_images
from dl_lab.datasets.images.layout import HeldOut
from dl_lab.datasets.storage import Storage
from dl_lab.types import UserError

UNSIGNED_BYTES = 0x08  # the code of the type in an IDX header


def mnist(
    input_shape: Sequence[int],
    n_classes: int,
    storage: Storage,
    source: Source,
    divisor: float,
    held_out: HeldOut,
    n_generated: int,
    loading: Loading,
    order: Order,
) -> Dataset:
    """Return MNIST. Its label is "full" if the checksums of all four files match.

    Args:
        input_shape: [1, 28, 28].
        n_classes: 10.
        storage: Where the IDX files lie: training images and labels, test images and labels.
        source: "real", or "generated" for images that a model can learn.
        divisor: The pixel that becomes 1.
        held_out: How many training images are held out for validation.
        n_generated: Training images of the generated data set.
        loading: Where the images reside.
        order: The order of a training epoch.

    Raises:
        UserError: A file is missing, damaged, or does not fit the others.
        ValueError: `held_out` does not leave training images.
    """
    label = "generated"
    if source == "generated":
        arrays = generate_arrays(n_generated, input_shape, n_classes)
    else:
        arrays = _read(storage, held_out)
        label = "full" if storage.is_official() else "part"
    return labelled_images(
        "mnist",
        arrays,
        label,
        input_shape=input_shape,
        n_classes=n_classes,
        divisor=divisor,
        loading=loading,
        order=order,
        class_names=[str(digit) for digit in range(n_classes)],
        where=f"{storage.data_dir}/MNIST" if source == "real" else "",
    )


def _read(storage: Storage, held_out: HeldOut) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the splits. Raise a UserError if a file is damaged, or has another length than its partner."""
    paths = [storage.ensure(file) for file in storage.entries()]
    images, labels = _read_pair(paths[0], paths[1])
    n_val = held_out.n_val
    if not 0 < n_val < len(images):
        raise ValueError(f"held_out.n_val {n_val} does not leave training images of {len(images)}")
    shuffled = np.random.default_rng(held_out.seed).permutation(len(images))
    for_val = np.sort(shuffled[:n_val])
    kept = np.sort(shuffled[n_val:])
    return {
        "train": (images[kept], labels[kept]),
        "val": (images[for_val], labels[for_val]),
        "test": _read_pair(paths[2], paths[3]),
    }


def _read_pair(images_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return images (n, height, width) and labels (n,) of two files that belong together."""
    images = read_idx(images_path, n_axes=3)
    labels = read_idx(labels_path, n_axes=1)
    if len(images) != len(labels):
        raise UserError(
            f"{images_path} has {len(images):,} images, but {labels_path} has {len(labels):,} labels: the files do not "
            "belong together."
        )
    return images, labels


def read_idx(path: Path, n_axes: int) -> np.ndarray:
    """Read the unsigned bytes of an IDX file.

    The header has two zeros, the code of the type, the number of axes, and the length of each axis (big-endian, four
    bytes). The values follow.

    Args:
        path: The file, not compressed.
        n_axes: The number of axes that the array must have.

    Raises:
        UserError: The file is no such array, or has another length than its header says.
    """
    try:
        raw = bytearray(path.read_bytes())  # writable, as torch wants it
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    n_header = 4 + 4 * n_axes
    if len(raw) < n_header or raw[:4] != bytes([0, 0, UNSIGNED_BYTES, n_axes]):
        raise UserError(
            f"{path} cannot be read: it is no IDX file of unsigned bytes with {n_axes} axes. Delete it and "
            "fetch it again."
        )
    shape = [int(length) for length in np.frombuffer(raw, ">u4", count=n_axes, offset=4)]
    expected = int(np.prod(shape, dtype=object))
    if len(raw) - n_header != expected:
        raise UserError(
            f"{path} cannot be read: it has {len(raw) - n_header:,} bytes after its header where the header says "
            f"{expected:,}. Delete it and fetch it again."
        )
    return np.frombuffer(raw, np.uint8, offset=n_header).reshape(shape)
