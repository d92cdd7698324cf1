"""MNIST: 70,000 handwritten digits at 28x28, in torchvision's layout.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", 1998.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dl_lab.datasets.batches import Order, Residence, shuffled
from dl_lab.datasets.files import data_files, ensure
from dl_lab.datasets.images import Source, generated_arrays, labelled_images
from dl_lab.types import Dataset, UserError


def mnist(
    input_shape: Sequence[int],
    n_classes: int,
    data_dir: str,
    files: Sequence[Mapping[str, Any]],
    source: Source = "real",
    divisor: float = 256,
    n_val: int = 5000,
    split_seed: int = 0,
    n_generated: int = 2048,
    residence: Residence = "auto",
    workers: int = 2,
    order: Order = shuffled,
) -> Dataset:
    """Images (1, 28, 28); `n_val` of the 60,000 training images are held out by `split_seed`.

    files: the four IDX files under MNIST/raw; "full" where all their md5 sums match. Divided by 256 by default,
    like the OCTMNIST coursework whose models also run here.
    """
    if source == "generated":
        arrays, label = generated_arrays(n_generated, input_shape, n_classes), "generated"
    else:
        parts = data_files(files)
        for file in parts:
            ensure(file, Path(data_dir))
        arrays = _read(Path(data_dir).expanduser(), n_val, split_seed)
        official = all(file.state(Path(data_dir)) == "official" for file in parts)
        label = "full" if official else "part"
    return labelled_images(
        "mnist",
        arrays,
        label,
        input_shape=input_shape,
        n_classes=n_classes,
        divisor=divisor,
        residence=residence,
        workers=workers,
        order=order,
        class_names=[str(digit) for digit in range(n_classes)],
        note=f"validation split drawn with seed {split_seed}",
    )


def _read(data_dir: Path, n_val: int, split_seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    from torchvision.datasets import MNIST

    try:
        train, test = MNIST(str(data_dir), train=True), MNIST(str(data_dir), train=False)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(f"The MNIST files under {data_dir} cannot be read ({error}).") from error
    images, labels = train.data.numpy(), train.targets.numpy()
    if not 0 < n_val < len(images):
        raise ValueError(f"n_val {n_val} does not leave training images of {len(images)}")
    order = np.random.default_rng(split_seed).permutation(len(images))
    held_out, kept = np.sort(order[:n_val]), np.sort(order[n_val:])
    return {
        "train": (images[kept], labels[kept]),
        "val": (images[held_out], labels[held_out]),
        "test": (test.data.numpy(), test.targets.numpy()),
    }
